package guard

import (
	"net/netip"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Failures remembers whose requests were refused lately.
type Failures interface {
	Add(a netip.Addr)
	Count(a netip.Addr) int
}

// Risk says how risky a request is: the sum of its signals, at most 100.
type Risk struct {
	Threshold int // 1 to 100, from which on a challenge is asked for
	MaxNumber int64
	Failures  int            // as many refusals of the client's network within ten minutes count in full
	Logins    int            // as many failed log-ins of the client's network within ten minutes count in full
	Networks  []netip.Prefix // of bad repute
	Browser   bool           // the route is for browsers, which say what they accept and in which language
	Weights   Weights
}

// Weights is what each signal adds to the risk in full, 0 to 100.
type Weights struct {
	Failures int // refused lately, by any guarded route: bad tokens, bad solutions, spent limits
	Logins   int // failed lately, at any route and edge that tells of them; 0: nobody asks Redis
	Rate     int // how far the request's fullest limit is used, from its half on
	Network  int // of bad repute
	Client   int // for each of the headers that real clients send and this one does not, or sends oddly
}

const fullRisk = 100

func (r Risk) validate(wrong reject, limits bool) {
	if r.Threshold < 1 || r.Threshold > fullRisk {
		wrong("challenge.risk.threshold", "expected 1 to 100")
	}
	if r.Failures < 1 && r.Weights.Failures > 0 {
		wrong("challenge.risk.failures", "expected a number above zero")
	}
	if r.Logins < 1 && r.Weights.Logins > 0 {
		wrong("challenge.risk.logins", "expected a number above zero")
	}
	w := r.Weights
	for _, weight := range []struct {
		name  string
		value int
	}{{"failures", w.Failures}, {"logins", w.Logins}, {"rate", w.Rate}, {"network", w.Network}, {"client", w.Client}} {
		if weight.value < 0 || weight.value > fullRisk {
			wrong("challenge.risk.weights."+weight.name, "expected 0 to 100")
		}
	}
	most := w.Failures + w.Logins + clientSigns*w.Client
	if limits {
		most += w.Rate
	}
	if len(r.Networks) > 0 {
		most += w.Network
	}
	if most < r.Threshold {
		wrong("challenge.risk.threshold", "no request could reach it: all signals together weigh %d", most)
	}
}

// riskOf adds up the request's signals.
func (g *Guard) riskOf(s *state) int {
	r := &g.cfg.Challenge.Risk
	sum := 0
	if r.Failures > 0 && g.Failures != nil {
		sum += r.Weights.Failures * min(g.Failures.Count(s.Addr), r.Failures) / r.Failures
	}
	if r.Logins > 0 {
		sum += r.Weights.Logins * min(s.failedLogins, r.Logins) / r.Logins
	}
	sum += r.Weights.Rate * usedBeyondHalf(s) / 100
	if networks(r.Networks).contain(s.Addr) {
		sum += r.Weights.Network
	}
	sum += r.Weights.Client * oddSigns(s, r.Browser)
	return min(sum, fullRisk)
}

// countsLogins reports whether failed log-ins matter to a request, so that they have to be asked for.
func (c Challenge) countsLogins() bool { return c.When == Risky && c.Risk.Weights.Logins > 0 }

// usedBeyondHalf is how far the fullest limit is used: 0 up to its half, 100 when it is spent.
func usedBeyondHalf(s *state) int {
	most := int64(0)
	for _, l := range s.limits {
		if l.Rate.Limit > 0 {
			used := (l.Rate.Limit - max(l.Remaining, 0)) * 200 / l.Rate.Limit
			most = max(most, used-100)
		}
	}
	return int(min(most, 100))
}

// clientSigns is the most that oddSigns answers.
const clientSigns = 3

// oddSigns counts what is odd about the client: no user agent or one that no browser and no careful program would send, no
// Accept, and on a route for browsers no Accept-Language.
func oddSigns(s *state, browser bool) int {
	odd := 0
	agent := strings.Join(s.Header["user-agent"], " ")
	if len(strings.TrimSpace(agent)) < 3 || (browser && !strings.Contains(agent, "/")) {
		odd++
	}
	if _, ok := s.header("accept"); !ok {
		odd++
	}
	if _, ok := s.header("accept-language"); browser && !ok {
		odd++
	}
	return odd
}

// remember counts what the request failed at against its client, so that the next challenge comes sooner. What happens to
// honest clients every day (no token, one that has expired, a challenge to solve) does not count.
func (g *Guard) remember(s *state) {
	if g.Failures == nil {
		return
	}
	for _, f := range s.failed {
		if reason := faultOf(f.err).Reason; reason == "token_invalid" || reason == "challenge_invalid" || fault.CodeOf(f.err) == fault.Limited {
			g.Failures.Add(s.Addr)
			return
		}
	}
}
