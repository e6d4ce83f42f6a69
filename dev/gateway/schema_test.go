package gateway

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func refusal(config string) error {
	_, err := New(context.Background(), Options{
		Config: []byte(config), Vault: map[string]string{"here": "http://idp"},
		Plugin: PluginServer{Describe: func(w io.Writer) error { _, err := io.WriteString(w, testSchema); return err }},
		Log:    slog.New(slog.DiscardHandler),
	})
	return err
}

func TestBadConfigurationIsRefusedByPath(t *testing.T) {
	t.Parallel()
	plugin := func(config string) string {
		return "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://h:1\n  routes:\n  - name: r\n    paths: [/r]\n    plugins: [{name: gatehouse, config: " + config + "}]\n"
	}
	const at = "services[0].routes[0].plugins[0]."
	for _, c := range []struct{ config, want string }{
		{plugin(`{nonsense: 1}`), at + "config.nonsense: unknown field"},
		{plugin(`{mode: maybe}`), at + "config.mode: expected one of: enforce, observe"},
		{plugin(`{mode: 3}`), at + "config.mode: expected a string"},
		{plugin(`{skew: 61}`), at + "config.skew: value should be between 0 and 60"},
		{plugin(`{skew: 1.5}`), at + "config.skew: expected an integer"},
		{plugin(`{url: "ftp://x"}`), at + "config.url: invalid value: does not match ^https?://"},
		{plugin(`{url: "{vault://env/absent}"}`), at + "config.url: nothing is known as {vault://env/absent}"},
		{plugin(`{limits: [{key: ip, rate: 60-M}, {key: planet}]}`), at + "config.limits[2].key: expected one of: ip, subject"},
		{plugin(`{limits: [{rate: 60-M}]}`), at + "config.limits[1].key: required field missing"},
		{plugin(`{limits: [{key: ip, rate: 60/minute}]}`), at + "config.limits[1].rate: invalid value: does not match"},
		{plugin(`{limits: [{key: ip, rat: 1}]}`), at + "config.limits[1].rat: unknown field"},
		{plugin(`{pdp: {timeout_ms: soon}}`), at + "config.pdp.timeout_ms: expected an integer"},
		{"_format_version: \"2.1\"", "_format_version"},
		{"_format_version: \"3.0\"\nconsumers: []", "consumers"},
		{"_format_version: \"3.0\"\nplugins: [{name: gatehouse, route: typo}]", "plugins[0].route: no route of this name"},
		{"_format_version: \"3.0\"\nplugins: [{name: other}]", `plugins[0].name: plugin "other" not enabled`},
		{strings.Replace(plugin(`{}`), "[/r]", "[r]", 1), "route r: paths[0]"},
	} {
		if err := refusal(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s\nfor %s", err, c.want, c.config)
		}
	}
	if err := refusal(plugin(`{mode: observe, url: "{vault://env/here}", tags: [a, a], tiers: {x: y}}`)); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
}

func TestLuaPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"^%d+%-[SMHD]$", "60-M", true},
		{"^%d+%-[SMHD]$", "60-MM", false},
		{"^%d+%-[SMHD]$", "-M", false},
		{"^https?://", "http://x", true},
		{"^https?://", "https://x", true},
		{"^https?://", "xhttp://x", false},
		{"b", "abc", true},
		{"^/[^/]*$", "/orders", true},
		{"^/[^/]*$", "/orders/1", false},
		{"^[%w_]+$", "a_1", true},
		{"^[%w_]+$", "a-1", false},
		{"^[a-f%]]-x$", "ab]x", true},
		{"^%S+$", "a b", false},
		{"a.c", "abc", true},
		{"^$", "", true},
	} {
		if got, err := luaMatch(c.pattern, c.text); err != nil || got != c.want {
			t.Errorf("%q on %q: %v %v", c.pattern, c.text, got, err)
		}
	}
	for _, bad := range []string{"(a)", "%b()", "[a", "%"} {
		if _, err := luaMatch(bad, "a"); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzLuaPatternNeverPanics(f *testing.F) {
	f.Add("^%d+%-[SMHD]$", "60-M")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) < 20 && len(text) < 20 {
			_, _ = luaMatch(pattern, text)
		}
	})
}

func FuzzFramesAreBounded(f *testing.F) {
	f.Add([]byte("\x03\x00\x00\x00abc"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if body, err := readFrame(strings.NewReader(string(in))); err == nil && len(body) > len(in) {
			t.Error("more than was sent")
		}
	})
}
