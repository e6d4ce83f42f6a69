package author

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// matrix is a table of who × route × condition:
//
//	who reads an order:
//	  type: order
//	  who:
//	    customer: {id: alice, roles: [customer]}
//	    clerk: {id: clara, roles: [clerk], department: sales}
//	  when:
//	    own: {known: {owner: "{who.id}"}}
//	    another's: {known: {owner: bob}}
//	  decisions:
//	    GET /orders/17: #  own    another's
//	      customer:       [allow, deny not_owner]
//	      clerk:          [allow, deny not_in_department not_owner]
//
// A cell is the decision and, where they matter, its reasons in order; "-" is a combination that says nothing. Every who has a
// line under every route, and every line a cell for every condition: what nobody thought of is seen.
type matrix struct {
	Type       string
	Collection bool // see Case
	Who        map[string]Who
	When       map[string]condition
	Decisions  map[string]map[string][]string // route → who → cells in the order of when
}

// condition is what a column assumes. {who.id}, {who.department} and {who.tenant} in known stand for the row's own.
type condition struct {
	Known   map[string]any
	At      time.Time
	From    string
	Context map[string]any
}

func parseMatrix(file string, text []byte) ([]Case, error) {
	known := map[string]matrix{}
	tables, err := decode(file, text, &known)
	if err != nil {
		return nil, err
	}
	var all []Case
	var errs []error
	for _, table := range tables {
		cells, err := known[table.key.Value].expand(file, table)
		all, errs = append(all, cells...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// member finds a mapping's value; nil where there is none.
func member(n *yaml.Node, name string) *yaml.Node {
	for _, e := range entries(n) {
		if e.key.Value == name {
			return e.value
		}
	}
	return nil
}

func (m matrix) expand(file string, table entry) (all []Case, err error) {
	var errs []error
	fail := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d: %s: %s", file, n.Line, table.key.Value, fmt.Sprintf(format, args...)))
	}
	columns := entries(member(table.value, "when"))
	people := entries(member(table.value, "who"))
	if len(columns) == 0 || len(people) == 0 || len(m.Decisions) == 0 {
		fail(table.key, "a matrix needs who, when and decisions")
	}
	for _, route := range entries(member(table.value, "decisions")) {
		rows := map[string]entry{}
		for _, row := range entries(route.value) {
			rows[row.key.Value] = row
			if _, ok := m.Who[row.key.Value]; !ok {
				fail(row.key, "%s is not among who", row.key.Value)
			}
		}
		for _, who := range people {
			row, ok := rows[who.key.Value]
			if !ok {
				fail(route.key, "%s says nothing of %s", route.key.Value, who.key.Value)
				continue
			}
			cells := meant(row.value).Content
			if len(cells) != len(columns) {
				fail(row.key, "%d decisions for the %d conditions of when", len(cells), len(columns))
				continue
			}
			for i, cell := range cells {
				if cell = meant(cell); cell.Value == "-" {
					continue
				}
				when := columns[i].key.Value
				c := m.cell(m.Who[who.key.Value], m.When[when], cell.Value)
				c.Title = strings.Join([]string{table.key.Value, who.key.Value, route.key.Value, when}, ", ")
				c.File, c.Line, c.Asks = file, cell.Line, route.key.Value
				if err := c.complete(); err != nil {
					fail(cell, "%v", err)
					continue
				}
				all = append(all, c)
			}
		}
	}
	return all, errors.Join(errs...)
}

func (m matrix) cell(who Who, when condition, text string) Case {
	c := Case{Type: m.Type, Collection: m.Collection, Who: who, At: when.At, From: when.From, Context: maps.Clone(when.Context)}
	if words := strings.Fields(text); len(words) > 0 { // else complete says that there is no decision
		c.Decision = words[0]
		c.Reasons = append(c.Reasons, words[1:]...)
	}
	if when.Known == nil {
		return c
	}
	own := strings.NewReplacer("{who.id}", who.ID, "{who.department}", who.Department, "{who.tenant}", who.Tenant)
	c.Known = make(map[string]any, len(when.Known))
	for name, v := range when.Known {
		if s, ok := v.(string); ok {
			if v = own.Replace(s); v == "" && s != "" {
				continue // who has none: nothing is known
			}
		}
		c.Known[name] = v
	}
	return c
}
