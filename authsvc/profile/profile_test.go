package profile_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

const user = "018f3c00-0000-7000-8000-000000000001"

func at(seconds int) time.Time { return time.Date(2026, 1, 2, 3, 4, seconds, 0, time.UTC) }

// service answers a service on an SQLite file of its own, with the profile of user at version 1.
func service(t testing.TB) *profile.Service {
	t.Helper()
	db, err := store.Open(t.Context(), dbtest.SQLiteDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &profile.Service{Store: db.Profiles(), Now: func() time.Time { return at(0) }}
	if err := s.Create(t.Context(), user, "Ada"); err != nil {
		t.Fatal(err)
	}
	return s
}

func patch(t testing.TB, s *profile.Service, body string) (profile.Profile, error) {
	t.Helper()
	return s.Patch(t.Context(), user, []byte(body), "*")
}

func patched(t testing.TB, s *profile.Service, body string) profile.Profile {
	t.Helper()
	p, err := patch(t, s, body)
	if err != nil {
		t.Fatalf("Patch(%s): %v", body, err)
	}
	return p
}

// value makes JSON comparable whatever its spaces and order.
func value(t testing.TB, data string) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

// The examples of RFC 7396, appendix A, each as the member v of the preferences.
func TestPreferencesMergeAsTheRFCSays(t *testing.T) {
	t.Parallel()
	s := service(t)
	for _, c := range []struct{ original, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1}`}, // the null of the original cannot be written by a merge patch
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":[null]}`, `{}`, `{"a":[null]}`},
	} {
		patched(t, s, `{"preferences":null}`)
		patched(t, s, `{"preferences":{"v":`+c.original+`}}`)
		p := patched(t, s, `{"preferences":{"v":`+c.patch+`}}`)
		if diff := cmp.Diff(value(t, `{"v":`+c.want+`}`), value(t, string(p.Preferences))); diff != "" {
			t.Errorf("%s patched with %s (-want +got):\n%s", c.original, c.patch, diff)
		}
	}
	if p := patched(t, s, `{"preferences":{"v":null}}`); string(p.Preferences) != `{}` {
		t.Errorf("preferences = %s after removing the last member", p.Preferences)
	}
}

func TestAPatchChangesWhatItNames(t *testing.T) {
	t.Parallel()
	s := service(t)
	s.Now = func() time.Time { return at(1) }
	p := patched(t, s, `{"name":"Ada Łovelace 👩🏽‍💻","avatar_url":"https://pics.example/a%20b.png?x=1#y","preferences":{"theme":"dark","big":12345678901234567890.5e3}}`)
	want := profile.Profile{
		ID: user, Name: "Ada Łovelace 👩🏽‍💻", AvatarURL: "https://pics.example/a%20b.png?x=1#y",
		Version: 2, CreatedAt: at(0), UpdatedAt: at(1),
	}
	got := p
	got.Preferences = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after the first patch (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(p.Preferences), `12345678901234567890.5e3`) {
		t.Errorf("preferences = %s: the number is not what the client wrote", p.Preferences)
	}
	s.Now = func() time.Time { return at(2) }
	p = patched(t, s, `{"name":null,"avatar_url":null}`)
	if p.Name != "" || p.AvatarURL != "" || p.Version != 3 || !strings.Contains(string(p.Preferences), `"dark"`) {
		t.Errorf("after emptying name and picture: %+v, %s", p, p.Preferences)
	}
	read, err := s.Get(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, read); diff != "" {
		t.Errorf("what is stored (-answered +stored):\n%s", diff)
	}
	if p = patched(t, s, `{}`); p.Version != 4 {
		t.Errorf("an empty patch makes version %d, want 4", p.Version)
	}
}

