package kong

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// JoinedVariable is an nginx variable that holds what three calls would ask for, and the request's id besides: the value
// of deploy/gatehouse.nginx.conf, which Kong includes by nginx_http_include. Where there is none, the three are asked, and a
// request that Kong runs twice counts twice.
const JoinedVariable = "gatehouse_request"

// A question is something that an event asks Kong about the request.
type question int

const (
	readHeaders question = iota
	readLine
	readUpstream
	readAddress
	readJoined
	readRoute
)

// calls are the questions as the protocol has them. upstream_uri is set before any plugin's access phase, so it is the path after strip_path and the
// service's own path.
var calls = [...]struct {
	method string
	args   proto.Message
}{
	readHeaders:  {"kong.request.get_headers", &protocol.Int{V: maxHeaders}},
	readLine:     {"kong.nginx.get_var", &protocol.String{V: "request"}},
	readUpstream: {"kong.nginx.get_var", &protocol.String{V: "upstream_uri"}},
	readAddress:  {"kong.client.get_forwarded_ip", nil},
	readJoined:   {"kong.nginx.get_var", &protocol.String{V: JoinedVariable}},
	readRoute:    {"kong.router.get_route", nil},
}

// plan is a batch of questions: Kong answers in order.
type plan struct {
	reads []question
	batch []byte // encoded once
}

func planOf(reads ...question) (p plan, err error) {
	p.reads = reads
	for _, what := range reads {
		if p.batch, err = appendCall(p.batch, calls[what].method, calls[what].args); err != nil {
			return plan{}, err
		}
	}
	return p, nil
}

// plans are the ways to ask, each without and with the question for the route.
type plans struct{ joined, separate, both [2]plan }

func newPlans() (p plans, err error) {
	for of, reads := range map[*[2]plan][]question{
		&p.joined:   {readHeaders, readJoined},
		&p.separate: {readHeaders, readLine, readUpstream, readAddress},
		&p.both:     {readHeaders, readLine, readUpstream, readAddress, readJoined},
	} {
		if of[0], err = planOf(reads...); err != nil {
			return p, err
		}
		if of[1], err = planOf(append(reads, readRoute)...); err != nil {
			return p, err
		}
	}
	return p, nil
}

// recheck is how long it is taken for granted what a route is called and that there is no JoinedVariable. A route may get
// another name while its id stays, and the instance with it.
const recheck = 10 * time.Second

// joined is whether Kong had the JoinedVariable.
type joined struct {
	there bool
	at    time.Time
}

// ask reads the request.
func (s *Server) ask(e *event, i *instance, now time.Time) (guard.Request, error) {
	name, route := i.knownRoute(now), 0
	if name == "" {
		route = 1
	}
	known := s.joined.Load()
	there := known != nil && known.there
	var p plan
	switch {
	case there:
		p = s.plans.joined[route]
	case known == nil || now.Sub(known.at) >= recheck:
		p = s.plans.both[route]
	default:
		p = s.plans.separate[route]
	}
	a, err := e.ask(p)
	if err != nil {
		return a.Request, err
	}
	if slices.Contains(p.reads, readJoined) && (!there || !a.joined) {
		s.joined.Store(&joined{a.joined, now})
		if known == nil || there != a.joined {
			s.log.Info("Kong's variable "+JoinedVariable, "there", a.joined)
		}
	}
	if there && !a.joined { // Kong has been configured anew
		rest, err := e.ask(s.plans.separate[0])
		if err != nil {
			return rest.Request, err
		}
		rest.Route, rest.routeID = a.Route, a.routeID
		a = rest
	}
	switch {
	case name != "":
		a.Route = name
	case a.routeID != "" && a.routeID == i.routeID:
		i.route.Store(&routeName{a.Route, now})
	}
	return a.Request, nil
}

// answers is what Kong said of one request.
type answers struct {
	guard.Request
	routeID string
	joined  bool // whether there is a JoinedVariable
}

// fill takes one answer. One that cannot be read makes the request malformed, never anonymous: one header byte that is not
// UTF-8 makes the whole struct unreadable.
func (a *answers) fill(what question, answer []byte) (err error) {
	defer func() {
		if recover() != nil { // a bug of a decoder must not look like a lost connection
			err = errors.New("an answer cannot be decoded")
		}
	}()
	switch what {
	case readHeaders:
		return headers(&a.Request, answer)
	case readRoute:
		var route protocol.Route
		if err := proto.Unmarshal(answer, &route); err != nil {
			return errors.New("the route cannot be read")
		}
		a.routeID = route.GetId()
		if a.Route = route.GetName(); a.Route == "" {
			a.Route = a.routeID
		}
		return nil
	}
	var s protocol.String
	if err := proto.Unmarshal(answer, &s); err != nil {
		return errors.New("an answer is not UTF-8")
	}
	switch text := s.GetV(); what {
	case readLine:
		return a.line(text)
	case readUpstream:
		return a.upstream(text)
	case readAddress:
		return a.address(text)
	default:
		if text == "" {
			return nil
		}
		a.joined = true
		return a.join(text)
	}
}

// join reads the JoinedVariable: the request's id, the client's address, what the upstream will get, and the request line.
func (a *answers) join(text string) error {
	parts := strings.SplitN(text, " ", 4)
	if len(parts) < 4 || parts[0] == "" {
		return errors.New("the request cannot be read")
	}
	a.ID = parts[0]
	return errors.Join(a.address(parts[1]), a.upstream(parts[2]), a.line(parts[3]))
}

func (a *answers) line(text string) error {
	method, rest, ok := strings.Cut(text, " ")
	end := strings.LastIndexByte(rest, ' ')
	if !ok || end < 0 {
		return errors.New("the request line cannot be read")
	}
	a.Method = method
	a.Path, a.Query, _ = strings.Cut(rest[:end], "?")
	return nil
}

func (a *answers) upstream(text string) error {
	if a.UpstreamPath, _, _ = strings.Cut(text, "?"); a.UpstreamPath == "" {
		return errors.New("what the upstream will get is not known")
	}
	return nil
}

func (a *answers) address(text string) (err error) {
	if a.Addr, err = netip.ParseAddr(text); err != nil {
		return errors.New("the client's address cannot be read")
	}
	return nil
}
