// Package outage_test takes away, slows down and poisons what the edge leans on, one part at a time, while a steady load of good
// and bad requests goes on, and counts: no request that must not be allowed is, whatever is away; every request is answered, with
// a code that docs/operations.md names; and none that is good is lost outside the outage, whose end is felt within the time that
// is stated there. The edge is the built plugin as a child of the gateway, over real sockets; Redis is a real one, the decision
// point decides by policies/. The network between is toxiproxy's.
package outage_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// outage is one row: how it is brought about, and what is stated of it.
type outage struct {
	name string
	// open runs an edge, and answers how the outage begins and ends.
	open func(t *testing.T) (s *site, begin, end func())
	// may is what requests may be answered while it lasts, by path; of the path "" for those that are not named.
	may map[string][]string
	// bad is what requests with bad tokens may be answered; nil for nothing but what they always are.
	bad []string
	// most is how long after its begin a path may still allow anything.
	most map[string]time.Duration
	// long is how long it lasts at least.
	long time.Duration
	// forgets: what was used before may be used once more afterwards.
	forgets bool
	// shows is what must be seen while it lasts, by path.
	shows map[string]string
	// metric of the plugin is 0 while it lasts, and 1 before and after; health is what /readyz says instead of ok.
	metric, health string
	// says is what the plugin's log tells, in the end.
	says []string
	// back is within which time everything is as before. A machine that runs all tests at once gets five times as much.
	back time.Duration
}

// play plays a row.
func (o outage) play(t *testing.T) {
	s, begin, end := o.open(t)
	once, spend := s.once(t)
	s.kinds, s.may, s.most = append(s.usual(t), once...), o.may, o.most
	if o.forgets {
		s.kinds = slices.DeleteFunc(s.kinds, func(k kind) bool { return k.name == "replayed proof" || k.name == "spent solution" })
	}
	for i, k := range s.kinds {
		if strings.HasPrefix(k.want, "token_") || k.want == "bad_path" {
			s.kinds[i].may = append([]string{}, o.bad...)
		}
	}
	s.revoke(t, "ended")
	s.start()
	s.wait("the edge serves", s.settled(starting))
	spend()
	s.enter(well)
	s.wait("all is well", s.settled(well))
	s.wait("the plugin says so", s.says(o.metric, "1", "ok"))

	s.enter(away)
	begin()
	s.ending.Store(true)
	var published sync.WaitGroup
	published.Go(func() {
		s.revoke(t, "ending")
		s.closed.Store(time.Now().UnixNano())
	})
	for path, got := range o.shows {
		s.wait("while it is away: "+path+": "+got, func() bool { return s.shown(path, got) })
	}
	if o.metric != "" {
		s.wait("the plugin says so", s.says(o.metric, "0", o.health))
	}
	s.lasts(o.long)

	s.enter(returning)
	begun := time.Now()
	end()
	published.Wait()
	s.wait("everything is as before", s.settled(returning))
	took := time.Since(begun)
	if took > 5*o.back {
		t.Errorf("back after %v; %v are stated", took, o.back)
	}
	s.enter(again)
	s.wait("all is well again", s.settled(again))
	s.wait("the plugin says so", s.says(o.metric, "1", "ok"))
	s.finish()
	for _, line := range o.says {
		if !strings.Contains(s.said.String(), line) {
			t.Errorf("the log does not say %q", line)
		}
	}
	t.Logf("back after %v", took.Round(time.Millisecond))
}

// S56, S57, S25, S30: no part that is away, slow or mad lets anything pass, and none leaves a mark.
func TestNothingPassesWhilePartsAreAway(t *testing.T) {
	t.Parallel()
	var rows sync.WaitGroup
	for _, o := range concat(redisOutages(), pdpOutages(), pluginOutages()) {
		// They wait more than they work, so there is no need for a processor for each; go test -parallel would have one.
		rows.Go(func() { t.Run(o.name, o.play) })
	}
	rows.Wait()
}

func concat(of ...[]outage) (all []outage) {
	for _, some := range of {
		all = append(all, some...)
	}
	return all
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

var (
	folder string // for what all tests share; TestMain makes and removes it
	point  shared
)

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-outage-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	folder = dir
	defer point.close()
	return m.Run()
}

// build makes the plugin once for all rows, as it is shipped.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(folder, "gatehouse-plugin")
	out, err := exec.Command("go", "build", "-o", path, "../../plugin").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the plugin: %w: %s", err, out)
	}
	return path, err
})

func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var generate = sync.OnceValues(func() (keys [3]jose.SigningKey, err error) {
	for i := range keys {
		if keys[i], err = jose.GenerateRSA(2048); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

// key is the issuer's.
func key(t *testing.T) jose.SigningKey { return generated(t)[0] }

// stranger is a key that the issuer does not publish.
func stranger(t *testing.T) jose.SigningKey { return generated(t)[1] }

func generated(t *testing.T) [3]jose.SigningKey {
	t.Helper()
	keys, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// me is who the load's tokens are of.
const me = "me"

// mine and theirs are orders of the sample API, which come by their numbers.
const mine, theirs = "4", "1"
