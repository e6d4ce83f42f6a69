package kong

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Vault answers the value of {vault://env/name}.
type Vault func(name string) (value string, ok bool)

// Environment looks names up as Kong's vault env does: {vault://env/gatehouse-redis-url} is the variable GATEHOUSE_REDIS_URL.
func Environment(lookup func(variable string) (string, bool)) Vault {
	return func(name string) (string, bool) { return lookup(strings.ToUpper(strings.ReplaceAll(name, "-", "_"))) }
}

// ReadConfig reads a configuration as kong.yml has it, where no Kong has filled defaults and asked the vault. Errors name the
// field's path and never its value.
func ReadConfig(given map[string]any, vault Vault) (guard.Config, error) {
	text, err := json.Marshal(given) // YAML's types become JSON's
	if err != nil {
		return guard.Config{}, fmt.Errorf("config: %w", err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		return guard.Config{}, fmt.Errorf("config: %w", err)
	}
	fields := Schema()["fields"].([]object)
	if plain, err = resolve("config", fields[len(fields)-1]["config"].(object), plain, vault); err != nil {
		return guard.Config{}, err
	}
	if text, err = json.Marshal(plain); err != nil {
		return guard.Config{}, fmt.Errorf("config: %w", err)
	}
	return ParseConfig(text)
}

// resolve answers v with the references in it replaced. What does not fit the schema stays as it is, for ParseConfig to refuse.
func resolve(path string, f object, v any, vault Vault) (any, error) {
	switch v := v.(type) {
	case string:
		return fromVault(path, f, v, vault)
	case []any:
		element, ok := f["elements"].(object)
		for i := range v {
			if !ok {
				break
			}
			var err error
			if v[i], err = resolve(fmt.Sprintf("%s[%d]", path, i+1), element, v[i], vault); err != nil {
				return nil, err
			}
		}
	case object:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			field, ok := f["values"].(object)
			if !ok {
				if field, ok = fieldOf(f, name); !ok {
					continue
				}
			}
			var err error
			if v[name], err = resolve(path+"."+name, field, v[name], vault); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func fieldOf(record object, name string) (object, bool) {
	entries, _ := record["fields"].([]object)
	for _, entry := range entries {
		if f, ok := entry[name].(object); ok {
			return f, true
		}
	}
	return nil, false
}

func fromVault(path string, f object, text string, vault Vault) (any, error) {
	if f["referenceable"] != true || !strings.HasPrefix(text, "{vault://") {
		return text, nil
	}
	name, ok := strings.CutPrefix(text, "{vault://env/")
	if name, closed := strings.CutSuffix(name, "}"); ok && closed {
		if value, known := vault(name); known && value != "" {
			return value, nil
		}
	}
	return nil, fmt.Errorf("%s: nothing is known as %s; only the vault env is read here", path, text)
}
