package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// loginSite runs an edge over a site whose log-in takes one password, and asks for a challenge after three that were wrong.
func loginSite(t *testing.T, redis string) (base, status string) {
	t.Helper()
	base, status = oneRoute(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/lost":
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("X-Password") != "right":
			w.WriteHeader(http.StatusUnauthorized)
		}
	}, `[
          {name: gatehouse, config: {
            identify: none, authorize: false, redis_url: "{vault://env/redis}", limits: [{name: address, key: ip, rate: 1000-M}],
            challenge:
              {when: risk, action: login, secret: "{vault://env/secret}", max_number: 1000, clearance: {ttl_seconds: 0},
               risk: {threshold: 100, logins: 3, weights: {logins: 100, failures: 0, rate: 0, network: 0, client: 0}}}}},
          {name: gatehouse-outcome, config: {statuses: [401], redis_url: "{vault://env/redis}"}}]`,
		map[string]string{"secret": "0123456789abcdef0123456789abcdef", "redis": redis})
	await.That(t, "the edge serves", func() bool { return post(t, base, "/lost", nil).status == http.StatusNotFound })
	return base, status
}

// counts answers how many answers of the route have been told as result.
func counts(t *testing.T, status, result string) (n int) {
	t.Helper()
	res, err := testhttp.Client.Get("http://" + status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		_, _ = fmt.Sscanf(line, `gatehouse_login_answers_total{result="`+result+`",route="login"} %d`, &n)
	}
	return n
}

// S73: passwords that the upstream refuses bring a challenge, to the next from that network, at every edge over the same Redis. What
// the edge itself refuses counts for nothing, and a password that is right takes nothing back.
func TestRefusedPasswordsBringAChallenge(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	here, status := loginSite(t, redis)
	there, _ := loginSite(t, redis)
	wrong, right := map[string]string{"X-Password": "wrong"}, map[string]string{"X-Password": "right"}
	for n := range 3 {
		if a := post(t, here, "/login", wrong); a.status != http.StatusUnauthorized || a.problem.Code != "" {
			t.Fatalf("wrong password %d: %d %+v", n, a.status, a.problem)
		}
		await.That(t, "the failed log-in is counted", func() bool { return counts(t, status, "failed") == n+1 })
		if n == 1 {
			if a := post(t, there, "/login", right); a.status != http.StatusOK {
				t.Fatalf("after two: %d %+v", a.status, a.problem)
			}
		}
	}
	for edge, base := range map[string]string{"this edge": here, "another edge": there} {
		a := post(t, base, "/login", right)
		want(t, "after three wrong passwords at "+edge, a, http.StatusForbidden, "challenge_required")
		payload, _ := worked(t, a.problem)
		if a := post(t, base, "/login", map[string]string{"X-Password": "right", "X-Gatehouse-Challenge": payload}); a.status != http.StatusOK {
			t.Errorf("solved at %s: %d %+v", edge, a.status, a.problem)
		}
		want(t, "after that at "+edge, post(t, base, "/login", right), http.StatusForbidden, "challenge_required")
	}
	// The 404 of the start, two challenges and one success: four answers at this edge that are no failed log-ins.
	await.That(t, "the other answers are told", func() bool { return counts(t, status, "passed") >= 4 })
	if n := counts(t, status, "failed"); n != 3 {
		t.Errorf("%d failed log-ins are counted, of three", n)
	}
}
