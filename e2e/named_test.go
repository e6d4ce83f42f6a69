package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// A request that names its objects in the query or in its body passes only if it may have all of them (S53, S55, S56).
func TestARequestForSeveralOrdersPassesIfAllOfThemMay(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann, bob := s.join(t), s.join(t)
	made := func(c story.Client) string {
		a := send(t, c, http.MethodPost, "/orders", map[string]any{"item": "a chair", "amount": 4900, "department": "sales"})
		want(t, a, http.StatusCreated, "")
		var o struct{ ID string }
		if err := a.Decode(&o); err != nil {
			t.Fatal(err)
		}
		return o.ID
	}
	first, second, his := made(ann.Client), made(ann.Client), made(bob.Client)

	a := send(t, ann.Client, http.MethodGet, "/orders?ids="+first+","+second+"&ids="+first, nil)
	want(t, a, http.StatusOK, "")
	var got []struct{ ID, Owner string }
	if err := a.Decode(&got); err != nil || len(got) != 3 || got[1].ID != second {
		t.Errorf("%v: %s", err, a.Body)
	}
	for query, c := range map[string]struct {
		status int
		code   string
	}{
		"?ids=" + first + "," + his:               {403, "forbidden"},
		"?ids=" + his + "," + first:               {403, "forbidden"},
		"?ids=" + first + ",nowhere":              {403, "forbidden"}, // an order that does not exist is nobody's
		"?ids=" + first + "&IDS=" + his:           {400, "id_malformed"},
		"?ids=" + first + "&ids%5B%5D=" + his:     {400, "id_malformed"},
		"?ids=/orders":                            {400, "id_malformed"},
		"?ids=" + strings.Repeat("1,", 100) + "1": {400, "ids_too_many"},
		"": {200, ""}, // one's own
	} {
		want(t, send(t, ann.Client, http.MethodGet, "/orders"+query, nil), c.status, c.code)
	}

	remove := func(body any, header http.Header) story.Answer {
		t.Helper()
		a, err := ann.Client.Send(t.Context(), story.Request{Method: http.MethodPost, Path: "/orders/delete", Body: body, Header: header})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ids := func(ids ...string) map[string]any { return map[string]any{"ids": append([]string{}, ids...)} }
	asJSON := http.Header{"Content-Type": {"application/json"}}
	want(t, remove(ids(first, his), nil), http.StatusForbidden, "forbidden")
	want(t, remove(ids(first, "nowhere"), nil), http.StatusForbidden, "forbidden")
	want(t, remove(ids(), nil), http.StatusBadRequest, "ids_missing")
	want(t, remove(`{"ids":["`+first+`"],"ids":["`+his+`"]}`, asJSON), http.StatusBadRequest, "body_malformed")
	want(t, remove(`{"ids":["`+first+`"],"Ids":["`+his+`"]}`, asJSON), http.StatusBadRequest, "body_malformed")
	want(t, remove(`{"ids":["`+first+`"]`, asJSON), http.StatusBadRequest, "body_malformed")
	want(t, remove(`ids=`+first, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}), http.StatusUnsupportedMediaType, "unsupported_media_type")
	want(t, remove(`{"ids":["`+first+`"]}`, http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}), http.StatusUnsupportedMediaType, "unsupported_media_type")
	large := `{"ids":["` + first + `"],"note":"` + strings.Repeat("x", 20<<10) + `"}`
	want(t, remove(large, asJSON), http.StatusRequestEntityTooLarge, "body_too_large")
	want(t, inPieces(t, ann.Client, large), http.StatusRequestEntityTooLarge, "body_buffered") // its length shows too late
	guest, err := s.guest().Send(t.Context(), story.Request{Method: http.MethodPost, Path: "/orders/delete", Body: large, Header: asJSON})
	if err != nil {
		t.Fatal(err)
	}
	want(t, guest, http.StatusUnauthorized, "token_missing") // whose body nobody reads
	want(t, send(t, ann.Client, http.MethodGet, "/orders/"+first, nil), http.StatusOK, "")
	want(t, send(t, bob.Client, http.MethodGet, "/orders/"+his, nil), http.StatusOK, "")

	// The upstream gets the very body, whose note it does not know.
	done := inPieces(t, ann.Client, `{"note":"both","ids":["`+first+`","`+second+`"]}`)
	want(t, done, http.StatusOK, "")
	var count struct{ Deleted int }
	if err := json.Unmarshal(done.Body, &count); err != nil || count.Deleted != 2 {
		t.Errorf("%v: %s", err, done.Body)
	}
	left := send(t, bob.Client, http.MethodGet, "/orders", nil)
	if err := left.Decode(&got); err != nil || !slices.ContainsFunc(got, func(o struct{ ID, Owner string }) bool { return o.ID == his }) {
		t.Errorf("%v: %s", err, left.Body)
	}
}

// inPieces sends a body without its length.
func inPieces(t *testing.T, c story.Client, body string) story.Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Base+"/orders/delete", io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.Token)
	res, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return story.Answer{Status: res.StatusCode, Header: res.Header, Body: data}
}
