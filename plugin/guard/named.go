package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/onejson"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// IDs says where a request names the objects that it is for. The policy is asked about each of them.
type IDs struct {
	In        Place
	Pointer   string // in the body: a JSON Pointer (RFC 6901) at an id or an array of ids; a token * is every element of an array
	Parameter string // in the query: ids with commas between them, in one parameter or several
	Optional  bool   // in the query: a request without the parameter is for the collection that the path is
	Most      int    // ids in one request
	MaxBytes  int    // of a body that is read
}

// Place is a part of a request.
type Place string

// The places. In the path (also "") the id is the segment at {id}.
const (
	InPath  Place = "path"
	InQuery Place = "query"
	InBody  Place = "body"
)

const (
	maxIDs     = 1000
	maxIDBytes = 256     // of one id
	maxBody    = 1 << 20 // of a body that is read
	maxExact   = 1 << 53 // integers from here on are not the same number to every parser (RFC 7493 section 2.2)
)

// Body is the body of a request. It is asked for only where a resource says that ids stand in it, and at most once.
type Body interface {
	// Body answers all of it, as the upstream will get it, or a fault that says why it cannot be read.
	Body(ctx context.Context) ([]byte, error)
}

// What a Body that cannot be read answers, beside its own failures.
var (
	ErrBodyBuffered = fault.New(fault.Invalid, "The body is larger than what the gateway can show to the edge.").Named("body_buffered")
	ErrBodyLate     = fault.New(fault.Invalid, "The body did not come in time.").Named("body_late")
	ErrBodyUnread   = fault.New(fault.Invalid, "The body cannot be read.").Named("body_unreadable")
)

var (
	errBodyHidden   = fault.New(fault.Unavailable, "The gateway does not show bodies to the edge.").Named("body_unavailable")
	errBodyType     = fault.New(fault.Invalid, "The body has to be application/json in UTF-8, without a content coding.").Named("unsupported_media_type")
	errBodyTooLarge = fault.New(fault.Invalid, "The body is too large.").Named("body_too_large")
	errBodyForm     = fault.New(fault.Invalid, "The body is not JSON that has one reading.").Named("body_malformed")
	errIDsMissing   = fault.New(fault.Invalid, "The request does not say which objects it is for.").Named("ids_missing")
	errIDsMany      = fault.New(fault.Invalid, "The request is for more objects than it may be.").Named("ids_too_many")
	errIDsForm      = fault.New(fault.Invalid, "An id is not one that every parser reads alike.").Named("id_malformed")
)

func (r Resource) validateIDs(at string, wrong reject) {
	at += ".ids"
	switch r.IDs.In {
	case InPath, "":
		return
	case InQuery:
		if !isToken(r.IDs.Parameter) {
			wrong(at+".parameter", "expected a name of letters, digits, - and _")
		}
	case InBody:
		if _, err := authzen.ParsePointer(r.IDs.Pointer); err != nil {
			wrong(at+".pointer", "expected a JSON Pointer (RFC 6901)")
		}
		if r.IDs.Optional {
			wrong(at+".optional", "ids in a body are always needed")
		}
		if n := r.IDs.MaxBytes; n <= 0 || n > maxBody {
			wrong(at+".max_bytes", "expected from 1 to %d", maxBody)
		}
	default:
		wrong(at+".in", "expected path, query or body")
	}
	if n := r.IDs.Most; n <= 0 || n > maxIDs {
		wrong(at+".most", "expected from 1 to %d", maxIDs)
	}
	if strings.Contains(r.Pattern, "{id}") {
		wrong(at+".in", "the pattern names the object already, by {id}")
	}
}

// elsewhere reports whether ids stand in another place than the path.
func (i IDs) elsewhere() bool { return i.In == InQuery || i.In == InBody }

