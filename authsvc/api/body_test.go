package api_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/api"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
)

// bodies are a good one for each path that takes one; the values are marked, so that they can be replaced.
func bodies() map[string]string {
	return map[string]string{
		"/auth/register":     `{"email":"e@x.test","password":"` + wrong + `","name":"n"}`,
		"/auth/verify-email": `{"email":"e@x.test","code":"123456"}`,
		"/auth/login":        `{"email":"e@x.test","password":"` + wrong + `"}`,
		"/auth/refresh":      `{"refresh_token":"t"}`,
	}
}

// A body that cannot be read in one way only is refused by every path alike, and nothing of it is told.
func TestABodyHasOneReadingOrIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	const c = canary
	for path, good := range bodies() {
		members := good[1 : len(good)-1]
		first := members[:strings.IndexByte(members, ':')]
		for name, bad := range map[string]struct {
			body   string
			status int
			code   string
		}{
			"nothing":                 {"", 400, "malformed_body"},
			"spaces":                  {" \n", 400, "malformed_body"},
			"a word":                  {c, 400, "malformed_body"},
			"truncated":               {good[:len(good)-3] + c, 400, "malformed_body"},
			"truncated in an escape":  {`{` + first + `:"` + c + `\u00`, 400, "malformed_body"},
			"two values":              {good + `{"` + c + `":1}`, 400, "malformed_body"},
			"something after it":      {good + c, 400, "malformed_body"},
			"a comma after the last":  {`{` + members + `,}`, 400, "malformed_body"},
			"a comment":               {`{/*` + c + `*/` + members + `}`, 400, "malformed_body"},
			"single quotes":           {strings.ReplaceAll(good, `"`, `'`) + c, 400, "malformed_body"},
			"not a number":            {`{` + first + `:NaN}`, 400, "malformed_body"},
			"not UTF-8":               {`{` + first + `:"` + c + "\xff" + `"}`, 400, "malformed_body"},
			"a byte order mark":       {"\ufeff" + good, 400, "malformed_body"},
			"UTF-16":                  {"{\x00\"\x00e\x00", 400, "malformed_body"},
			"a control character":     {`{` + first + `:"` + c + "\n" + `"}`, 400, "malformed_body"},
			"compressed":              {"\x1f\x8b\x08\x00", 400, "malformed_body"},
			"a name twice":            {`{` + first + `:"` + c + `",` + members + `}`, 400, "malformed_body"},
			"a name twice, equal":     {`{` + members + `,` + members + `}`, 400, "malformed_body"},
			"a name twice, by case":   {`{` + strings.ToUpper(first) + `:"` + c + `",` + members + `}`, 400, "malformed_body"},
			"a name twice, escaped":   {`{"` + escaped(first[1]) + first[2:] + `:"` + c + `",` + members + `}`, 400, "malformed_body"},
			"very deep":               {strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), 400, "malformed_body"},
			"null":                    {`null`, 422, "unprocessable"},
			"a list":                  {`["` + c + `"]`, 422, "unprocessable"},
			"a list of one":           {`[` + good + `]`, 422, "unprocessable"},
			"a string":                {`"` + c + `"`, 422, "unprocessable"},
			"a number":                {`17`, 422, "unprocessable"},
			"a number out of range":   {`1e999`, 400, "malformed_body"},
			"an empty object":         {`{}`, 422, "unprocessable"},
			"a member too many":       {`{"` + c + `":1,` + members + `}`, 422, "unprocessable"},
			"a role":                  {`{"roles":["` + c + `"],` + members + `}`, 422, "unprocessable"},
			"its first a number":      {replaced(good, first, `17`), 422, "unprocessable"},
			"its first null":          {replaced(good, first, `null`), 422, "unprocessable"},
			"its first true":          {replaced(good, first, `true`), 422, "unprocessable"},
			"its first a list":        {replaced(good, first, `["`+c+`"]`), 422, "unprocessable"},
			"its first an object":     {replaced(good, first, `{"`+c+`":"`+c+`"}`), 422, "unprocessable"},
			"its first 1e999":         {replaced(good, first, `1e999`), 400, "malformed_body"},
			"its first far too long":  {replaced(good, first, `"`+strings.Repeat("x", 2000)+c+`"`), 422, "unprocessable"},
			"its first missing":       {`{` + strings.TrimPrefix(members[strings.IndexAny(members+",", ","):], ",") + `}`, 422, "unprocessable"},
			"64 KB":                   {replaced(good, first, `"`+strings.Repeat("x", 64<<10)+c+`"`), 413, "body_too_large"},
			"10 MB":                   {replaced(good, first, `"`+strings.Repeat("x", 10<<20)+c+`"`), 413, "body_too_large"},
			"64 KB of spaces":         {strings.Repeat(" ", 64<<10) + good, 413, "body_too_large"},
			"64 KB of opened objects": {strings.Repeat(`{"a":`, 13000), 400, "malformed_body"},
		} {
			what := path + ": " + name
			a := s.send(t, http.MethodPost, path, bad.body, "Content-Type", "application/json")
			wantProblem(t, what, a, bad.status, bad.code)
			s.wantNoCanary(t, what, a)
			if bad.status == 422 && !strings.Contains(a.Body, `"errors":[{"path":"`) {
				t.Errorf("%s: it does not say where: %s", what, a.Body)
			}
		}
		if a := s.send(t, http.MethodPost, path, good, "Content-Type", "application/json"); a.Status == 422 || a.Status == 500 ||
			(a.Status == 400 && !strings.Contains(a.Body, "code_invalid")) {
			t.Errorf("%s: the good one is refused: %d %s", path, a.Status, a.Body)
		}
	}
	if n := s.db.Count(t, "users"); n != 1 { // the good registration's
		t.Errorf("%d users", n)
	}
}

