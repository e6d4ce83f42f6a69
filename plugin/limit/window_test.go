package limit

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	redisstore "github.com/ulule/limiter/v3/drivers/store/redis"
	"pgregory.net/rapid"
)

// clocked are both ways to count, over clocks that the test moves.
type clocked struct {
	redis  *miniredis.Miniredis
	now    time.Time
	shared *shared
	local  *local
}

func newClocked(t *testing.T) *clocked {
	t.Helper()
	c := &clocked{redis: miniredis.RunT(t), now: time.UnixMilli(1_772_000_000_000)}
	client := redis.NewClient(&redis.Options{Addr: c.redis.Addr()})
	t.Cleanup(func() { client.Close() })
	c.shared, c.local = newShared(client), newLocal(func() time.Time { return c.now }, 1<<20)
	return c
}

func (c *clocked) pass(d time.Duration) {
	c.redis.FastForward(d)
	c.now = c.now.Add(d)
}

func (c *clocked) reset() { c.redis.FlushAll(); c.local.slots = nil }

// Both ways to count must agree on every request, whatever came before.
func TestRedisAndThisProcessCountByTheSameRules(t *testing.T) {
	t.Parallel()
	c := newClocked(t)
	rapid.Check(t, func(rt *rapid.T) {
		c.reset()
		keys := []Key{
			{Value: "a", Rate: Rate{Limit: 10, Period: time.Minute}},
			{Value: "b", Rate: Rate{Limit: 7, Period: 10 * time.Second}, Fixed: true},
			{Value: "c", Rate: Rate{Limit: 3, Period: time.Second}},
		}
		for range rapid.IntRange(1, 40).Draw(rt, "requests") {
			c.pass(time.Duration(rapid.IntRange(0, 20_000).Draw(rt, "pause")/rapid.SampledFrom([]int{1, 20, 400}).Draw(rt, "pace")) * time.Millisecond)
			first := rapid.IntRange(0, 2).Draw(rt, "first")
			asked := append([]Key(nil), keys[first:rapid.IntRange(first+1, 3).Draw(rt, "last")]...)
			for i := range asked {
				asked[i].Cost = int64(rapid.IntRange(1, 4).Draw(rt, "cost"))
			}
			want, err := c.shared.take(context.Background(), "", asked)
			if err != nil {
				rt.Fatal(err)
			}
			got := c.local.take(context.Background(), asked)
			if got.allowed != want.allowed {
				rt.Fatalf("here %+v, in Redis %+v", got, want)
			}
			for i := range asked {
				h, r := got.usages[i], want.usages[i]
				// A window without a count may end at another time: it has not begun.
				if h.fits != r.fits || h.count != r.count || h.before != r.before || (h.before > 0 && h.left != r.left) || (h.count > 0 && h.ttl != r.ttl) {
					rt.Fatalf("key %s: here %+v, in Redis %+v", asked[i].Value, h, r)
				}
			}
		}
	})
}

// What a refused request is told to wait is exactly what it has to wait.
func TestThereIsRoomWhenTheResetIsOverAndNotBefore(t *testing.T) {
	t.Parallel()
	c := newClocked(t)
	rapid.Check(t, func(rt *rapid.T) {
		c.reset()
		k := Key{Value: "a", Rate: Rate{Limit: int64(rapid.IntRange(1, 30).Draw(rt, "limit")), Period: 10 * time.Second}, Fixed: rapid.Bool().Draw(rt, "fixed")}
		k.Cost = int64(rapid.IntRange(1, int(k.Rate.Limit)).Draw(rt, "cost"))
		var u usage
		for u.fits = true; u.fits; u = c.local.take(context.Background(), []Key{k}).usages[0] {
			c.pass(time.Duration(rapid.IntRange(0, 2_000).Draw(rt, "pause")) * time.Millisecond)
		}
		s := u.state(k)
		look := k
		ahead := func(d time.Duration) bool {
			held := append([]window(nil), c.local.slots...)
			now := c.now
			c.now = c.now.Add(d)
			fits := c.local.take(context.Background(), []Key{look}).usages[0].fits
			c.now, c.local.slots = now, held
			return fits
		}
		if !ahead(s.Reset) {
			rt.Fatalf("no room after %v: %+v", s.Reset, u)
		}
		if s.Reset > 2*time.Millisecond && ahead(s.Reset-2*time.Millisecond) {
			rt.Fatalf("room before %v: %+v", s.Reset, u)
		}
	})
}

// The reason for two weighted windows: how many requests pass within a tenth of a period around the edge of a window.
func TestAFixedWindowLetsTwiceTheLimitPassAtItsEdge(t *testing.T) {
	t.Parallel()
	const limit = 100
	burst := func(t *testing.T, fixed bool, take func([]Key) bool, pass func(time.Duration)) (n int) {
		t.Helper()
		k := []Key{{Value: "edge", Rate: Rate{Limit: limit, Period: 10 * time.Second}, Fixed: fixed}}
		take(k) // opens the window
		pass(9500 * time.Millisecond)
		for range 20 {
			for range 2 * limit {
				if take(k) {
					n++
				}
			}
			pass(50 * time.Millisecond)
		}
		return n
	}
	for name, c := range map[string]*clocked{"in Redis": newClocked(t), "here": newClocked(t)} {
		take := func(keys []Key) bool { return c.local.take(context.Background(), keys).allowed }
		if name == "in Redis" {
			take = func(keys []Key) bool {
				out, err := c.shared.take(context.Background(), "", keys)
				if err != nil {
					t.Fatal(err)
				}
				return out.allowed
			}
		}
		fixed := burst(t, true, take, c.pass)
		c.reset()
		smooth := burst(t, false, take, c.pass)
		t.Logf("%s: of a limit of %d, %d pass around the edge of fixed windows, %d of weighted ones", name, limit, fixed, smooth)
		if fixed < 2*limit-1 || smooth > limit+limit/10 {
			t.Errorf("%s: fixed %d, smooth %d", name, fixed, smooth)
		}
	}
}

