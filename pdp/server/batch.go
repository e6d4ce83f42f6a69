package server

import (
	"strconv"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// batch is several evaluations, with their defaults merged in.
type batch struct {
	requests []authzen.Request
	semantic authzen.Semantic
	single   bool // one evaluation, to be answered as such
}

// maxFieldErrors bounds how many mistakes of one batch are told.
const maxFieldErrors = 20

// parseBatch reads an access evaluations request as parse does a single one. A member of an evaluation replaces the default of
// its name as a whole. Without evaluations, the members at the top are a single request. An evaluation that lacks what it must
// have makes the whole request a bad one: AuthZEN wants a 400 for it, and nothing has been decided then.
func parseBatch(body []byte, most int) (batch, []web.FieldError, error) {
	root, err := readObject(body)
	if err != nil {
		return batch{}, nil, err
	}
	f := &form{}
	f.sameCase(root, "", append([]string{"evaluations", "options"}, requestMembers...)...)
	b := batch{semantic: f.semantic(root)}
	given, present := root["evaluations"]
	items, ok := given.([]any)
	switch {
	case present && !ok:
		f.fail("evaluations", "must be an array")
	case len(items) > most:
		return batch{}, nil, fault.New(fault.Invalid, "There are more evaluations than one request may have.").Named("batch_too_large")
	case len(items) == 0:
		b.single, b.requests = true, []authzen.Request{f.request(root, nil, "")}
	}
	for i, v := range items {
		at := "evaluations." + strconv.Itoa(i)
		item, ok := v.(map[string]any)
		if !ok {
			f.fail(at, "must be an object")
			continue
		}
		f.sameCase(item, at+".", requestMembers...)
		b.requests = append(b.requests, f.request(item, root, at+"."))
		if len(f.errors) > maxFieldErrors {
			break
		}
	}
	return b, f.errors, nil
}

// semantic reads options. Others than evaluations_semantic are not known here, and ignored as AuthZEN demands.
func (f *form) semantic(root map[string]any) authzen.Semantic {
	options, ok := f.object(root, "", "options", false)
	if !ok {
		return authzen.ExecuteAll
	}
	f.sameCase(options, "options.", "evaluations_semantic")
	v, present := options["evaluations_semantic"]
	if !present {
		return authzen.ExecuteAll
	}
	word, _ := v.(string)
	switch s := authzen.Semantic(word); s {
	case authzen.ExecuteAll, authzen.DenyOnFirstDeny, authzen.PermitOnFirstPermit:
		return s
	}
	f.fail("options.evaluations_semantic", "must be execute_all, deny_on_first_deny or permit_on_first_permit")
	return ""
}