// named answers the ids that the request names outside its path, each once, in their order. None is an answer only where they
// are optional.
func (s *state) named(ctx context.Context) ([]string, error) {
	want := s.target.IDs
	var ids []string
	var err error
	if want.In == InBody {
		ids, err = s.inBody(ctx, want)
	} else {
		ids, err = inQuery(s.Query, want)
	}
	if err != nil {
		return nil, err
	}
	if want.In == InQuery && (len(ids) > 0 || !want.Optional) && s.hasForm() {
		return nil, errIDsForm.Because(errors.New("a form, whose fields some servers take for parameters of the query"))
	}
	if len(ids) == 0 && !want.Optional {
		return nil, errIDsMissing
	}
	known := make(map[string]bool, len(ids))
	unique := ids[:0]
	for _, id := range ids {
		if !fitID(id) {
			return nil, errIDsForm
		}
		if !known[id] {
			known[id] = true
			unique = append(unique, id)
		}
	}
	return unique, nil
}

// fitID refuses what an upstream could take for another object, or the decision point for a collection: a separator, an escape,
// white space around it, the sign that parsers put in the place of what is no text.
func fitID(id string) bool {
	return id != "" && len(id) <= maxIDBytes && id != "." && id != ".." && utf8.ValidString(id) && strings.TrimSpace(id) == id &&
		!strings.ContainsFunc(id, unicode.IsControl) && !strings.ContainsAny(id, "/\\%\ufffd")
}

// inQuery reads a=1,2&a=3. Names that some servers take for the same parameter, such as A or a[], are refused.
func inQuery(query string, want IDs) (ids []string, err error) {
	if strings.Contains(query, ";") { // to some, a separator
		return nil, errIDsForm.Because(errors.New("the query has a semicolon"))
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name, err = url.QueryUnescape(name); err != nil {
			return nil, errIDsForm.Because(errors.New("the query is malformed"))
		}
		if name != want.Parameter {
			if alike(name, want.Parameter) {
				return nil, errIDsForm.Because(errors.New("another spelling of the parameter"))
			}
			continue
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, errIDsForm.Because(errors.New("the query is malformed"))
		}
		if len(ids)+strings.Count(value, ",")+1 > want.Most {
			return nil, errIDsMany
		}
		ids = append(ids, strings.Split(value, ",")...)
	}
	return ids, nil
}

// alike reports whether some server takes name for the parameter: without case, as an array's (a[], a[0], a.0), or as PHP does,
// which drops spaces before it, and makes an underscore of a dot, a space, and a bracket that is not closed.
func alike(name, parameter string) bool {
	name, _, _ = strings.Cut(strings.Trim(name, " \x00"), "\x00")
	array, _, _ := strings.Cut(name, "[")
	object, _, _ := strings.Cut(array, ".")
	return strings.EqualFold(object, parameter) ||
		strings.EqualFold(underscored.Replace(array), parameter) || strings.EqualFold(underscored.Replace(name), parameter)
}

var underscored = strings.NewReplacer(".", "_", " ", "_", "[", "_")

// inBody reads the ids out of the body.
func (s *state) inBody(ctx context.Context, want IDs) ([]string, error) {
	if err := apart(s.Query, want.Pointer); err != nil {
		return nil, err
	}
	data, err := s.readBody(ctx, want.MaxBytes)
	if err != nil {
		return nil, err
	}
	return idsOf(data, want.Pointer, want.Most)
}

// apart refuses a query with a parameter of the name under which the body has the ids: Rails, for one, takes that before the body's.
func apart(query, pointer string) error {
	tokens, err := authzen.ParsePointer(pointer)
	if err != nil || len(tokens) == 0 {
		return nil //nolint:nilerr // whoever reads the body says so
	}
	for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || alike(name, tokens[0]) {
			return errIDsForm.Because(errors.New("the query has a name of the body's"))
		}
	}
	return nil
}

// hasForm reports whether the body says that it is a form.
func (s *state) hasForm() bool {
	return slices.ContainsFunc(s.Header["content-type"], func(t string) bool {
		t = strings.ToLower(t)
		return strings.Contains(t, "x-www-form-urlencoded") || strings.Contains(t, "multipart/")
	})
}

