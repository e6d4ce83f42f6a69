package app_test

import (
	"testing"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
)

// S71: decision points read roles only where they have to show who they are.
func TestTheRoleAdminSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	const listen, tokens, cert, key, ca = "AUTHSVC_DIRECTORY_LISTEN", "AUTHSVC_DIRECTORY_TOKENS_FILE", "AUTHSVC_DIRECTORY_TLS_CERT_FILE",
		"AUTHSVC_DIRECTORY_TLS_KEY_FILE", "AUTHSVC_DIRECTORY_TLS_CLIENT_CA_FILE"
	with := func(more ...string) map[string]string {
		m := map[string]string{"AUTHSVC_ROLES": "admin"}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	for _, good := range []map[string]string{
		with(), with("AUTHSVC_ADMIN_LISTEN", ":0"), with(listen, "127.0.0.1:8084", tokens, "t"), with(listen, "unix:///run/x.sock", tokens, "t"), with(listen, ":8084", cert, "c", key, "k", ca, "a"),
		with(listen, ":8084", tokens, "t", cert, "c", key, "k"),
		{"AUTHSVC_ADMIN_LISTEN": canary, listen: canary}, // no admin, no matter
	} {
		if _, err := load(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for name, bad := range map[string][]map[string]string{
		"AUTHSVC_ADMIN_LISTEN": {with("AUTHSVC_ADMIN_LISTEN", canary), with("AUTHSVC_ADMIN_LISTEN", "8083")},
		listen:                 {with(listen, canary, tokens, "t"), with(listen, "127.0.0.1", tokens, "t"), with(listen, "unix://x", tokens, "t")},
		tokens:                 {with(listen, "127.0.0.1:8084"), with(listen, "127.0.0.1:8084", cert, "c", key, "k")},
		cert:                   {with(cert, canary), with(key, canary), with(ca, canary)},
	} {
		for _, env := range bad {
			_, err := load(env)
			if err == nil {
				t.Errorf("%v is taken", env)
				continue
			}
			wantNamed(t, err, name, name)
		}
	}
	c, err := load(nil)
	if err != nil || c.Has(app.Admin) {
		t.Errorf("admins are served unasked: %v", err)
	}
}
