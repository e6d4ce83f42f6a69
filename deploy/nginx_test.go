package deploy_test

import (
	"io"
	"path"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// A real nginx makes of the file that Kong includes what the plugin expects (plugin/kong.JoinedVariable).
func TestNGINXJoinsWhatThePluginAsks(t *testing.T) {
	t.Parallel()
	address := testenv.NGINX(t, read(t, "gatehouse.nginx.conf")+`
	server {
		listen LISTEN;
		location / {
			set $kong_request_id 0af7651916cd43dd8448eb211c80319c; # these two are Kong's
			set $upstream_uri /orders/1;
			return 200 "$gatehouse_request";
		}
	}`)
	res, err := testhttp.Client.Get("http://" + address + "/shop/orders/1?q=%20x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if want := "0af7651916cd43dd8448eb211c80319c 127.0.0.1 /orders/1 GET /shop/orders/1?q=%20x HTTP/1.1"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestTheImageHasTheFileThatKongIncludes(t *testing.T) {
	t.Parallel()
	folder, file := path.Split(settings(t)["nginx_http_include"])
	if want := "COPY deploy/kong.conf deploy/" + file + " " + folder + "\n"; file == "" || !strings.Contains(read(t, "Dockerfile"), want) {
		t.Errorf("the Dockerfile does not say %q", want)
	}
}
