package kong

import (
	"encoding/json"
	"io"
	"slices"
)

// What Kong is told of the plugin. Priority 1500 runs it before every bundled authentication and rate limit (jwt 1450) and
// after cors (2000), which answers preflights.
const (
	Name     = "gatehouse"
	Version  = "0.1.0"
	Priority = 1500
)

type object = map[string]any

// Dump writes what Kong's query command expects: one JSON object. It needs neither network nor socket.
func Dump(w io.Writer, socket string) error {
	return dump(w, socket, object{"Name": Name, "Version": Version, "Priority": Priority, "Phases": []string{"access"}, "Schema": Schema()})
}

func dump(w io.Writer, socket string, plugin object) error {
	return json.NewEncoder(w).Encode(object{"Protocol": "ProtoBuf:1", "SocketPath": socket, "Plugins": []object{plugin}})
}

// Schema is the configuration's schema in Kong's own form, by hand: reflection could say neither defaults nor bounds. The
// fields of each stage are in a file of its own, beside what reads them.
func Schema() object {
	return schema(Name, record(slices.Concat(
		[]object{field("mode", oneOf("enforce", "enforce", "observe"), "what a denial does: stop the request, or only be logged")},
		identifyFields(), dpopFields(), browserFields(), aliveFields(), limitFields(), challengeFields(), authorizeFields(), forwardFields(),
		[]object{field("redis_url", object{"type": "string", "referenceable": true, "encrypted": true}, "for revocations, limits, challenges and proofs of possession")},
	)...))
}

// schema has the fields that every plugin has, and the configuration last.
func schema(name string, config object) object {
	return object{"name": name, "fields": []object{
		{"consumer": object{"type": "foreign", "reference": "consumers", "eq": nil}},
		{"protocols": object{"type": "set", "default": []string{"http", "https"}, "elements": object{"type": "string", "one_of": []string{"http", "https"}}}},
		{"config": config},
	}}
}

func field(name string, f object, description string) object {
	f["description"] = description
	return object{name: f}
}

func record(fields ...object) object {
	return object{"type": "record", "required": true, "fields": fields}
}

func array(element object) object {
	delete(element, "required")
	return object{"type": "array", "default": []any{}, "elements": element}
}

// texts is a map from text to the given kind of text.
func texts(f object) object {
	f["type"] = "string"
	return object{"type": "map", "default": object{}, "keys": object{"type": "string"}, "values": f}
}

func oneOf(def string, values ...string) object {
	return object{"type": "string", "default": def, "one_of": values}
}

func integer(def, low, high int) object {
	return object{"type": "integer", "default": def, "between": []int{low, high}}
}

func reference(f object) object {
	f["type"], f["referenceable"] = "string", true
	return f
}
