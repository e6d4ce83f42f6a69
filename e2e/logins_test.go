package e2e_test

import (
	"net/http"
	"testing"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// S73: with kong.yml as it is, twenty wrong passwords from one network bring a challenge to the next who logs in from there, whatever
// the password; and a solution lets that one try pass.
func TestTwentyWrongPasswordsBringAChallenge(t *testing.T) {
	t.Parallel()
	s := open(t)
	if s.stack == nil {
		t.Skip("other tests may come from the same network there, and would meet the challenge")
	}
	try := story.Request{Method: http.MethodPost, Path: "/auth/login", Body: map[string]string{"email": "nobody@example.test", "password": "wrong horse battery staple"}}
	wrong := 0
	a := send(t, s.guest(), try.Method, try.Path, try.Body)
	for ; a.Status == http.StatusUnauthorized && wrong < 50; wrong++ { // the limit is sixty
		a = send(t, s.guest(), try.Method, try.Path, try.Body)
	}
	want(t, a, http.StatusForbidden, "challenge_required")
	if wrong < 20 {
		t.Errorf("after %d wrong passwords", wrong)
	}
	payload, err := story.Solve(a.Problem().Challenge)
	if err != nil {
		t.Fatal(err)
	}
	try.Header = http.Header{"X-Gatehouse-Challenge": {payload}}
	if a, err = s.guest().Send(t.Context(), try); err != nil {
		t.Fatal(err)
	}
	want(t, a, http.StatusUnauthorized, "invalid_credentials")
	want(t, send(t, open(t).guest(), try.Method, try.Path, try.Body), http.StatusUnauthorized, "invalid_credentials") // from elsewhere
}