// readBody answers the body, once its headers say that it is JSON and how large it may be.
func (s *state) readBody(ctx context.Context, most int) ([]byte, error) {
	if len(s.Header["content-encoding"]) > 0 {
		return nil, errBodyType
	}
	types := s.Header["content-type"]
	if len(types) != 1 || !isJSON(types[0]) {
		return nil, errBodyType
	}
	announced := ""
	if lengths := s.Header["content-length"]; len(lengths) > 0 {
		announced = lengths[0]
		n, err := strconv.ParseUint(announced, 10, 63)
		if err != nil || len(lengths) > 1 {
			return nil, ErrBodyUnread.Because(errors.New("content-length"))
		}
		if n > uint64(most) { //nolint:gosec // validated as above zero
			return nil, errBodyTooLarge
		}
	}
	if s.Body == nil {
		return nil, errBodyHidden
	}
	data, err := s.Body.Body(ctx)
	if err != nil {
		return nil, err
	}
	if len(data) > most {
		return nil, errBodyTooLarge
	}
	if announced != "" && announced != strconv.Itoa(len(data)) {
		return nil, ErrBodyUnread.Because(errors.New("it is not as long as was announced"))
	}
	return data, nil
}

func isJSON(mediaType string) bool {
	kind, params, err := mime.ParseMediaType(mediaType)
	if err != nil || kind != "application/json" && !(strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// idsOf answers the ids at the pointer: texts, or integers that are the same number to every parser. A body that another parser
// could read differently is refused, for the upstream may be that parser.
func idsOf(data []byte, pointer string, most int) ([]string, error) {
	if err := onejson.Check(data); err != nil {
		return nil, errBodyForm.Because(err)
	}
	tokens, err := authzen.ParsePointer(pointer)
	if err != nil {
		return nil, errBodyForm.Because(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	var whole any
	if err := dec.Decode(&whole); err != nil {
		return nil, errBodyForm
	}
	g := gathering{most: most}
	if err := g.at(whole, tokens); err != nil {
		return nil, err
	}
	return g.ids, nil
}

// gathering collects ids.
type gathering struct {
	ids  []string
	most int
}

func (g *gathering) at(v any, tokens []string) error {
	if len(tokens) == 0 {
		if list, ok := v.([]any); ok {
			return g.every(list, nil)
		}
		return g.id(v)
	}
	switch in := v.(type) {
	case map[string]any:
		next, ok := in[tokens[0]]
		if !ok {
			return errIDsMissing
		}
		return g.at(next, tokens[1:])
	case []any:
		if tokens[0] == "*" {
			return g.every(in, tokens[1:])
		}
		i, err := strconv.Atoi(tokens[0])
		if err != nil || strconv.Itoa(i) != tokens[0] || i < 0 || i >= len(in) {
			return errIDsMissing
		}
		return g.at(in[i], tokens[1:])
	}
	return errIDsMissing
}

// every gathers from each element. Without tokens the elements are the ids.
func (g *gathering) every(list []any, tokens []string) error {
	for _, v := range list {
		var err error
		if len(tokens) == 0 {
			err = g.id(v)
		} else {
			err = g.at(v, tokens)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) id(v any) error {
	if len(g.ids) == g.most {
		return errIDsMany
	}
	switch v := v.(type) {
	case string:
		g.ids = append(g.ids, v)
		return nil
	case json.Number:
		n, err := strconv.ParseInt(string(v), 10, 64) // 1.0 and 1e3 are not integers to all
		if err != nil || n >= maxExact || n <= -maxExact || strconv.FormatInt(n, 10) != string(v) {
			return errIDsForm
		}
		g.ids = append(g.ids, string(v))
		return nil
	}
	return errIDsForm.Because(fmt.Errorf("an id is neither text nor number: %T", v))
}
