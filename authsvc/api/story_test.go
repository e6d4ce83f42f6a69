package api_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

// S29, S67, S68: whoever comes, goes, guesses and steals leaves lines in the log, and none of them holds a password, a
// code, a token or an address.
func TestTheLogOfADayHoldsNoSecret(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		const eve, password, other, guess = "eve@canary.test", "canary password of eve", "canary password of eve's second try", "canary guess\r\n{\"forged\":1}"
		secrets := []string{eve, "EVE@canary.test", password, strings.ReplaceAll(password, " ", "%20"), other, "canary guess"}
		want := func(what string, a answer, status int) answer {
			t.Helper()
			if a.Status != status {
				t.Fatalf("%s: %d %s", what, a.Status, a.Body)
			}
			return a
		}
		keep := func(g grant) grant {
			secrets = append(secrets, g.AccessToken, strings.Split(g.AccessToken, ".")[2], g.RefreshToken)
			return g
		}
		want("register", s.post(t, "/auth/register", fields{"email": eve, "password": other, "name": "canary"}), 202)
		secrets = append(secrets, s.code(t))
		want("register again", s.post(t, "/auth/register", fields{"email": "EVE@canary.test", "password": password}), 202)
		code := s.code(t)
		secrets = append(secrets, code)
		want("log in too early", s.post(t, "/auth/login", fields{"email": eve, "password": password}), 403)
		want("a wrong code", s.post(t, "/auth/verify-email", fields{"email": eve, "code": guess}), 400)
		want("the code", s.post(t, "/auth/verify-email", fields{"email": eve, "code": code}), 204)
		want("a wrong password", s.post(t, "/auth/login", fields{"email": eve, "password": guess}), 401)
		want("an unknown address", s.post(t, "/auth/login", fields{"email": "x" + eve, "password": guess}), 401)
		want("a secret in the wrong place", s.post(t, "/auth/login", fields{"email": guess, "password": eve, password: other}), 422)
		want("a secret in the query", s.send(t, "POST", "/auth/login?password="+strings.ReplaceAll(password, " ", "%20"), "{"), 400)

		g := keep(granted(t, want("log in", s.post(t, "/auth/login", fields{"email": eve, "password": password}), 200)))
		bearer := []string{"Authorization", "Bearer " + g.AccessToken}
		var me struct{ ID, Email string }
		if err := json.Unmarshal([]byte(want("the account", s.send(t, "GET", "/auth/me", "", bearer...), 200).Body), &me); err != nil || me.Email != eve {
			t.Errorf("the account is %+v, %v", me, err)
		}
		next := keep(granted(t, want("refresh", s.post(t, "/auth/refresh", fields{"refresh_token": g.RefreshToken}), 200)))
		if tab := keep(granted(t, want("in a second tab", s.post(t, "/auth/refresh", fields{"refresh_token": g.RefreshToken}), 200))); tab.RefreshToken != next.RefreshToken {
			t.Error("the second tab has a token of its own")
		}
		s.at(noon().Add(session.Grace + time.Second))
		want("a thief", s.post(t, "/auth/refresh", fields{"refresh_token": g.RefreshToken}), 401)
		want("after the thief", s.send(t, "GET", "/auth/me", "", "Authorization", "Bearer "+next.AccessToken), 401)

		g = keep(granted(t, want("log in again", s.post(t, "/auth/login", fields{"email": eve, "password": password}), 200)))
		part := strings.Split(g.AccessToken, ".")
		forged := part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"canary of a forged claim"}`)) + "." + part[2]
		secrets = append(secrets, forged, "canary of a forged claim")
		want("a forged token", s.send(t, "GET", "/auth/me", "", "Authorization", "Bearer "+forged), 401)
		want("log out", s.send(t, "POST", "/auth/logout", "", "Authorization", "Bearer "+g.AccessToken), 204)
		want("log out twice", s.send(t, "POST", "/auth/logout", "", "Authorization", "Bearer "+g.AccessToken), 401)

		log := s.log.String()
		for _, secret := range secrets {
			if len(secret) < 6 {
				t.Fatalf("%q is no secret", secret)
			}
			if strings.Contains(log, secret) {
				t.Errorf("%q is in the log:\n%s", secret, log)
			}
		}
		count := map[string]int{}
		for line := range strings.Lines(log) {
			var l struct {
				Msg    string `json:"msg"`
				UserID string `json:"user_id"`
				Forged any    `json:"forged"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Forged != nil {
				t.Errorf("a forged line: %s", line)
			}
			if l.UserID != "" && l.UserID != me.ID {
				t.Errorf("a line of user %q: %s", l.UserID, line)
			}
			count[l.Msg]++
		}
		for msg, n := range map[string]int{
			"registered": 1, "address proved": 1, "login refused": 3, "logged in": 2, "logged out": 1, "refresh token reused; session ended": 1, "request failed": 10,
		} {
			if count[msg] != n {
				t.Errorf("the log says %q %d times, want %d:\n%s", msg, count[msg], n, log)
			}
		}
	})
}

// S23, S44: what a client does over a day, by what it is answered alone.
func TestASessionOverHTTP(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		g := s.join(t)
		other := s.login(t)
		if g.SessionID == other.SessionID {
			t.Error("two logins share a session")
		}
		for day := range 3 {
			s.at(noon().Add(time.Duration(day) * 24 * time.Hour))
			next := granted(t, s.post(t, "/auth/refresh", fields{"refresh_token": g.RefreshToken}))
			if next.SessionID != g.SessionID || next.RefreshToken == g.RefreshToken || next.AccessToken == g.AccessToken {
				t.Errorf("day %d: %+v after %+v", day, next, g)
			}
			if a := s.send(t, "GET", "/auth/me", "", "Authorization", "Bearer "+next.AccessToken); a.Status != http.StatusOK {
				t.Errorf("day %d: %d", day, a.Status)
			}
			g = next
		}
	})
}
