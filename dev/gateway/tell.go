package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// answer remembers what the client got, and whether it is the upstream's.
type answer struct {
	http.ResponseWriter
	status   int
	upstream bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status < 200 { // an informational answer comes before the one that counts
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status < 200 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the writer underneath.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// telling is the answers that are told beside their requests.
type telling struct {
	mu    sync.Mutex
	ended bool
	all   sync.WaitGroup
}

// begin runs f, unless the gateway has ended.
func (t *telling) begin(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.all.Go(f)
	}
}

func (t *telling) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.all.Wait()
}

// patience is how long the phase log of one request may take. Nobody waits for it.
const patience = 10 * time.Second

// tell runs the phase log, beside the client that has its answer, as Kong does in a timer. What fails is missed.
func (g *Gateway) tell(r *http.Request, rt *route, id, address string, a *answer) {
	source := "kong"
	if a.upstream {
		source = "upstream"
	}
	query := map[string]string{}
	for name, values := range r.URL.Query() {
		query[name] = values[0]
	}
	logged, err := json.Marshal(map[string]any{
		"request":  map[string]any{"id": id, "method": r.Method, "uri": r.RequestURI, "querystring": query},
		"response": map[string]any{"status": a.status}, "source": source, "client_ip": address,
		"route": map[string]any{"id": rt.id, "name": rt.spec.Name}, "service": map[string]any{"id": rt.service.id, "name": rt.service.spec.Name},
	})
	if err != nil {
		g.log.ErrorContext(r.Context(), "answer cannot be told", "error", err)
		return
	}
	ctx := context.WithoutCancel(r.Context())
	g.telling.begin(func() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if _, err := g.outcomes.run(ctx, "log", rt.outcome, func() *exchange { return &exchange{logged: logged} }); err != nil {
			g.log.WarnContext(ctx, "plugin server error", "phase", "log", "route", rt.spec.Name, "error", err)
		}
	})
}
