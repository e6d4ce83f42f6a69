package kong

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// bookkeeping is what Kong 3 adds to a plugin's configuration before it sends it, beside $refs. None of it is the plugin's.
var bookkeeping = []string{
	"__seq__", "__plugin_id", "__key__", "__ws_id", "route_id", "service_id", "consumer_id", "consumer_group_id", "plugin_instance_name", "ordering",
}

// ParseConfig reads the JSON that Kong sends with a new instance. It checks every value against Schema once more, and
// fills defaults, so that the schema is the one place where the configuration is described. Errors name the field's path
// and never its value.
func ParseConfig(data []byte) (guard.Config, error) {
	cfg, _, err := parse(data)
	return cfg, err
}

// parse answers besides the id of the one route that the plugin is configured for; "" if it may run for several.
func parse(data []byte) (guard.Config, string, error) {
	v, routeID, err := conformed(Schema(), data)
	if err != nil {
		return guard.Config{}, "", err
	}
	cfg, err := read(v)
	if err != nil {
		return guard.Config{}, "", err
	}
	return cfg, routeID, cfg.Validate()
}

// conformed answers what Kong sent, as the schema has it, and the id of the one route that it is for.
func conformed(schema object, data []byte) (v value, routeID string, err error) {
	var raw any
	if err := json.Unmarshal(data, &raw); err != nil {
		return value{}, "", errors.New("config: not JSON")
	}
	if m, ok := raw.(object); ok {
		routeID, _ = m["route_id"].(string)
		for _, name := range bookkeeping {
			delete(m, name)
		}
	}
	fields := schema["fields"].([]object)
	checked, err := conform("config", fields[len(fields)-1]["config"].(object), raw)
	return value{checked}, routeID, err
}

// conform answers v with defaults filled, or what is wrong with it. null is the same as unset.
func conform(path string, f object, v any) (any, error) {
	if v == nil {
		v = f["default"]
		if f["type"] == "record" {
			v = object{}
		}
	}
	if v == nil {
		if f["required"] == true {
			return nil, fmt.Errorf("%s: required field missing", path)
		}
		return nil, nil
	}
	switch f["type"] {
	case "record":
		return conformRecord(path, f, v)
	case "array":
		return conformArray(path, f, v)
	case "map":
		return conformMap(path, f, v)
	case "string":
		return v, conformString(path, f, v)
	case "integer":
		n, ok := number(v)
		if !ok || n != math.Trunc(n) {
			return nil, fmt.Errorf("%s: expected an integer", path)
		}
		if b, ok := f["between"].([]int); ok && (n < float64(b[0]) || n > float64(b[1])) {
			return nil, fmt.Errorf("%s: value should be between %d and %d", path, b[0], b[1])
		}
		return n, nil
	default:
		if _, ok := v.(bool); !ok {
			return nil, fmt.Errorf("%s: expected a boolean", path)
		}
		return v, nil
	}
}

func number(v any) (float64, bool) {
	if n, ok := v.(int); ok {
		return float64(n), true
	}
	n, ok := v.(float64)
	return n, ok
}

func conformRecord(path string, f object, v any) (any, error) {
	m, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("%s: expected a record", path)
	}
	out := object{}
	known := map[string]bool{"$refs": true} // Kong notes there which fields came from a vault
	for _, entry := range f["fields"].([]object) {
		for name, sub := range entry {
			known[name] = true
			checked, err := conform(path+"."+name, sub.(object), m[name])
			if err != nil {
				return nil, err
			}
			out[name] = checked
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !known[name] {
			return nil, fmt.Errorf("%s.%s: unknown field", path, name)
		}
	}
	return out, nil
}