func TestAPatchIsForOneVersion(t *testing.T) {
	t.Parallel()
	s := service(t)
	p, err := s.Get(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	if p.ETag() != `"1"` {
		t.Fatalf("ETag = %s", p.ETag())
	}
	for name, c := range map[string]struct {
		ifMatch string
		want    error
	}{
		"none":                   {"", profile.ErrNoPrecondition},
		"spaces":                 {"  ", profile.ErrNoPrecondition},
		"another version":        {`"2"`, profile.ErrChanged},
		"weak":                   {`W/"1"`, profile.ErrChanged}, // RFC 9110 section 13.1.1: compared strongly
		"without quotes":         {`1`, profile.ErrChanged},
		"part of it":             {`"11"`, profile.ErrChanged},
		"others":                 {`"2", "3"`, profile.ErrChanged},
		"a comma in another tag": {`"2,3"`, profile.ErrChanged},
	} {
		if _, err := s.Patch(t.Context(), user, []byte(`{"name":"x"}`), c.ifMatch); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if p, err = s.Patch(t.Context(), user, []byte(`{"name":"x"}`), ` "7" , "1"`); err != nil || p.ETag() != `"2"` {
		t.Errorf("one of several: %s, %v", p.ETag(), err)
	}
	if _, err := s.Patch(t.Context(), user, []byte(`{"name":"y"}`), `"1"`); !errors.Is(err, profile.ErrChanged) {
		t.Errorf("the version before: %v, want ErrChanged", err)
	}
}

// Of two clients that read the same version one wins, and the other is told.
func TestRacingPatchesOfOneVersionChangeItOnce(t *testing.T) {
	t.Parallel()
	s := service(t)
	const n = 20
	results := make(chan error, n)
	for range n {
		go func() {
			_, err := s.Patch(t.Context(), user, []byte(`{"name":"x"}`), `"1"`)
			results <- err
		}()
	}
	won := 0
	for range n {
		if err := <-results; err == nil {
			won++
		} else if !errors.Is(err, profile.ErrChanged) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d patches of one version were taken, want 1", won)
	}
}

func nested(open, middle, end string, n int) string {
	return strings.Repeat(open, n) + middle + strings.Repeat(end, n)
}

func TestABadPatchIsRefusedWhole(t *testing.T) {
	t.Parallel()
	s := service(t)
	patched(t, s, `{"preferences":{"half":"`+strings.Repeat("x", 9<<10)+`"}}`)
	before, err := s.Get(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ body, reason string }{
		"empty":                      {``, "malformed_body"},
		"truncated":                  {`{"name":"CANARY`, "malformed_body"},
		"two values":                 {`{"name":"CANARY"}{}`, "malformed_body"},
		"not UTF-8":                  {"{\"name\":\"CANARY\xff\"}", "malformed_body"},
		"a name twice":               {`{"name":"x","name":"CANARY"}`, "malformed_body"},
		"a name twice, escaped":      {`{"name":"x","n\u0061me":"CANARY"}`, "malformed_body"},
		"a name twice, deeper":       {`{"preferences":{"a":[{"b":1,"b":"CANARY"}]}}`, "malformed_body"},
		"a megabyte of brackets":     {strings.Repeat("[", 1<<20), "malformed_body"},
		"null":                       {`null`, "unprocessable"},
		"array":                      {`["CANARY"]`, "unprocessable"},
		"string":                     {`"CANARY"`, "unprocessable"},
		"number":                     {`7`, "unprocessable"},
		"unknown member":             {`{"name":"x","CANARY":1}`, "unprocessable"},
		"member of another case":     {`{"Name":"CANARY"}`, "unprocessable"},
		"the id":                     {`{"id":"CANARY"}`, "unprocessable"},
		"the version":                {`{"version":7}`, "unprocessable"},
		"name a number":              {`{"name":7}`, "unprocessable"},
		"name an object":             {`{"name":{"CANARY":1}}`, "unprocessable"},
		"long name":                  {`{"name":"` + strings.Repeat("é", 101) + `"}`, "unprocessable"},
		"line feed in the name":      {`{"name":"CANARY\nX"}`, "unprocessable"},
		"NUL in the name":            {`{"name":"CANARY\u0000"}`, "unprocessable"},
		"escape in the name":         {`{"name":"CANARY\u001b[31m"}`, "unprocessable"},
		"C1 control in the name":     {`{"name":"CANARY\u0085"}`, "unprocessable"},
		"delete in the name":         {`{"name":"CANARY\u007f"}`, "unprocessable"},
		"line separator":             {`{"name":"CANARY\u2028X"}`, "unprocessable"},
		"paragraph separator":        {`{"name":"CANARY\u2029X"}`, "unprocessable"},
		"right-to-left override":     {`{"name":"CANARY\u202eX"}`, "unprocessable"},
		"isolate":                    {`{"name":"CANARY\u2066X"}`, "unprocessable"},
		"Arabic letter mark":         {`{"name":"CANARY\u061c"}`, "unprocessable"},
		"half a surrogate pair":      {`{"name":"CANARY\ud800"}`, "malformed_body"},
		"picture over http":          {`{"avatar_url":"http://CANARY.example/a.png"}`, "unprocessable"},
		"picture as script":          {`{"avatar_url":"javascript:alert('CANARY')"}`, "unprocessable"},
		"picture as data":            {`{"avatar_url":"data:image/png;base64,CANARY"}`, "unprocessable"},
		"picture without scheme":     {`{"avatar_url":"//CANARY.example/a.png"}`, "unprocessable"},
		"picture without host":       {`{"avatar_url":"https:///CANARY.png"}`, "unprocessable"},
		"picture with a port":        {`{"avatar_url":"https://:443/CANARY.png"}`, "unprocessable"},
		"picture with a password":    {`{"avatar_url":"https://ada:CANARY@pics.example/"}`, "unprocessable"},
		"picture with a quote":       {`{"avatar_url":"https://pics.example/\"onerror=CANARY"}`, "unprocessable"},
		"picture with a tag":         {`{"avatar_url":"https://pics.example/<CANARY>"}`, "unprocessable"},
		"picture with a space":       {`{"avatar_url":"https://pics.example/CANARY x"}`, "unprocessable"},
		"picture with an override":   {`{"avatar_url":"https://pics.example/CANARY\u202egnp.exe"}`, "unprocessable"},
		"picture with a line feed":   {`{"avatar_url":"https://pics.example/CANARY\n"}`, "unprocessable"},
		"long picture":               {`{"avatar_url":"https://pics.example/` + strings.Repeat("x", 2048) + `"}`, "unprocessable"},
		"picture a number":           {`{"avatar_url":7}`, "unprocessable"},
		"preferences a string":       {`{"preferences":"CANARY"}`, "unprocessable"},
		"preferences an array":       {`{"preferences":["CANARY"]}`, "unprocessable"},
		"preferences too large":      {`{"preferences":{"CANARY":"` + strings.Repeat("x", 16<<10) + `"}}`, "unprocessable"},
		"too large by merging":       {`{"preferences":{"other half":"` + strings.Repeat("x", 9<<10) + `"}}`, "unprocessable"},
		"a number of 100,001 digits": {`{"preferences":{"a":1e100000}}`, "unprocessable"},
		"too many digits together":   {`{"preferences":{"a":[1e3000,1E+3000,-1e-3000]}}`, "unprocessable"},
		"an endless exponent":        {`{"preferences":{"a":1e99999999999999999999}}`, "unprocessable"},
		"NUL in the preferences":     {`{"preferences":{"a":["CANARY\u0000"]}}`, "unprocessable"},
		"NUL in a member's name":     {`{"preferences":{"a":{"CANARY\u0000":1}}}`, "unprocessable"},
		"too deep":                   {`{"preferences":` + nested(`{"a":`, `1`, `}`, 9) + `}`, "unprocessable"},
		"too deep in arrays":         {`{"preferences":{"a":` + nested(`[`, ``, `]`, 8) + `}}`, "unprocessable"},
		"10,000 levels":              {`{"preferences":` + nested(`{"a":`, `1`, `}`, 9990) + `}`, "unprocessable"},
		"good and bad together":      {`{"name":"Grace","avatar_url":"CANARY"}`, "unprocessable"},
	} {
		_, err := patch(t, s, c.body)
		f, ok := fault.As(err)
		if !ok || f.Code != fault.Invalid || f.Reason != c.reason {
			t.Errorf("%s: %v, want %s", name, err, c.reason)
			continue
		}
		if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the answer tells the value: %v", name, err)
		}
	}
	after, err := s.Get(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a refused patch changed something (-before +after):\n%s", diff)
	}
}

func TestTheMostThatIsAllowedIsTaken(t *testing.T) {
	t.Parallel()
	s := service(t)
	patched(t, s, `{"name":"`+strings.Repeat("é", 100)+`"}`)
	patched(t, s, `{"avatar_url":"https://pics.example/`+strings.Repeat("x", 2048-len("https://pics.example/"))+`"}`)
	patched(t, s, `{"preferences":`+nested(`{"a":`, `1`, `}`, 8)+`}`)
	patched(t, s, `{"preferences":{"a":[1e300,-2.5E-300,0.1e+2]}}`)
	patched(t, s, `{"preferences":{"a":null,"[{\"":"}]\\"}}`) // brackets in strings do not nest
	patched(t, s, `{"preferences":null}`)
	patched(t, s, `{"preferences":{"a":"`+strings.Repeat("x", 16<<10-len(`{"a":""}`))+`"}}`)
}

func TestSomebodyWithoutAProfileIsTold(t *testing.T) {
	t.Parallel()
	s := service(t)
	if _, err := s.Get(t.Context(), "nobody"); !errors.Is(err, profile.ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
	if _, err := s.Patch(t.Context(), "nobody", []byte(`{}`), "*"); !errors.Is(err, profile.ErrNotFound) {
		t.Errorf("Patch = %v", err)
	}
}

// The job that creates a profile may run twice, and must not undo what the user did meanwhile.
func TestCreatingAProfileAgainChangesNothing(t *testing.T) {
	t.Parallel()
	s := service(t)
	want := patched(t, s, `{"name":"Grace"}`)
	if err := s.Create(t.Context(), user, "Ada"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), user); err != nil || !cmp.Equal(got, want) {
		t.Errorf("after creating again: %+v, %v, want %+v", got, err, want)
	}
}

func TestANameThatCannotBeIsLeftEmpty(t *testing.T) {
	t.Parallel()
	s := service(t)
	for i, name := range []string{"Eve\r\nX: y", "Eve\u202e", strings.Repeat("x", 101), "Eve\xff", "Eve\u2028"} {
		id := user + string(rune('a'+i))
		if err := s.Create(t.Context(), id, name); err != nil {
			t.Fatal(err)
		}
		if p, err := s.Get(t.Context(), id); err != nil || p.Name != "" {
			t.Errorf("the name %q became %q, %v", name, p.Name, err)
		}
	}
}

// What is stored after any patch keeps the bounds, and a refusal is one of the known ones.
func FuzzPatch(f *testing.F) {
	f.Add([]byte(`{"name":"Ada","avatar_url":null,"preferences":{"a":{"b":[1,2,{"c":null}]}}}`))
	f.Add([]byte(`{"preferences":{"a":1e400,"\ud800":"\u0000"}}`))
	f.Add([]byte(`{"name":"\u202e"}`))
	f.Add([]byte(`[[[[`))
	f.Add([]byte(`{"preferences":null,"preferences":{}}`))
	s := service(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := s.Patch(t.Context(), user, body, "*")
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid {
				t.Errorf("Patch: %v", err)
			}
			return
		}
		if len([]rune(p.Name)) > 100 || len(p.AvatarURL) > 2048 || len(p.Preferences) > 16<<10 || !json.Valid(p.Preferences) || p.Preferences[0] != '{' {
			t.Errorf("stored %+v", p)
		}
		stored, err := s.Get(t.Context(), user)
		if err != nil || stored.Name != p.Name || !cmp.Equal(value(t, string(stored.Preferences)), value(t, string(p.Preferences))) {
			t.Errorf("stored %+v, %v, answered %+v", stored, err, p)
		}
	})
}
