package golden

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
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
	tables, err := yamldoc.Decode(file, text, &known)
	if err != nil {
		return nil, cmp.Or(untimely(file, text), err)
	}
	var all []Case
	var errs []error
	for _, table := range tables {
		cells, err := known[table.Key.Value].expand(file, table)
		all, errs = append(all, cells...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (m matrix) expand(file string, table yamldoc.Entry) (all []Case, err error) {
	var errs []error
	fail := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d: %s: %s", file, n.Line, table.Key.Value, fmt.Sprintf(format, args...)))
	}
	columns := yamldoc.Entries(yamldoc.Member(table.Value, "when"))
	people := yamldoc.Entries(yamldoc.Member(table.Value, "who"))
	if len(columns) == 0 || len(people) == 0 || len(m.Decisions) == 0 {
		fail(table.Key, "a matrix needs who, when and decisions")
	}
	for _, route := range yamldoc.Entries(yamldoc.Member(table.Value, "decisions")) {
		rows := map[string]yamldoc.Entry{}
		for _, row := range yamldoc.Entries(route.Value) {
			rows[row.Key.Value] = row
			if _, ok := m.Who[row.Key.Value]; !ok {
				fail(row.Key, "%s is not among who", row.Key.Value)
			}
		}
		for _, who := range people {
			row, ok := rows[who.Key.Value]
			if !ok {
				fail(route.Key, "%s says nothing of %s", route.Key.Value, who.Key.Value)
				continue
			}
			cells := yamldoc.Meant(row.Value).Content
			if len(cells) != len(columns) {
				fail(row.Key, "%d decisions for the %d conditions of when", len(cells), len(columns))
				continue
			}
			for i, cell := range cells {
				if cell = yamldoc.Meant(cell); cell.Value == "-" {
					continue
				}
				when := columns[i].Key.Value
				c := m.cell(m.Who[who.Key.Value], m.When[when], cell.Value)
				c.Title = strings.Join([]string{table.Key.Value, who.Key.Value, route.Key.Value, when}, ", ")
				c.File, c.Line, c.Asks = file, cell.Line, route.Key.Value
				if err := c.Complete(); err != nil {
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
