package kongfile

import "testing"

func TestRoutesMatchAsInKong(t *testing.T) {
	t.Parallel()
	no := false
	svc := &Service{Path: "/base"}
	routes := []Guarded{
		{Route: Route{Name: "root", Paths: []string{"/"}}, Service: svc},
		{Route: Route{Name: "orders", Paths: []string{"/orders"}, StripPath: &no}, Service: svc},
		{Route: Route{Name: "orders-special", Paths: []string{"/orders/special"}}, Service: svc},
		{Route: Route{Name: "regex", Paths: []string{`~/orders/\d+$`}}, Service: svc},
		{Route: Route{Name: "orders-post", Paths: []string{"/orders"}, Methods: []string{"POST"}}, Service: svc},
		{Route: Route{Name: "host", Paths: []string{"/orders"}, Hosts: []string{"*.admin.test"}}, Service: svc},
	}
	r, err := NewRouter(routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, host, path, name, upstream string }{
		{"GET", "x", "/orders", "orders", "/base/orders"},
		{"GET", "x", "/ordersX", "orders", "/base/ordersX"},
		{"GET", "x", "/orders/special/1", "orders-special", "/base/1"},
		{"GET", "x", "/orders/12", "regex", "/base"},
		{"GET", "x", "/orders/12/x", "orders", "/base/orders/12/x"},
		{"POST", "x", "/orders/12", "orders-post", "/base/12"},
		{"GET", "a.admin.test:8000", "/orders/12", "host", "/base/12"},
		{"GET", "x", "/%6frders/12", "root", "/base/%6frders/12"}, // never normalised
		{"GET", "x", "/a/../orders", "root", "/base/a/../orders"},
	} {
		got, up := r.Match(c.method, c.host, c.path)
		if got < 0 || routes[got].Route.Name != c.name || up != c.upstream {
			t.Errorf("%s %s%s: %d %q, want %s %q", c.method, c.host, c.path, got, up, c.name, c.upstream)
		}
	}
}
