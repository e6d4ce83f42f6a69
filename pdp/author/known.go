package author

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// mostShown is how many subjects of a directory stand beside the policy's data for those who look for words there.
const mostShown = 200

// ReadDirectory reads a file as a decision point does whose PDP_DIRECTORY_URL names it.
func ReadDirectory(name string) (*directory.View, error) {
	v, err := directory.ReadFile(name, directory.Limits{})
	if err != nil {
		if line, what, ok := strings.Cut(err.Error(), ": "); ok && strings.HasPrefix(line, "line ") {
			return nil, fmt.Errorf("%s:%s: %s", name, strings.TrimPrefix(line, "line "), what)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// Know has the rules read a directory as data.directory, in place of what the policy's own data says there.
func (p *Policy) Know(v *directory.View) error {
	subjects, roles := map[string]any{}, map[string]any{}
	for id, e := range v.All() {
		if len(subjects) == mostShown {
			break
		}
		facts := e.Facts("", time.Now())
		subjects[id] = map[string]any{"roles": facts.Roles, "groups": facts.Groups, "tenant": facts.Tenant, "attributes": e.Attributes()}
	}
	for name, role := range v.Roles().All() {
		roles[name] = role
	}
	text, err := json.Marshal(map[string]any{"subjects": subjects, "roles": roles})
	if err != nil {
		return err
	}
	var plain map[string]any
	if err := json.Unmarshal(text, &plain); err != nil {
		return err
	}
	p.known, p.Data = v, maps.Clone(p.Data)
	p.Data["directory"] = plain
	return nil
}

// Asked is a request as a decision point with this directory decides it: its subject has what the directory says of it.
func (p *Policy) Asked(r authzen.Request, now time.Time) authzen.Request {
	if p.known != nil {
		r.Subject = engine.SubjectOf(directory.Fixed(p.known, directory.Options{}), r.Subject, now)
	}
	return r
}
