package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gatehouse-auth/gatehouse/dev/stack"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
)

// options are the flags of serve and demo. Each flag has an environment variable, which a flag overrides.
type options struct {
	stack.Options
	pluginProcess bool
}

// listeners are the flags that name addresses, with their ports by default.
func listeners(a *stack.Addresses) []struct {
	flag, variable, port, what string
	to                         *string
} {
	return []struct {
		flag, variable, port, what string
		to                         *string
	}{
		{"gateway", "GATEHOUSE_DEV_GATEWAY", "8000", "the gateway", &a.Gateway},
		{"authsvc", "GATEHOUSE_DEV_AUTHSVC", "8081", "authsvc", &a.Authsvc},
		{"admin", "GATEHOUSE_DEV_ADMIN", "8083", "authsvc for admins", &a.Admin},
		{"pdp", "GATEHOUSE_DEV_PDP", "8181", "the decision point", &a.PDP},
		{"mailbox", "GATEHOUSE_DEV_MAILBOX", "8025", "the mailbox", &a.Mailbox},
		{"orders-1", "GATEHOUSE_DEV_ORDERS_1", "9000", "the first copy of orders", &a.Orders1},
		{"orders-2", "GATEHOUSE_DEV_ORDERS_2", "9001", "the second copy of orders", &a.Orders2},
		{"status", "GATEHOUSE_DEV_STATUS", "8100", "the plugin's /healthz and /readyz", &a.Status},
	}
}

// readOptions parses the flags of a command. With free, every address is by default any free port.
func readOptions(name string, free bool, args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("gatehouse-dev "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	env := func(variable, absent string) string { return cmp.Or(getenv(variable), absent) }
	for _, l := range listeners(&o.Listen) {
		if free {
			l.port = "0"
		}
		flags.StringVar(l.to, l.flag, env(l.variable, l.port), "port or host:port of "+l.what+"; 0 is any free one ($"+l.variable+")")
	}
	flags.StringVar(&o.KongFile, "kong", env("GATEHOUSE_DEV_KONG", "kong.yml"), "what the gateway guards, and how ($GATEHOUSE_DEV_KONG)")
	flags.StringVar(&o.PolicyDir, "policies", env("GATEHOUSE_DEV_POLICIES", "policies"), "folder of policies; empty for those built in ($GATEHOUSE_DEV_POLICIES)")
	flags.StringVar(&o.DecisionLog, "decision-log", getenv("GATEHOUSE_DEV_DECISION_LOG"), "file that says how the decision point records decisions ($GATEHOUSE_DEV_DECISION_LOG)")
	flags.StringVar(&o.DatabaseURL, "database", getenv("GATEHOUSE_DEV_DATABASE_URL"), "postgres://… instead of an SQLite file in the data directory ($GATEHOUSE_DEV_DATABASE_URL)")
	flags.StringVar(&o.RedisURL, "redis", getenv("GATEHOUSE_DEV_REDIS_URL"), "redis://… instead of the embedded one ($GATEHOUSE_DEV_REDIS_URL)")
	flags.StringVar(&o.Traces, "traces", env("GATEHOUSE_DEV_TRACES", tracing.None), "where spans go by OTLP over HTTP: none, otlp (OTEL_EXPORTER_OTLP_ENDPOINT), or a URL such as http://localhost:4318 ($GATEHOUSE_DEV_TRACES)")
	flags.BoolVar(&o.pluginProcess, "plugin-process", getenv("GATEHOUSE_DEV_PLUGIN_PROCESS") != "", "run the built gatehouse-plugin as a child, as Kong does ($GATEHOUSE_DEV_PLUGIN_PROCESS)")
	plugin := flags.String("plugin", getenv("GATEHOUSE_DEV_PLUGIN"), "the built gatehouse-plugin; by default beside this program ($GATEHOUSE_DEV_PLUGIN)")
	if !free {
		flags.StringVar(&o.DataDir, "data", env("GATEHOUSE_DEV_DATA", ".gatehouse"), "data directory ($GATEHOUSE_DEV_DATA)")
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%s takes flags only", name)
	}
	for _, l := range listeners(&o.Listen) {
		var err error
		if *l.to, err = address(*l.to); err != nil {
			return o, fmt.Errorf("-%s: %w", l.flag, err)
		}
	}
	if o.pluginProcess {
		var err error
		if o.Plugin, err = pluginBinary(*plugin); err != nil {
			return o, err
		}
	}
	return o, nil
}

// address reads a port, which is one of 127.0.0.1, or host:port.
func address(s string) (string, error) {
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return net.JoinHostPort("127.0.0.1", s), nil
	}
	host, port, err := net.SplitHostPort(s)
	if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || host == "" {
		return "", errors.New("expected a port or host:port")
	}
	return s, nil
}

func pluginBinary(path string) (string, error) {
	if path == "" {
		own, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find gatehouse-plugin: %w", err)
		}
		path = filepath.Join(filepath.Dir(own), "gatehouse-plugin")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("gatehouse-plugin is built by `make build`: %w", err)
	}
	return path, nil
}
