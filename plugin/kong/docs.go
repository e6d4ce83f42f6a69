package kong

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

const preamble = `# Configuration of the plugin

<!-- Written by "go run ./plugin -docs > docs/plugin.md" from the schema in plugin/kong. Do not edit: a test compares. -->

This is what a route's or service's ` + "`config`" + ` in ` + "`kong.yml`" + ` may say. Kong refuses what does not fit, by path and reason, and so does the
plugin; an unset field has its default. **v**: the value may be a reference to a vault, such as ` + "`{vault://env/gatehouse-redis-url}`" + `.
`

const outcomePreamble = `
# Configuration of the plugin gatehouse-outcome

It stands beside ` + "`gatehouse`" + ` on routes where people log in, runs when the client has its answer, and counts failed log-ins by it:
[operations.md](operations.md#failed-log-ins).
`

// Docs writes the schema as Markdown: each field with its type, its default, its bounds and what it is for.
func Docs(w io.Writer) error {
	out := bufio.NewWriter(w)
	if _, err := out.WriteString(preamble); err != nil {
		return err
	}
	fields := Schema()["fields"].([]object)
	config := fields[len(fields)-1]["config"].(object)
	if err := docRecord(out, "config", "", config); err != nil {
		return err
	}
	if _, err := out.WriteString(outcomePreamble); err != nil {
		return err
	}
	fields = OutcomeSchema()["fields"].([]object)
	if err := docRecord(out, "config of "+OutcomeName, "", fields[len(fields)-1]["config"].(object)); err != nil {
		return err
	}
	return out.Flush()
}

// docRecord writes a table of the record's fields, then one for each record among them.
func docRecord(out io.Writer, path, description string, record object) error {
	if _, err := fmt.Fprintf(out, "\n## `%s`\n\n", path); err != nil {
		return err
	}
	if description != "" {
		if _, err := fmt.Fprintf(out, "%s.\n\n", sentence(description)); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, "| field | type | default | what it is |\n|---|---|---|---|\n"); err != nil {
		return err
	}
	type below struct {
		path, description string
		record            object
	}
	var records []below
	for _, entry := range record["fields"].([]object) {
		for name, f := range entry {
			f, at := f.(object), path+"."+name
			description, _ := f["description"].(string)
			if _, err := fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", name, docType(f), docDefault(f), sentence(description)); err != nil {
				return err
			}
			switch inner, _ := f["elements"].(object); {
			case f["type"] == "record":
				records = append(records, below{at, description, f})
			case inner["type"] == "record":
				records = append(records, below{at + "[]", description, inner})
			}
		}
	}
	for _, r := range records {
		if err := docRecord(out, r.path, r.description, r.record); err != nil {
			return err
		}
	}
	return nil
}

func docType(f object) string {
	kind, _ := f["type"].(string)
	switch kind {
	case "array", "set":
		inner, _ := f["elements"].(object)
		kind = "list of " + docType(inner)
		if least, ok := f["len_min"].(int); ok {
			kind += fmt.Sprintf(", at least %d", least)
		}
	case "map":
		values, _ := f["values"].(object)
		kind = "map of " + docType(values)
	case "integer":
		if b, ok := f["between"].([]int); ok {
			kind = fmt.Sprintf("%d to %d", b[0], b[1])
		}
	case "string":
		if choices, ok := f["one_of"].([]string); ok {
			kind = "`" + strings.Join(choices, "`, `") + "`"
		} else if m, ok := f["match"].(string); ok {
			kind = "text, matching `" + luaPattern(m).String() + "`"
		} else {
			kind = "text"
		}
	}
	if f["referenceable"] == true {
		kind += " **v**"
	}
	return strings.ReplaceAll(kind, "|", `\|`)
}

func docDefault(f object) string {
	switch d := f["default"].(type) {
	case nil:
		if f["required"] == true && f["type"] != "record" {
			return "required"
		}
		return ""
	case []any:
		if len(d) == 0 {
			return "none"
		}
		return fmt.Sprintf("`%v`", d)
	case []int:
		return strings.ReplaceAll(fmt.Sprintf("`%v`", d), " ", ", ")
	case []string:
		if len(d) == 0 {
			return "none"
		}
		return "`[" + strings.Join(d, ", ") + "]`"
	case object:
		if len(d) == 0 {
			return "none"
		}
		var members []string
		for _, name := range slices.Sorted(maps.Keys(d)) {
			members = append(members, fmt.Sprintf("%s: %v", name, d[name]))
		}
		return "`{" + strings.Join(members, ", ") + "}`"
	default:
		return fmt.Sprintf("`%v`", d)
	}
}

// sentence begins the description with a capital and keeps it from ending the table's cell.
func sentence(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if first != "" && !strings.ContainsAny(first, ":/_") { // a URL or a name stays as it is
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	return strings.ReplaceAll(s, "|", `\|`)
}
