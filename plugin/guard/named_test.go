package guard_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// body is one that a gateway shows.
type body struct {
	text  string
	err   error
	reads int
}

func (b *body) Body(context.Context) ([]byte, error) {
	b.reads++
	return []byte(b.text), b.err
}

// naming is a configuration whose routes name objects elsewhere than in the path.
func naming(c *guard.Config) {
	c.Resources = []guard.Resource{
		{Pattern: "/orders", Type: "order", IDs: guard.IDs{In: guard.InQuery, Parameter: "ids", Optional: true, Most: 4}},
		{Pattern: "/orders/batch", Type: "order", IDs: guard.IDs{In: guard.InQuery, Parameter: "ids", Most: 4}},
		{Pattern: "/orders/delete", Type: "order", Action: "DELETE", IDs: guard.IDs{In: guard.InBody, Pointer: "/ids", Most: 4, MaxBytes: 200}},
		{Pattern: "/orders/items", Type: "order", IDs: guard.IDs{In: guard.InBody, Pointer: "/items/*/order~1id", Most: 4, MaxBytes: 200}},
		{Pattern: "/orders/first", Type: "order", IDs: guard.IDs{In: guard.InBody, Pointer: "/0/id", Most: 4, MaxBytes: 200}},
		{Pattern: "/orders/all", Type: "order", IDs: guard.IDs{In: guard.InBody, Pointer: "", Most: 4, MaxBytes: 200}},
	}
}

// posted is a request with a JSON body.
func posted(path string, b *body) guard.Request {
	return request(func(r *guard.Request) {
		r.Method, r.Path, r.Body = "POST", path, b
		r.Header["content-type"] = []string{"application/json; charset=UTF-8"}
	})
}

// full is a limiter whose limits are all reached.
func full(keys []limit.Key) (limit.Result, error) {
	return limit.Result{States: []limit.State{{Name: keys[0].Name, Rate: keys[0].Rate, Exceeded: true, Reset: time.Second}}}, nil
}

// objects lists the ids that the decision point was asked about.
func objects(w *world) (ids []string) {
	for _, r := range w.asked {
		ids = append(ids, r.Resource.ID)
	}
	return ids
}

func TestThePolicyIsAskedAboutEachObjectThatARequestNames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path, query, body string
		want              []string
	}{
		"a list":                   {"/orders/batch", "ids=1,2,3", "", []string{"1", "2", "3"}},
		"repeated":                 {"/orders/batch", "ids=1&x=%zz&ids=2,3", "", []string{"1", "2", "3"}},
		"the same twice":           {"/orders/batch", "ids=1,2,1", "", []string{"1", "2"}},
		"escaped":                  {"/orders/batch", "%69ds=a%20b%2C2", "", []string{"a b", "2"}},
		"none, for the collection": {"/orders", "page=3", "", []string{"/orders"}},
		"one, optional":            {"/orders", "ids=7", "", []string{"7"}},
		"a list in the body":       {"/orders/delete", "", `{"note":null,"ids":["a", 7, "b"]}`, []string{"a", "7", "b"}},
		"one in the body":          {"/orders/delete", "", `{"ids":-7}`, []string{"-7"}},
		"the same in two types":    {"/orders/delete", "", `{"ids":["7", 7]}`, []string{"7"}},
		"in objects":               {"/orders/items", "", `{"items":[{"order/id":"a"},{"order/id":["b","c"]}]}`, []string{"a", "b", "c"}},
		"at an index":              {"/orders/first", "", `[{"id":"a"},{"id":"b"}]`, []string{"a"}},
		"the whole body":           {"/orders/all", "", `["a","\u0062"]`, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b := calm(), &body{text: c.body}
			r := posted(c.path, b)
			r.Query = c.query
			if v := build(t, w, naming).Check(t.Context(), r); !v.Forward {
				t.Fatalf("denied: %s", v.Body)
			}
			if got := objects(w); !slices.Equal(got, c.want) {
				t.Errorf("asked about %q, want %q", got, c.want)
			}
			if want := min(1, len(c.body)); b.reads != want {
				t.Errorf("the body was read %d times, want %d", b.reads, want)
			}
		})
	}
}

