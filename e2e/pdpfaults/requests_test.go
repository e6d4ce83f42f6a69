package pdpfaults_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// canary is in what callers send wrongly; no answer and no log may repeat it.
const canary = "canary-value"

// local is a policy folder with the rules.
func local(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"gatehouse/authz.rego": rules, "gatehouse/search.rego": "package gatehouse.search\n\nsubjects := {\"candidates\": [], \"complete\": true}\n", "kinds/data.json": `{"report": true}`} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// S56, S67: whatever is sent, the answer is an error in the shape of its door, which does not repeat it, and those who ask as they
// should do not notice.
func TestBadRequestsStallNobody(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "-policies", local(t), "-search-callers", "*")
	l := begin(t, p)
	inputs := map[string]struct {
		put    func(whole string) string
		status int
	}{
		"10 MB": {func(w string) string {
			return strings.Replace(w, "}", `,"x":"`+strings.Repeat(canary, 900_000)+`"}`, 1)
		}, 413},
		"depth 10,000": {func(w string) string {
			return strings.Replace(w, "}", `,"x":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+"}", 1)
		}, 400},
		"objects 10,000": {func(w string) string {
			return strings.Replace(w, "}", `,"x":`+strings.Repeat(`{"x":`, 10_000)+"1"+strings.Repeat("}", 10_000)+"}", 1)
		}, 400},
		"wrong types":      {func(string) string { return `["` + canary + `"]` }, 400},
		"NUL":              {func(w string) string { return strings.Replace(w, "}", ",\"x\":\""+canary+"\x00\"}", 1) }, 400},
		"invalid UTF-8":    {func(w string) string { return strings.Replace(w, "}", ",\"x\":\""+canary+"\xff\"}", 1) }, 400},
		"half of a pair":   {func(w string) string { return strings.Replace(w, "}", `,"x":"`+canary+`\ud800"}`, 1) }, 400},
		"cut short":        {func(w string) string { return w[:len(w)-1] }, 400},
		"something behind": {func(w string) string { return w + canary }, 400},
		"a member twice":   {func(w string) string { return strings.Replace(w, "}", `,"x":1,"x":"`+canary+`"}`, 1) }, 400},
		"empty":            {func(string) string { return "" }, 400},
		"unknown fields": {func(w string) string {
			return strings.Replace(w, "{", `{"unknown":{"members":[null,"`+canary+`"]},`, 1)
		}, 200},
	}
	const one = `"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"order","id":"17"}`
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	for path, whole := range map[string]string{
		"/access/v1/evaluation": "{" + one + "}", "/access/v1/evaluations": "{" + one + `,"evaluations":[{}]}`, "/v1/data/gatehouse/authz/decision": `{"input":{"subject":{"id":"ann"}}}`,
		"/access/v1/search/subject": "{" + one + "}",
	} {
		for name, in := range inputs {
			began := time.Now()
			res, err := client.Post(p.url+path, "application/json", strings.NewReader(in.put(whole)))
			if err != nil {
				if name != "10 MB" { // whose answer may come while it is still sent
					t.Errorf("%s %s: %v", path, name, err)
				}
				continue
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			kind, shape := "application/problem+json", `"code":"`
			if strings.HasPrefix(path, "/v1/") {
				kind, shape = "application/json", `"code"`
			}
			if in.status == 200 {
				kind, shape = "application/json", ""
			}
			empty := name == "empty" && strings.HasPrefix(path, "/v1/") && res.StatusCode == 200 // which is a question without an input
			if err != nil || !empty && (res.StatusCode != in.status || res.Header.Get("Content-Type") != kind || !strings.Contains(string(body), shape)) || strings.Contains(string(body), canary) {
				t.Errorf("%s %s: %d %s %.200s %v", path, name, res.StatusCode, res.Header.Get("Content-Type"), body, err)
			}
			if took := time.Since(began); took > longest {
				t.Errorf("%s %s took %v", path, name, took)
			}
		}
	}

	// Those who send nothing, half of something, or no HTTP hold a connection and no more.
	var held []net.Conn
	for i := range 60 {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		_, _ = io.WriteString(c, []string{
			"", "POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nX-Canary: " + canary, "POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"subject\":",
			"\x16\x03\x01" + canary + "\r\n\r\n",
		}[i%4])
	}
	l.rounds(10)
	for _, c := range held {
		_ = c.Close() // it was only held
	}
	l.rounds(2)
	if !p.well() {
		t.Error("it is not well")
	}
	if strings.Contains(p.said.String(), canary) {
		t.Error("the log repeats what was sent")
	}
	l.finish()
}

// S56: a rule that loops over what a request brings fails for that request, and for nobody else, however many of them come; after some
// they are refused at once, and it is told; and when they end so does that.
func TestARuleThatLoopsStallsNobody(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"native": nil, "topdown": {"-native", "off", "-partial-evaluation", "off"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, t.TempDir(), append(args, "-policies", local(t))...)
			l := begin(t, p)
			search := func(n int) string {
				return `{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"search","id":"1"},"context":{"list":[` + strings.Repeat("1,", n) + `1]}}`
			}
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: patience}
			defer client.CloseIdleConnections()
			post := func(ctx context.Context, body string) (int, string) {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/access/v1/evaluation", strings.NewReader(body))
				if err != nil {
					return 0, err.Error()
				}
				req.Header.Set("Content-Type", "application/json")
				res, err := client.Do(req)
				if err != nil {
					return 0, err.Error()
				}
				defer res.Body.Close()
				text, _ := io.ReadAll(res.Body) // half of it is wrong
				return res.StatusCode, string(text)
			}
			ctx, stop := context.WithCancel(t.Context())
			var flood sync.WaitGroup
			for range 8 {
				flood.Go(func() {
					tick := time.NewTicker(pace) // refused at once, they would take all of the machine
					defer tick.Stop()
					for ctx.Err() == nil {
						status, text := post(ctx, search(2_000))
						if ctx.Err() == nil && (status != http.StatusServiceUnavailable || !strings.Contains(text, `"code":"policy_failed"`)) {
							t.Errorf("%d %s", status, text)
						}
						<-tick.C
					}
				})
			}
			p.within("the kind is refused", func() bool {
				return p.metric("gatehouse_pdp_refused_kinds") == 1 && p.metric("gatehouse_pdp_refused_questions_total") > 0
			})
			l.rounds(10)
			if !p.ready("degraded", "1 kinds of questions take them longer than 100ms") || p.metric("gatehouse_pdp_late_evaluations_total") < 8 {
				t.Error("it is not told")
			}
			if p.line("questions of a kind take too long, and are refused", `"rule":"data.gatehouse.authz.decision","resource_type":"search","action":"GET"`) == nil {
				t.Error("the log does not say which")
			}
			if name == "topdown" && !strings.Contains(p.said.String(), "eval_cancel_error: context deadline exceeded") {
				t.Error("the log does not say why")
			}
			stop()
			flood.Wait()
			p.within("it is decided again", func() bool {
				status, text := post(t.Context(), search(2))
				return status == http.StatusOK && strings.Contains(text, `"decision":true`)
			})
			p.within("all is well again", p.well)
			l.rounds(2)
			l.finish()
		})
	}
}
