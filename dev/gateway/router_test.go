package gateway

import "testing"

func TestRoutesMatchAsInKong(t *testing.T) {
	t.Parallel()
	no := false
	svc := &service{spec: serviceSpec{Path: "/base"}}
	r, err := newRouter([]*route{
		{spec: routeSpec{Name: "root", Paths: []string{"/"}}, service: svc},
		{spec: routeSpec{Name: "orders", Paths: []string{"/orders"}, StripPath: &no}, service: svc},
		{spec: routeSpec{Name: "orders-special", Paths: []string{"/orders/special"}}, service: svc},
		{spec: routeSpec{Name: "regex", Paths: []string{`~/orders/\d+$`}}, service: svc},
		{spec: routeSpec{Name: "orders-post", Paths: []string{"/orders"}, Methods: []string{"POST"}}, service: svc},
		{spec: routeSpec{Name: "host", Paths: []string{"/orders"}, Hosts: []string{"*.admin.test"}}, service: svc},
	})
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
		got, up := r.match(c.method, c.host, c.path)
		if got == nil || got.spec.Name != c.name || up != c.upstream {
			t.Errorf("%s %s%s: %+v %q, want %s %q", c.method, c.host, c.path, got, up, c.name, c.upstream)
		}
	}
}
