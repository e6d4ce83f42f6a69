package edge_test

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

// kongEnv names the `kong` command of a real Kong 3.9. With it the tests here run on that, each on one of its own, with
// deploy/kong.conf; without it they run on dev/gateway.
const kongEnv = "GATEHOUSE_KONG"

// realKong runs Kong until the test ends, and answers its URL. As root it keeps its workers root too, for the plugin's socket
// lies in a folder of root's.
func realKong(t *testing.T, command, plugin string, config []byte, socket, status string, address, vault map[string]string) string {
	t.Helper()
	prefix, err := os.MkdirTemp("", "kong") //nolint:usetesting // Kong has sockets of its own in there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(prefix) })
	for name, at := range address { // Kong has names from the DNS, and a port of the test's own is not there
		config = []byte(strings.ReplaceAll(string(config), name, at))
	}
	file := filepath.Join(prefix, "kong.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs("../../deploy")
	if err != nil {
		t.Fatal(err)
	}
	listen := testenv.Spare(t)
	env := append(os.Environ(),
		"KONG_PREFIX="+prefix, "KONG_DECLARATIVE_CONFIG="+file, "KONG_NGINX_HTTP_INCLUDE="+filepath.Join(deploy, "gatehouse.nginx.conf"),
		"KONG_PROXY_LISTEN="+listen, "KONG_ADMIN_LISTEN=off", "KONG_STATUS_LISTEN=off", "KONG_NGINX_WORKER_PROCESSES=1",
		"KONG_PROXY_ERROR_LOG=logs/error.log", "KONG_PLUGINSERVER_GATEHOUSE_SOCKET="+socket,
		"KONG_PLUGINSERVER_GATEHOUSE_START_CMD="+plugin+" -socket "+socket+" -log-level error -status "+status,
		"KONG_PLUGINSERVER_GATEHOUSE_QUERY_CMD="+plugin+" -dump -socket "+socket,
		"KONG_PLUGINSERVER_GATEHOUSE_OUTCOME_SOCKET="+socket, "KONG_PLUGINSERVER_GATEHOUSE_OUTCOME_QUERY_CMD="+plugin+" -dump -plugin gatehouse-outcome -socket "+socket,
	)
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		env = append(env, "KONG_NGINX_USER=root")
	}
	for name, value := range vault {
		env = append(env, strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
	}
	kong := func(args ...string) {
		cmd := exec.Command(command, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("kong %s: %v\n%s", args[0], err, out)
		}
	}
	kong("start", "--conf", filepath.Join(deploy, "kong.conf"))
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(prefix, "logs", "error.log")) // if it came that far
			t.Logf("Kong's log ends:\n%s", log[max(0, len(log)-8<<10):])
		}
		kong("stop", "--prefix", prefix)
	})
	await.That(t, "Kong listens", func() bool {
		conn, err := net.Dial("tcp", listen)
		if err == nil {
			_ = conn.Close() // only whether it opens was asked
		}
		return err == nil
	})
	return "http://" + listen
}