func escaped(c byte) string { return `\u00` + hexadecimal([]byte{c}) }

// replaced puts a value in the place of the first member's.
func replaced(body, name, value string) string {
	begin := strings.Index(body, name) + len(name) + 1
	end := begin + strings.IndexAny(body[begin:], ",}")
	return body[:begin] + value + body[end:]
}

// What is wrong is said by the name of the member and the rule, for each member.
func TestAnUnprocessableBodyIsToldWhere(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	for body, want := range map[string]string{
		`{"email":17,"password":"` + canary + `"}`:               `[{"path":"email","message":"expected string"}]`,
		`{"email":"` + canary + `"}`:                             `[{"path":"body","message":"expected required property password to be present"}]`,
		`{"email":"a","password":"b","` + canary + `":1}`:        `[{"path":"body","message":"unexpected property"}]`,
		`{"email":"a","password":"` + strings.Repeat(canary, 99): ``,
	} {
		a := s.send(t, http.MethodPost, "/auth/login", body, "Content-Type", "application/json")
		if !strings.Contains(a.Body, want) {
			t.Errorf("%s: %s", body, a.Body)
		}
		s.wantNoCanary(t, body, a)
	}
}

func TestOnlyJSONIsRead(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	g := s.join(t)
	for path, good := range bodies() {
		for _, media := range []string{
			"text/plain", "text/plain; x=application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "application/cbor",
			"application/octet-stream", "text/html", "json/application", canary, "application/json" + canary, ";", "application/json, text/plain", "text/plain;+json",
		} {
			a := s.send(t, http.MethodPost, path, good, "Content-Type", media)
			wantProblem(t, path+" as "+media, a, http.StatusUnsupportedMediaType, "unsupported_media_type")
			s.wantNoCanary(t, path+" as "+media, a)
		}
		for _, media := range []string{"application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/json;charset=UTF-8"} {
			if a := s.send(t, http.MethodPost, path, good, "Content-Type", media); a.Status == http.StatusUnsupportedMediaType || a.Status >= 500 {
				t.Errorf("%s as %s: %d %s", path, media, a.Status, a.Body)
			}
		}
	}
	patch := func(media string) answer {
		return s.send(t, http.MethodPatch, "/user/me", `{"name":"`+canary+`"}`, "Content-Type", media, "If-Match", `"9"`, "Authorization", "Bearer "+g.AccessToken)
	}
	for _, media := range []string{"text/plain", "", ";", "application/json-patch+json", canary} {
		a := patch(media)
		wantProblem(t, "a patch as "+media, a, http.StatusUnsupportedMediaType, "unsupported_media_type")
		s.wantNoCanary(t, "a patch as "+media, a)
	}
	for _, media := range []string{"application/merge-patch+json", "application/json", "application/merge-patch+json; charset=utf-8"} {
		wantProblem(t, "a patch as "+media, patch(media), http.StatusPreconditionFailed, "precondition_failed")
	}
}