// ulule's own stores are the reference: as long as nothing is refused all say the same of one key, and those over one Redis
// count together.
func TestTheStoresKeepUlulesContract(t *testing.T) {
	t.Parallel()
	c := newClocked(t)
	reference, err := redisstore.NewStoreWithOptions(c.shared.client, limiter.StoreOptions{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	c.now = time.Now() // ulule's memory store has a clock of its own
	rate := limiter.Rate{Limit: 5, Period: time.Hour}
	for name, s := range map[string]limiter.Store{
		"ulule's memory": memory.NewStore(), "ulule's Redis": reference, "shared": c.shared, "local": c.local,
	} {
		key := name
		if name == "ulule's Redis" {
			key = "{" + name + "}"
		}
		expect := func(what string, got limiter.Context, err error, remaining int64, reached bool) {
			t.Helper()
			if reset := time.Until(time.Unix(got.Reset, 0)); err != nil || got.Limit != 5 || got.Remaining != remaining || got.Reached != reached || reset < 59*time.Minute || reset > time.Hour+time.Second {
				t.Errorf("%s: %s: %+v, error %v; want %d remaining", name, what, got, err, remaining)
			}
		}
		got, err := s.Peek(t.Context(), key, rate)
		expect("peek at nothing", got, err, 5, false)
		got, err = s.Get(t.Context(), key, rate)
		expect("get", got, err, 4, false)
		got, err = s.Increment(t.Context(), key, 3, rate)
		expect("increment", got, err, 1, false)
		got, err = s.Peek(t.Context(), key, rate)
		expect("peek", got, err, 1, false)
		got, err = s.Get(t.Context(), key, rate)
		expect("the last", got, err, 0, false)
		got, err = s.Get(t.Context(), key, rate)
		expect("one too many", got, err, 0, true)
		got, err = s.Reset(t.Context(), key, rate)
		expect("reset", got, err, 5, false)
		got, err = s.Get(t.Context(), key, rate)
		expect("get after a reset", got, err, 4, false)
	}
	// Both over one key.
	for range 2 {
		if _, err := c.shared.Get(t.Context(), "both", rate); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := reference.Get(t.Context(), "{both}", rate); err != nil || got.Remaining != 2 {
		t.Errorf("ulule's store: %+v, error %v", got, err)
	}
	if got, err := c.shared.Peek(t.Context(), "both", rate); err != nil || got.Remaining != 2 {
		t.Errorf("shared: %+v, error %v", got, err)
	}
}

// A key whose end somebody took away must not lock anybody out for ever.
func TestAWindowWithoutAnEndGetsOne(t *testing.T) {
	t.Parallel()
	c := newClocked(t)
	for _, fixed := range []bool{true, false} {
		c.reset()
		k := []Key{{Value: "a", Rate: Rate{Limit: 5, Period: time.Minute}, Fixed: fixed}}
		if err := c.redis.Set(redisKey(k[0]), "9"); err != nil {
			t.Fatal(err)
		}
		if out, err := c.shared.take(t.Context(), "", k); err != nil || out.allowed {
			t.Errorf("fixed %v: %+v, error %v", fixed, out, err)
		}
		c.pass(time.Minute)
		if out, err := c.shared.take(t.Context(), "", k); err != nil || !out.allowed {
			t.Errorf("fixed %v, a window later: %+v, error %v", fixed, out, err)
		}
	}
}

// What lies at a key and is no count is an error, not a pass.
func TestWhatIsNoCountIsAnError(t *testing.T) {
	t.Parallel()
	c := newClocked(t)
	k := []Key{{Value: "a", Rate: Rate{Limit: 5, Period: time.Minute}, Fixed: true}}
	for name, put := range map[string]func() error{
		"words": func() error { return c.redis.Set(redisKey(k[0]), "many") },
		"hash":  func() error { c.redis.HSet(redisKey(k[0]), "a", "1"); return nil },
		"below": func() error { return c.redis.Set(redisKey(k[0]), "-7") },
	} {
		c.reset()
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if name != "hash" {
			c.redis.SetTTL(redisKey(k[0]), time.Minute)
		}
		if out, err := c.shared.take(t.Context(), "", k); err == nil && (name != "below" || out.allowed) {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(int64(1), int64(1), int64(3), int64(60000), int64(0), int64(0), uint8(6), false)
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g int64, n uint8, text bool) {
		answer := []any{a, b, c, d, e, g}
		for len(answer) < int(n) {
			answer = append(answer, a)
		}
		if answer = answer[:min(int(n), len(answer))]; text && len(answer) > 0 {
			answer[len(answer)-1] = "x"
		}
		out, err := parse(answer, 1)
		if err == nil && (len(answer) != 6 || text || len(out.usages) != 1 || out.usages[0].count < 0) {
			t.Errorf("%v is taken as %+v", answer, out)
		}
		if err == nil {
			k := Key{Rate: Rate{Limit: 5, Period: time.Minute}}
			if s := out.usages[0].state(k); s.Reset <= 0 || s.Reset > 2*time.Minute || s.Remaining < 0 || s.Remaining > 5 {
				t.Errorf("%v: state %+v", answer, s)
			}
		}
	})
}
