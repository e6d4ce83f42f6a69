package control_test

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/control"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A decision point without a candidate or kept revisions says so, and changes nothing. The rest is played with the whole program.
func TestWhatIsNotThereIsSaid(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{Log: log, Policies: fstest.MapFS{"a.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	socket := filepath.Join(t.TempDir(), "c.sock")
	ln, err := control.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(ctx, ln, (&control.Server{Engine: e, Log: log}).Handler(), log) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var st control.Status
	if err := control.Ask(t.Context(), socket, http.MethodGet, "/status", nil, &st); err != nil || st.Revision != e.Revision() || st.Shadow != nil {
		t.Errorf("%+v, %v", st, err)
	}
	for path, want := range map[string]string{"POST /promote": "PDP_SHADOW_DIR", "POST /rollback": "PDP_REVISIONS", "GET /case/x": "PDP_SHADOW_DIR", "GET /promote": "405", "GET /nothing": "404"} {
		method, path, _ := strings.Cut(path, " ")
		var v any
		if err := control.Ask(t.Context(), socket, method, path, nil, &v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %s: %v, want %s", method, path, err, want)
		}
	}
	if err := control.Ask(t.Context(), filepath.Join(t.TempDir(), "none"), http.MethodGet, "/status", nil, &st); err == nil {
		t.Error("nobody answered")
	}
}
