package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// config is all that gatehouse-pdp serve can be told.
type config struct {
	listen     string
	socketMode fs.FileMode
	status     string
	baseURL    string
	policies   string
	bundles    string
	services   map[string][]string
	tokenFiles map[string]string // by service
	skip       []string

	shadow      string
	shadowShare float64
	revisions   string
	control     string
	level       slog.Level
	directory   directory.Options

	decisionLog string
	traces      string

	tokens       string
	tls          caller.Files
	anyoneMayAsk bool
	dataPaths    []string
	searchers    []string

	envoyListen string
	envoy       server.EnvoyOptions

	maxBody       int64
	maxBatch      int
	maxConcurrent int

	native, partial bool
}

// otherInputs reports whether documents are asked for, by inputs that are not access evaluations.
func (c *config) otherInputs() bool { return len(c.dataPaths) > 0 || c.envoy.Document != "" }

// readConfig reads flags, and the environment for those that are not given.
func readConfig(args []string, getenv func(string) string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("gatehouse-pdp serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	text := func(name, variable, absent, about string) *string {
		return flags.String(name, env(getenv, variable, absent), about+" ($"+variable+")")
	}
	listen := text("listen", "PDP_LISTEN", "127.0.0.1:8181", "host:port or unix:///path")
	socketMode := text("socket-mode", "PDP_SOCKET_MODE", "0660", "permissions of the Unix socket: who may connect may ask")
	status := text("status", "PDP_STATUS", "127.0.0.1:8182", "private address of /healthz, /readyz and /metrics; none for none")
	baseURL := text("base-url", "PDP_BASE_URL", "", "https://… under which enforcement points know this server, for its metadata")
	policies := text("policies", "PDP_POLICIES", "", "folder of policies; without one, those built in")
	bundles := text("bundles", "PDP_BUNDLES", "", "file that says where policy bundles come from")
	services := text("services", "PDP_SERVICES", "", "where look-ups go: name=url|url,name=url")
	serviceTokens := text("service-tokens", "PDP_SERVICE_TOKENS", "", "files of the bearer tokens that services are shown: name=file,name=file")
	skip := text("skip-checks", "PDP_SKIP_CHECKS", "", "what is not asked of policies when they load, as golden,schema,budget")
	shadow := text("shadow-dir", "PDP_SHADOW_DIR", "", "folder of a candidate for the policies, which is compared with those in force")
	share := text("shadow-share", "PDP_SHADOW_SHARE", "0.1", "share of the requests that are compared, above 0 and at most 1")
	revisions := text("revisions", "PDP_REVISIONS", "", "folder that keeps policies, to promote a candidate and to roll back")
	control := text("control", "PDP_CONTROL", "", "Unix socket for gatehouse-pdp shadow, promote and rollback; its owner alone can open it")
	decisionLog := text("decision-log", "PDP_DECISION_LOG", "", "file that says how decisions are recorded; without one, denials are lines of the log")
	traces := text("traces", "PDP_TRACES", tracing.None, "where spans go by OTLP over HTTP: none, otlp (OTEL_EXPORTER_OTLP_ENDPOINT), or a URL such as http://collector:4318")
	tokens := text("tokens-file", "PDP_TOKENS_FILE", "", "file of callers that may ask, a name and a token per line")
	cert := text("tls-cert-file", "PDP_TLS_CERT_FILE", "", "PEM file of the server's certificate")
	key := text("tls-key-file", "PDP_TLS_KEY_FILE", "", "PEM file of its key")
	clientCA := text("tls-client-ca-file", "PDP_TLS_CLIENT_CA_FILE", "", "PEM file of the authorities of callers' certificates, which are then needed")
	anyone := text("anyone-may-ask", "PDP_ANYONE_MAY_ASK", "false", "true: serve beyond this machine without tokens or certificates of callers")
	dataPaths := text("data-paths", "PDP_DATA_PATHS", "", "documents that OPA's Data API answers, as orders/allow,kong; / for all; without any it is off")
	searchers := text("search-callers", "PDP_SEARCH_CALLERS", "", "names of callers that may use AuthZEN's searches, as auditor,admin-ui; * for all callers; without any they are off")
	envoyListen := text("envoy-listen", "PDP_ENVOY_LISTEN", "", "host:port or unix:///path where Envoy asks by gRPC (ext_authz); without one it does not")
	envoyResources := text("envoy-resources", "PDP_ENVOY_RESOURCES", "", "what Envoy's paths stand for, as /orders=order,/orders/{id}=order; without any, themselves")
	envoyClaims := text("envoy-claims", "PDP_ENVOY_CLAIMS", "", "filter/key of the verified claims among Envoy's metadata, as envoy.filters.http.jwt_authn/payload")
	envoyHeaders := text("envoy-headers", "PDP_ENVOY_HEADERS", "", "headers that obligations may set at Envoy, as X-Plan,X-Quota")
	envoyPath := text("envoy-path", "PDP_ENVOY_PATH", "", "document that answers Envoy as one of opa-envoy-plugin, as envoy/authz/allow; without one, access evaluations do")
	maxBody := text("max-body", "PDP_MAX_BODY", strconv.Itoa(server.DefaultMaxBody), "bytes of a body")
	maxBatch := text("max-batch", "PDP_MAX_BATCH", strconv.Itoa(server.DefaultMaxBatch), "evaluations in one request")
	maxConcurrent := text("max-concurrent", "PDP_MAX_CONCURRENT", strconv.Itoa(server.DefaultMaxConcurrent), "requests decided on at the same moment; more get 503")
	native := text("native", "PDP_NATIVE", "on", "off: never decide by native code, only by OPA")
	partial := text("partial-evaluation", "PDP_PARTIAL_EVALUATION", "on", "off: where OPA decides, never by partially evaluated rules")
	subjects := directoryFlags(text)
	flags.TextVar(&c.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, errors.New("serve takes flags only")
	}
	c.listen, c.status, c.baseURL, c.tokens = *listen, *status, *baseURL, *tokens
	c.policies, c.bundles = *policies, *bundles
	c.skip = strings.FieldsFunc(*skip, func(r rune) bool { return r == ',' || r == ' ' })
	c.tls = caller.Files{Cert: *cert, Key: *key, ClientCA: *clientCA}
	c.decisionLog, c.envoyListen, c.traces = *decisionLog, *envoyListen, *traces
	c.shadow, c.revisions, c.control = *shadow, *revisions, *control
	var errs []error
	fail := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	var err error
	if c.directory, err = subjects(); err != nil {
		errs = append(errs, err)
	}
	c.services, err = parseServices(*services)
	fail("services", err)
	c.tokenFiles, err = parseServiceTokens(*serviceTokens, c.services)
	fail("service-tokens", err)
	if c.shadowShare, err = strconv.ParseFloat(*share, 64); err != nil || !(c.shadowShare > 0 && c.shadowShare <= 1) {
		fail("shadow-share", errors.New("must be above 0 and at most 1"))
	}
	c.dataPaths, err = parsePaths(*dataPaths)
	fail("data-paths", err)
	c.envoy = server.EnvoyOptions{Claims: *envoyClaims, Headers: parseList(*envoyHeaders)}
	c.envoy.Resources, err = parseResources(*envoyResources)
	fail("envoy-resources", err)
	if *envoyPath != "" {
		one, err := parsePaths(*envoyPath)
		if err == nil && (len(one) != 1 || one[0] == "/") {
			err = errors.New("must be one path such as envoy/authz/allow")
		}
		fail("envoy-path", err)
		c.envoy.Document = strings.Trim(*envoyPath, "/ ")
	}
	c.searchers, err = parseCallers(*searchers)
	fail("search-callers", err)
	c.native, err = onOff(*native)
	fail("native", err)
	c.partial, err = onOff(*partial)
	fail("partial-evaluation", err)
	mode, err := strconv.ParseUint(*socketMode, 8, 9)
	if err != nil {
		fail("socket-mode", errors.New("must be octal permissions, as 0660"))
	}
	c.socketMode = fs.FileMode(mode)
	if c.anyoneMayAsk, err = strconv.ParseBool(*anyone); err != nil {
		fail("anyone-may-ask", errors.New("must be true or false"))
	}
	c.maxBody, err = number(*maxBody, 64<<20)
	fail("max-body", err)
	batch, err := number(*maxBatch, 10_000)
	fail("max-batch", err)
	concurrent, err := number(*maxConcurrent, 1_000_000)
	fail("max-concurrent", err)
	c.maxBatch, c.maxConcurrent = int(batch), int(concurrent)
	if u, err := url.Parse(c.baseURL); c.baseURL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "") {
		fail("base-url", errors.New("must be a URL without query and fragment"))
	}
	if len(c.searchers) > 0 && c.searchers[0] != server.AnyCaller && c.tokens == "" && c.tls.ClientCA == "" {
		fail("search-callers", errors.New("callers have names only with tokens-file or tls-client-ca-file"))
	}
	if (c.tls.Cert == "") != (c.tls.Key == "") || c.tls.ClientCA != "" && c.tls.Cert == "" {
		errs = append(errs, errors.New("tls-cert-file and tls-key-file belong together, and tls-client-ca-file needs both"))
	}
	return c, errors.Join(errs...)
}

