package gateway

import "testing"

// What Kong 3.9.1 was seen to send to an upstream behind a route for /plain without a plugin.
func TestPathsAreNormalisedAsByKong(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/x/../plain/%2e%2Fx;y%7e%20%c3%a9//z": "/plain/.%2Fx;y~%20%C3%A9/z",
		"/plain/%2e%2e/plain/a":                "/plain/a",
		"/plain/.":                             "/plain/",
		"/plain/..":                            "/",
		"/plain/%2E%2E%2Fx":                    "/plain/..%2Fx",
		"//plain":                              "/plain",
		"/./plain":                             "/plain",
		"/plain/%41%5b%5B":                     "/plain/A%5B%5B",
		"/plain%2fx":                           "/plain%2Fx",
		"/plain/\u00e9":                        "/plain/%C3%A9",
		"/plain/%0a":                           "/plain/%0A",
		`/plain/a"b\`:                          "/plain/a%22b%5C",
		"/plain/{a}|b^`":                       "/plain/%7Ba%7D%7Cb%5E%60",
		"/plain/%25zz":                         "/plain/%25zz",
		"/plain/;%3B*%2a":                      "/plain/;%3B*%2A",
		"/%70lain":                             "/plain",
		"/":                                    "/",
	} {
		if got, ok := normalize(path); !ok || escape(got) != want {
			t.Errorf("%q becomes %q, %t, want %q", path, escape(got), ok, want)
		}
	}
	for _, path := range []string{"/plain/%zz", "/plain/%", "/plain/%4", "/plain/%00a"} {
		if got, ok := normalize(path); ok {
			t.Errorf("%q becomes %q, want a refusal", path, got)
		}
	}
}