func conformArray(path string, f object, v any) (any, error) {
	var in []any
	switch a := v.(type) {
	case []any:
		in = a
	case []string: // a default
		for _, s := range a {
			in = append(in, s)
		}
	case []int: // a default
		for _, n := range a {
			in = append(in, n)
		}
	case object: // Lua's empty table may arrive as an object
		if len(a) > 0 {
			return nil, fmt.Errorf("%s: expected an array", path)
		}
	default:
		return nil, fmt.Errorf("%s: expected an array", path)
	}
	if least, ok := f["len_min"].(int); ok && len(in) < least {
		return nil, fmt.Errorf("%s: length must be at least %d", path, least)
	}
	out := make([]any, len(in))
	for i, e := range in {
		var err error
		if out[i], err = conform(fmt.Sprintf("%s[%d]", path, i+1), f["elements"].(object), e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func conformMap(path string, f object, v any) (any, error) {
	m, ok := v.(object)
	if list, empty := v.([]any); empty && len(list) == 0 { // Lua's empty table may arrive as an array
		m, ok = object{}, true
	}
	if !ok {
		return nil, fmt.Errorf("%s: expected a map", path)
	}
	out := object{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if _, err := conform(path, f["keys"].(object), name); err != nil {
			return nil, err
		}
		checked, err := conform(path+"."+name, f["values"].(object), m[name])
		if err != nil {
			return nil, err
		}
		out[name] = checked
	}
	return out, nil
}

func conformString(path string, f object, v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s: expected a string", path)
	}
	if s == "" && f["required"] == true {
		return fmt.Errorf("%s: required field missing", path)
	}
	if choices, ok := f["one_of"].([]string); ok && !slices.Contains(choices, s) {
		return fmt.Errorf("%s: expected one of: %s", path, strings.Join(choices, ", "))
	}
	if p, ok := f["match"].(string); ok && !luaPattern(p).MatchString(s) {
		return fmt.Errorf("%s: invalid value", path)
	}
	if any, ok := f["match_any"].(object); ok && !slices.ContainsFunc(any["patterns"].([]string), func(p string) bool { return luaPattern(p).MatchString(s) }) {
		return fmt.Errorf("%s: %s", path, any["err"])
	}
	return nil
}

// luaPattern turns the few Lua pattern items that Schema uses into a regular expression.
func luaPattern(p string) *regexp.Regexp {
	return regexp.MustCompile(strings.NewReplacer("%d", "[0-9]", "%w", "A-Za-z0-9", "%-", `\-`, "%+", `\+`).Replace(p))
}

// value reads a configuration that has passed conform, so that its types are as the schema says.
type value struct{ v any }

func (v value) at(name string) value { return value{v.v.(object)[name]} }

func (v value) text() string {
	s, _ := v.v.(string)
	return s
}

func (v value) number() int64 {
	n, _ := v.v.(float64)
	return int64(n)
}

func (v value) list() []value {
	a, _ := v.v.([]any)
	out := make([]value, len(a))
	for i, e := range a {
		out[i] = value{e}
	}
	return out
}

func (v value) texts() []string {
	var out []string
	for _, e := range v.list() {
		out = append(out, e.text())
	}
	return out
}

// entries reads a map of texts.
func (v value) entries() map[string]string {
	m, _ := v.v.(object)
	out := make(map[string]string, len(m))
	for name, e := range m {
		out[name] = value{e}.text()
	}
	return out
}

// numbers reads a map of integers; nil if it is empty.
func (v value) numbers() map[string]int64 {
	m, _ := v.v.(object)
	var out map[string]int64
	for name, e := range m {
		if out == nil {
			out = map[string]int64{}
		}
		out[name] = value{e}.number()
	}
	return out
}

// flag reads a boolean.
func (v value) flag() bool { return v.v == true }

func read(v value) (guard.Config, error) {
	c := guard.Config{
		Mode:     guard.Mode(v.at("mode").text()),
		RedisURL: telemetry.Secret(v.at("redis_url").text()),
	}
	for _, part := range []func(value, *guard.Config) error{readIdentify, readDPoP, readBrowser, readAlive, readLimits, readChallenge, readAuthorize, readForward} {
		if err := part(v, &c); err != nil {
			return guard.Config{}, err
		}
	}
	return c, nil
}