func env(getenv func(string) string, name, absent string) string {
	if v := getenv(name); v != "" {
		return v
	}
	return absent
}

func onOff(text string) (bool, error) {
	switch text {
	case "on", "off":
		return text == "on", nil
	}
	return false, errors.New("must be on or off")
}

// number reads 1 to most.
func number(text string, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("must be a number from 1 to %d", most)
	}
	return n, nil
}

// parsePaths reads "orders/allow,kong".
func parsePaths(text string) ([]string, error) {
	var paths []string
	for p := range strings.SplitSeq(text, ",") {
		p = strings.TrimSpace(p)
		switch trimmed := strings.Trim(p, "/"); {
		case p == "":
			continue
		case strings.ContainsAny(p, ". \"[]%"), trimmed == "" && p != "/", strings.Contains(trimmed, "//"):
			return nil, errors.New("each must be a path such as orders/allow, or / for all of data")
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// parseCallers reads "auditor,admin-ui" or "*".
func parseCallers(text string) ([]string, error) {
	names := parseList(text)
	if len(names) > 1 && slices.Contains(names, server.AnyCaller) {
		return nil, errors.New("* stands for all callers, so it stands alone")
	}
	return names, nil
}

// parseResources reads "/orders=order,/orders/{id}=order".
func parseResources(text string) (all []server.EnvoyResource, err error) {
	for _, entry := range parseList(text) {
		pattern, kind, ok := strings.Cut(entry, "=")
		if !ok {
			return nil, errors.New("each must be pattern=type")
		}
		all = append(all, server.EnvoyResource{Pattern: pattern, Type: kind})
	}
	return all, nil
}

// parseList reads what commas part.
func parseList(text string) (all []string) {
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return all
}

// parseServices reads "orders=http://a:9000|http://b:9000,users=http://c".
func parseServices(text string) (map[string][]string, error) {
	known := map[string][]string{}
	for entry := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, urls, ok := strings.Cut(strings.TrimSpace(entry), "=")
		if !ok || name == "" || known[name] != nil {
			return nil, errors.New("each must be name=url|url, and be named once")
		}
		for base := range strings.SplitSeq(urls, "|") {
			u, err := url.Parse(base)
			if err != nil || u.Host == "" {
				return nil, fmt.Errorf("%s: not a URL", name)
			}
			known[name] = append(known[name], base)
		}
	}
	return known, nil
}

// parseServiceTokens reads "orders=/run/secrets/orders,users=/run/secrets/users". A token goes over TLS, or stays on this machine.
func parseServiceTokens(text string, services map[string][]string) (map[string]string, error) {
	files := map[string]string{}
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, file, ok := strings.Cut(entry, "=")
		if !ok || file == "" || services[name] == nil || files[name] != "" {
			return nil, errors.New("each must be name=file, of a service, and be named once")
		}
		for _, base := range services[name] {
			if u, err := url.Parse(base); err != nil || u.Scheme != "https" && !egress.IsLoopback(u.Hostname()) {
				return nil, fmt.Errorf("%s: its token would go over plain http to another machine", name)
			}
		}
		if _, err := web.ReadToken(file); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = file
	}
	return files, nil
}