// S55, S56: what another parser could read differently, and what names nothing, is refused before anybody is asked.
func TestABodyThatDoesNotSayWhichObjectsItIsForIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body, code string
		status     int
	}{
		"empty":                          {``, "body_malformed", 400},
		"not JSON":                       {`ids=1`, "body_malformed", 400},
		"cut off":                        {`{"ids":["1"`, "body_malformed", 400},
		"two values":                     {`{"ids":["1"]} {"ids":["2"]}`, "body_malformed", 400},
		"not UTF-8":                      {"{\"ids\":[\"\xff\"]}", "body_malformed", 400},
		"a byte order mark":              {"\ufeff" + `{"ids":["1"]}`, "body_malformed", 400},
		"a name twice":                   {`{"ids":["1"],"ids":["2"]}`, "body_malformed", 400},
		"a name in another case besides": {`{"ids":["1"],"IDS":["2"]}`, "body_malformed", 400},
		"a name twice, escaped":          {`{"ids":["1"],"\u0069ds":["2"]}`, "body_malformed", 400},
		"deep":                           {`{"ids":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, "body_malformed", 400},
		"another name":                   {`{"IDs":["1"]}`, "ids_missing", 400},
		"a text":                         {`"ids"`, "ids_missing", 400},
		"null":                           {`null`, "ids_missing", 400},
		"a list":                         {`[{"ids":["1"]}]`, "ids_missing", 400},
		"no ids":                         {`{"ids":[]}`, "ids_missing", 400},
		"ids of null":                    {`{"ids":null}`, "id_malformed", 400},
		"an id of null":                  {`{"ids":["1",null]}`, "id_malformed", 400},
		"an object":                      {`{"ids":[{"id":"1"}]}`, "id_malformed", 400},
		"a list in the list":             {`{"ids":[["1"]]}`, "id_malformed", 400},
		"true":                           {`{"ids":true}`, "id_malformed", 400},
		"a fraction":                     {`{"ids":1.0}`, "id_malformed", 400},
		"an exponent":                    {`{"ids":1e3}`, "id_malformed", 400},
		"minus zero":                     {`{"ids":-0}`, "id_malformed", 400},
		"a number that others round":     {`{"ids":9007199254740993}`, "id_malformed", 400},
		"a larger one":                   {`{"ids":99999999999999999999}`, "id_malformed", 400},
		"an empty id":                    {`{"ids":[""]}`, "id_malformed", 400},
		"a collection":                   {`{"ids":["/orders"]}`, "id_malformed", 400},
		"a path":                         {`{"ids":["../1"]}`, "id_malformed", 400},
		"an escape":                      {`{"ids":["1%2f2"]}`, "id_malformed", 400},
		"a space":                        {`{"ids":["1 "]}`, "id_malformed", 400},
		"a line feed":                    {`{"ids":["1\n2"]}`, "id_malformed", 400},
		"half of a pair":                 {`{"ids":["\ud800"]}`, "body_malformed", 400},
		"a sign for what is no text":     {`{"ids":["\ufffd"]}`, "id_malformed", 400},
		"too many":                       {`{"ids":[1,2,3,4,5]}`, "ids_too_many", 400},
		"too large":                      {`{"ids":["` + strings.Repeat("1", 200) + `"]}`, "body_too_large", 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := calm()
			v := build(t, w, naming).Check(t.Context(), posted("/orders/delete", &body{text: c.body}))
			if v.Forward || v.Status != c.status || problem(t, v).Code != c.code || len(w.asked) != 0 {
				t.Errorf("forward %v, %d %s, asked %d times", v.Forward, v.Status, v.Body, len(w.asked))
			}
		})
	}
}

// S55, S56: so is a query.
func TestAQueryThatTwoServersReadDifferentlyIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ query, code string }{
		"none":                    {"", "ids_missing"},
		"another parameter":       {"id=1", "ids_missing"},
		"an empty one":            {"ids=", "id_malformed"},
		"no value":                {"ids", "id_malformed"},
		"an empty id":             {"ids=1,,2", "id_malformed"},
		"a semicolon":             {"ids=1;ids=2", "id_malformed"},
		"another case":            {"ids=1&IDS=2", "id_malformed"},
		"an array":                {"ids=1&ids[]=2", "id_malformed"},
		"an escaped array":        {"ids=1&ids%5B0%5D=2", "id_malformed"},
		"a space before the name": {"ids=1&%20ids=2", "id_malformed"},
		"a NUL behind the name":   {"ids=1&ids%00x=2", "id_malformed"},
		"a bad escape":            {"ids=%zz", "id_malformed"},
		"a bad escape in a name":  {"ids=1&%zz=2", "id_malformed"},
		"escaped twice":           {"ids=%2531", "id_malformed"},
		"a collection":            {"ids=/orders", "id_malformed"},
		"a plus":                  {"ids=1,+2", "id_malformed"},
		"too many":                {"ids=1,2&ids=3,4,5", "ids_too_many"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := calm()
			v := build(t, w, naming).Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders/batch", c.query }))
			if v.Forward || v.Status != 400 || problem(t, v).Code != c.code || len(w.asked) != 0 {
				t.Errorf("forward %v, %d %s, asked %d times", v.Forward, v.Status, v.Body, len(w.asked))
			}
		})
	}
}

// S55: PHP takes each of these for order_id, and the last of them for the only one.
func TestAQueryIsRefusedThatPHPReadsDifferently(t *testing.T) {
	t.Parallel()
	scored := func(c *guard.Config) {
		c.Resources = []guard.Resource{{Pattern: "/orders/batch", Type: "order", IDs: guard.IDs{In: guard.InQuery, Parameter: "order_id", Most: 4}}}
	}
	for _, other := range []string{"order.id", "order%20id", "order+id", "order[id", "Order.ID", "order.id[]", "+order.id", "order.id%00x"} {
		w := calm()
		v := build(t, w, scored).Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders/batch", "order_id=1&"+other+"=2" }))
		if v.Forward || v.Status != 400 || problem(t, v).Code != "id_malformed" || len(w.asked) != 0 {
			t.Errorf("%s: forward %v, %d %s, asked %d times", other, v.Forward, v.Status, v.Body, len(w.asked))
		}
	}
	w := calm()
	v := build(t, w, scored).Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders/batch", "order_id=1&order=2&id=3&order-id=4" }))
	if !v.Forward || len(w.asked) != 1 {
		t.Errorf("other parameters: %d %s, asked %d times", v.Status, v.Body, len(w.asked))
	}
}

// S55: some servers look for what a body has to say in the query as well, and the other way round.
func TestObjectsAreNamedInOnePlace(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"ids=2", "ids[]=2", "page=1&IDS=2", "ids", "x;ids=2", "%69ds=2", "%zz"} {
		w := calm()
		r := posted("/orders/delete", &body{text: `{"ids":["1"]}`})
		r.Query = query
		if v := build(t, w, naming).Check(t.Context(), r); v.Forward || problem(t, v).Code != "id_malformed" || len(w.asked) != 0 {
			t.Errorf("beside a body, ?%s: forward %v, %d %s", query, v.Forward, v.Status, v.Body)
		}
	}
	for _, form := range []string{"application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Application/X-WWW-Form-Urlencoded"} {
		w := calm()
		v := build(t, w, naming).Check(t.Context(), request(func(r *guard.Request) {
			r.Method, r.Path, r.Query, r.Header["content-type"] = "POST", "/orders", "ids=1", []string{form}
		}))
		if v.Forward || problem(t, v).Code != "id_malformed" || len(w.asked) != 0 {
			t.Errorf("beside a query, %s: forward %v, %d %s", form, v.Forward, v.Status, v.Body)
		}
	}
	w := calm()
	r := posted("/orders/delete", &body{text: `{"ids":["1"]}`})
	r.Query = "page=2&id=3"
	if v := build(t, w, naming).Check(t.Context(), r); !v.Forward {
		t.Errorf("other parameters beside a body: %d %s", v.Status, v.Body)
	}
	w = calm()
	if v := build(t, w, naming).Check(t.Context(), request(func(r *guard.Request) {
		r.Method, r.Path, r.Header["content-type"] = "POST", "/orders", []string{"application/x-www-form-urlencoded"}
	})); !v.Forward {
		t.Errorf("a form for the collection: %d %s", v.Status, v.Body)
	}
}

// S56: nor does a body pass whose headers say that it cannot be read, or that the gateway does not show.
func TestABodyThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*guard.Request)
		code   string
		status int
		reads  int
	}{
		"no media type":       {func(r *guard.Request) { delete(r.Header, "content-type") }, "unsupported_media_type", 415, 0},
		"two media types":     {func(r *guard.Request) { r.Header["content-type"] = []string{"application/json", "text/plain"} }, "unsupported_media_type", 415, 0},
		"a form":              {func(r *guard.Request) { r.Header["content-type"] = []string{"application/x-www-form-urlencoded"} }, "unsupported_media_type", 415, 0},
		"another charset":     {func(r *guard.Request) { r.Header["content-type"] = []string{"application/json; charset=utf-16"} }, "unsupported_media_type", 415, 0},
		"compressed":          {func(r *guard.Request) { r.Header["content-encoding"] = []string{"gzip"} }, "unsupported_media_type", 415, 0},
		"announced as large":  {func(r *guard.Request) { r.Header["content-length"] = []string{"201"} }, "body_too_large", 413, 0},
		"announced as longer": {func(r *guard.Request) { r.Header["content-length"] = []string{"14"} }, "body_unreadable", 400, 1},
		"a length of no kind": {func(r *guard.Request) { r.Header["content-length"] = []string{"-1"} }, "body_unreadable", 400, 0},
		"not shown":           {func(r *guard.Request) { r.Body = nil }, "body_unavailable", 503, 0},
		"in a file":           {func(r *guard.Request) { r.Body.(*body).err = guard.ErrBodyBuffered }, "body_buffered", 413, 1},
		"late":                {func(r *guard.Request) { r.Body.(*body).err = guard.ErrBodyLate }, "body_late", 408, 1},
		"lost":                {func(r *guard.Request) { r.Body.(*body).err = fmt.Errorf("x") }, "guard_failed", 500, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b := calm(), &body{text: `{"ids":["1"]}`}
			r := posted("/orders/delete", b)
			c.change(&r)
			v := build(t, w, naming).Check(t.Context(), r)
			if v.Forward || v.Status != c.status || problem(t, v).Code != c.code || len(w.asked) != 0 || b.reads != c.reads {
				t.Errorf("forward %v, %d %s, asked %d times, read %d times", v.Forward, v.Status, v.Body, len(w.asked), b.reads)
			}
		})
	}
}

// A body is read for nobody who would not get so far, and on no other route.
func TestABodyIsReadLast(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world, *guard.Request, *guard.Config){
		"without a token":  func(_ *world, r *guard.Request, _ *guard.Config) { delete(r.Header, "authorization") },
		"ended":            func(w *world, _ *guard.Request, _ *guard.Config) { w.revoked = true },
		"limited":          func(w *world, _ *guard.Request, _ *guard.Config) { w.take = full },
		"in observe mode":  func(w *world, _ *guard.Request, c *guard.Config) { w.revoked, c.Mode = true, guard.Observe },
		"on another route": func(_ *world, r *guard.Request, _ *guard.Config) { r.Path = "/orders" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b := calm(), &body{text: `{"ids":["1"]}`}
			r, cfg := posted("/orders/delete", b), config()
			naming(&cfg)
			change(w, &r, &cfg)
			build(t, w, func(c *guard.Config) { *c = cfg }).Check(t.Context(), r)
			if b.reads != 0 {
				t.Errorf("read %d times", b.reads)
			}
		})
	}
}

func TestTheFirstDenialIsTheAnswer(t *testing.T) {
	t.Parallel()
	w := calm()
	w.decide = func(r authzen.Request) (authzen.Response, error) {
		about := &authzen.ResponseContext{DecisionID: "d-" + r.Resource.ID, Reasons: []string{"why_" + r.Resource.ID}}
		if r.Resource.ID == "3" {
			about.Need = &authzen.Need{ACR: "aal2"}
		}
		return authzen.Response{Decision: r.Resource.ID == "1", Context: about}, nil
	}
	g := build(t, w, naming)
	check := func(query string) guard.Verdict {
		return g.Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders/batch", query }))
	}
	if v := check("ids=1,2,3"); v.Forward || v.Status != 403 || problem(t, v).DecisionID != "d-2" || !slices.Equal(v.Decision.Reasons, []string{"why_2"}) {
		t.Errorf("%d %s, reasons %v", v.Status, v.Body, v.Decision.Reasons)
	}
	if v := check("ids=1,3,2"); v.Status != 401 || problem(t, v).Code != "insufficient_user_authentication" || !strings.Contains(v.Header["WWW-Authenticate"], "aal2") {
		t.Errorf("%d %s %s", v.Status, v.Body, v.Header)
	}
	if w.batches != 2 {
		t.Errorf("asked in %d requests, want one each", w.batches)
	}
}

func TestThePolicySeesTheActionOfTheResource(t *testing.T) {
	t.Parallel()
	w := calm()
	build(t, w, naming).Check(t.Context(), posted("/orders/delete", &body{text: `{"ids":["1"]}`}))
	if len(w.asked) != 1 || w.asked[0].Action.Name != "DELETE" || w.asked[0].Action.Properties["method"] != "POST" || w.asked[0].Resource.Properties["path"] != "/orders/delete" {
		t.Errorf("asked %+v", w.asked)
	}
}

// S56: an answer that does not cover every object is no allowance.
func TestDecisionsThatAreMissingAreNoAllowance(t *testing.T) {
	t.Parallel()
	yes := authzen.Response{Decision: true}
	for name, answers := range map[string][]authzen.Response{"none": nil, "too few": {yes}, "too many": {yes, yes, yes}} {
		w := &fixed{calm(), answers}
		g := build(t, w.world, naming, func(p *guard.Parts) { p.Decider = w })
		v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders/batch", "ids=1,2" }))
		if v.Forward || v.Status != 500 {
			t.Errorf("%s: forward %v, status %d", name, v.Forward, v.Status)
		}
	}
}

// fixed answers any batch so.
type fixed struct {
	*world
	answers []authzen.Response
}

func (f *fixed) DecideAll(context.Context, authzen.Request, []authzen.Resource) ([]authzen.Response, error) {
	return f.answers, nil
}

func TestObligationsOfAllDecisionsAreMet(t *testing.T) {
	t.Parallel()
	w := calm()
	w.decide = func(r authzen.Request) (authzen.Response, error) {
		return authzen.Response{Decision: true, Context: &authzen.ResponseContext{Obligations: map[string]any{
			"upstream_headers": map[string]any{"X-Mask": "m" + r.Resource.ID[:1], "X-Of-" + r.Resource.ID: "1"},
		}}}, nil
	}
	g := build(t, w, func(c *guard.Config) {
		naming(c)
		c.Obligations.UpstreamHeaders = []string{"X-Mask", "X-Of-a1", "X-Of-a2", "X-Of-b1"}
	})
	check := func(query string) guard.Verdict {
		return g.Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders/batch", query }))
	}
	if v := check("ids=a1,a2"); !v.Forward || v.SetHeaders["X-Mask"] != "ma" || v.SetHeaders["X-Of-A1"] != "1" || v.SetHeaders["X-Of-A2"] != "1" {
		t.Errorf("forward %v, set %v", v.Forward, v.SetHeaders)
	}
	if v := check("ids=a1,b1"); v.Forward || problem(t, v).Code != "obligation_unmet" {
		t.Errorf("two values for one header: %d %s", v.Status, v.Body)
	}
}

// S58: what is remembered of one object is not taken for another, nor for the collection, and dies with its revision.
func TestWhatIsRememberedIsOfOneObject(t *testing.T) {
	t.Parallel()
	w, revision, denied := calm(), "p1", ""
	w.decide = func(r authzen.Request) (authzen.Response, error) {
		return authzen.Response{Decision: r.Resource.ID != denied, Context: &authzen.ResponseContext{
			DecisionID: "d-" + r.Resource.ID, Revision: revision, Cache: &authzen.Cache{TTL: 1000, Vary: []string{"/resource/id"}},
		}}, nil
	}
	g := build(t, w, naming, caching)
	check := func(query string, forward bool, decision string, want ...string) {
		t.Helper()
		w.asked = nil
		v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path, r.Query = "/orders", query }))
		if v.Forward != forward || v.Decision.ID != decision || !slices.Equal(objects(w), want) {
			t.Errorf("%s: forward %v, decision %s, asked about %q; want %v, %s, %q", query, v.Forward, v.Decision.ID, objects(w), forward, decision, want)
		}
	}
	check("ids=1,2", true, "d-1", "1", "2")
	check("ids=2,1", true, "d-2")
	check("ids=1,3,2", true, "d-1", "3")
	check("", true, "d-edge", "/orders") // the decision's id is no token
	denied = "4"
	check("ids=1,4,5", false, "d-4", "4")
	check("ids=5,1,4,6", false, "d-4", "5")
	check("ids=4,6", false, "d-4")
	check("ids=6", true, "d-6", "6")
	revision, denied = "p2", "1"
	check("ids=1,7", false, "d-1", "7", "1") // 1 was remembered of p1
	check("ids=2", true, "d-2", "2")
}

func TestAConfigurationOfIDsThatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	query := guard.IDs{In: guard.InQuery, Parameter: "ids", Most: 10}
	in := guard.IDs{In: guard.InBody, Pointer: "/ids", Most: 10, MaxBytes: 10}
	for name, c := range map[string]struct {
		pattern string
		change  func(*guard.IDs)
		from    guard.IDs
	}{
		"{id} besides":     {"/orders/{id}", func(*guard.IDs) {}, query},
		"another place":    {"/orders", func(i *guard.IDs) { i.In = "header" }, query},
		"no parameter":     {"/orders", func(i *guard.IDs) { i.Parameter = "" }, query},
		"a bad parameter":  {"/orders", func(i *guard.IDs) { i.Parameter = "a[]" }, query},
		"none allowed":     {"/orders", func(i *guard.IDs) { i.Most = 0 }, query},
		"no pointer":       {"/orders", func(i *guard.IDs) { i.Pointer = "ids" }, in},
		"no bytes":         {"/orders", func(i *guard.IDs) { i.MaxBytes = 0 }, in},
		"too many bytes":   {"/orders", func(i *guard.IDs) { i.MaxBytes = 1 << 21 }, in},
		"an optional body": {"/orders", func(i *guard.IDs) { i.Optional = true }, in},
	} {
		cfg := config()
		c.change(&c.from)
		cfg.Resources = []guard.Resource{{Pattern: c.pattern, Type: "order", IDs: c.from}}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "resources[1].ids.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
