// Package testhttp has the HTTP client of tests.
package testhttp

import "net/http"

// Client connects anew for each request and leaves no connection behind. Tests do not use http.DefaultClient: the end of any
// httptest.Server closes that one's idle connections, also those that a test beside it has just taken for a request.
var Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