// A bad patch is refused like any other bad body, and changes nothing.
func TestABadPatchIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		g := s.join(t)
		for name, bad := range map[string]struct {
			body   string
			status int
			code   string
		}{
			"nothing":       {"", 400, "malformed_body"},
			"truncated":     {`{"name":"` + canary, 400, "malformed_body"},
			"two values":    {`{"name":"` + canary + `"}{}`, 400, "malformed_body"},
			"a name twice":  {`{"name":"a","name":"` + canary + `"}`, 400, "malformed_body"},
			"twice, deeper": {`{"preferences":{"a":{"b":1,"b":"` + canary + `"}}}`, 400, "malformed_body"},
			"a list":        {`["` + canary + `"]`, 422, "unprocessable"},
			"a wrong type":  {`{"name":["` + canary + `"]}`, 422, "unprocessable"},
			"too many":      {`{"roles":["` + canary + `"]}`, 422, "unprocessable"},
			"too large":     {`{"name":"` + strings.Repeat("x", 64<<10) + canary + `"}`, 413, "body_too_large"},
		} {
			a := s.send(t, http.MethodPatch, "/user/me", bad.body, "Content-Type", "application/merge-patch+json", "If-Match", "*", "Authorization", "Bearer "+g.AccessToken)
			wantProblem(t, name, a, bad.status, bad.code)
			s.wantNoCanary(t, name, a)
		}
		a := s.send(t, http.MethodPatch, "/user/me", `{"name":"`+canary+`"}`, "Content-Type", "application/json", "Authorization", "Bearer "+g.AccessToken)
		wantProblem(t, "without If-Match", a, http.StatusPreconditionRequired, "precondition_required")
		if a := s.send(t, http.MethodGet, "/user/me", "", "Authorization", "Bearer "+g.AccessToken); a.Header.Get("ETag") != `"1"` || !strings.Contains(a.Body, `"Ada"`) {
			t.Errorf("the profile has changed: %s", a.Body)
		}
	})
}

// A body of unknown length is bounded as well.
func TestABodyWithoutALengthIsBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	large := io.MultiReader(strings.NewReader(`{"email":"`), strings.NewReader(strings.Repeat(canary, 10_000)))
	a := s.sendFrom(t, http.MethodPost, "/auth/login", large, "Content-Type", "application/json")
	wantProblem(t, "110 KB in chunks", a, http.StatusRequestEntityTooLarge, "body_too_large")
	s.wantNoCanary(t, "110 KB in chunks", a)
	small := io.MultiReader(strings.NewReader(`{"email":"a@x.test",`), strings.NewReader(`"password":"`+wrong+`"}`))
	a = s.sendFrom(t, http.MethodPost, "/auth/login", small, "Content-Type", "application/json")
	wantProblem(t, "in chunks", a, http.StatusUnauthorized, "invalid_credentials")
}

// What is announced as too large is refused before it is sent.
func TestABodyThatIsAnnouncedTooLargeIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := newServer(t, dbtest.SQLite(t))
	got := s.raw(t, true, "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.Contains(got, `"code":"body_too_large"`) {
		t.Errorf("got %s", got)
	}
}

// raw sends bytes as they are, says no more unless open, and answers what comes back.
func (s *server) raw(t *testing.T, open bool, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if !open {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if err := res.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A body that breaks off is the client's doing, not ours: 400 or 408 and no line of an error of ours in the log.
func TestABodyThatBreaksOffIsTheClientsFault(t *testing.T) {
	t.Parallel()
	const head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		request string
		open    bool
		want    string
	}{
		"shorter than announced": {head + "Content-Length: 4096\r\n\r\n{\"email\":\"" + canary, false, "400 malformed_body"},
		"a chunk cut":            {head + "Transfer-Encoding: chunked\r\n\r\n40\r\n{\"email\":\"" + canary, false, "400 malformed_body"},
		"no last chunk":          {head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n", false, "400 malformed_body"},
		"a chunk of nonsense":    {head + "Transfer-Encoding: chunked\r\n\r\n" + canary + "\r\n{}", false, "400 malformed_body"},
		"too slow":               {head + "Content-Length: 4096\r\n\r\n{\"email\":\"" + canary, true, "408 body_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, dbtest.SQLite(t))
			got := s.raw(t, c.open, c.request)
			status, code, _ := strings.Cut(c.want, " ")
			if !strings.HasPrefix(got, "HTTP/1.1 "+status+" ") || !strings.Contains(got, `"code":"`+code+`"`) {
				t.Errorf("want %s, got %s", c.want, got)
			}
			s.wantNoCanary(t, name, answer{Body: got})
			if log := s.log.String(); strings.Contains(log, `"level":"ERROR"`) {
				t.Errorf("the log blames us: %s", log)
			}
		})
	}
}

// slowly is a log-in that takes longer than a body may, unless its request ends before.
type slowly struct {
	api.Logins
	ended chan error
}

func (s slowly) Login(ctx context.Context, _, _ string) (login.Grant, error) {
	select {
	case <-ctx.Done():
	case <-time.After(5500 * time.Millisecond):
	}
	s.ended <- ctx.Err()
	return login.Grant{}, login.ErrCredentials
}

// The time that a body may take to arrive is not the time that its answer may take.
func TestARequestMayTakeLongerThanItsBody(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	s := newServer(t, dbtest.SQLite(t), func(o *api.Options) { o.Logins = slowly{o.Logins, ended} })
	a := s.post(t, "/auth/login", fields{"email": ada, "password": wrong})
	wantProblem(t, "after a while", a, http.StatusUnauthorized, "invalid_credentials")
	if err := <-ended; err != nil {
		t.Errorf("the request was ended: %v", err)
	}
}
