package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// decisionOf reads the policy's decision into about and answers whether it allows. It is strict: a misspelt member is an error,
// because a policy that says something which nobody understands has not decided.
func decisionOf(of said, about *authzen.ResponseContext) (allow bool, err error) {
	if !of.defined {
		return false, errors.New("decision is undefined")
	}
	decision, ok := of.value.(map[string]any)
	if !ok {
		return false, errors.New("decision is not an object")
	}
	if allow, ok = decision["allow"].(bool); !ok {
		return false, errors.New("decision.allow is not a boolean")
	}
	var reasons []string
	var need *authzen.Need
	var obligations map[string]any
	for name, v := range decision {
		switch name {
		case "allow":
		case "reasons":
			reasons, err = stringsOf(v)
		case "need":
			need, err = needOf(v)
		case "obligations":
			if obligations, ok = v.(map[string]any); !ok {
				err = errors.New("is not an object")
			}
		default:
			err = errors.New("is not known")
		}
		if err != nil {
			return false, fmt.Errorf("decision.%s %w", name, err)
		}
	}
	if allow && need != nil {
		return false, errors.New("decision allows and needs more at once")
	}
	about.Reasons, about.Need, about.Obligations = reasons, need, obligations
	return allow, nil
}

// decisionsOf reads decisions that are written out in rules, once.
func decisionsOf(constants []any) []*answer {
	all := make([]*answer, len(constants))
	for i, c := range constants {
		a := &answer{about: &authzen.ResponseContext{}}
		var err error
		if a.allow, err = decisionOf(said{value: c, defined: true}, a.about); err == nil {
			a.about.Outcome = authzen.OutcomeOf(a.allow, a.about.Reasons)
			all[i] = a
		}
	}
	return all
}

func stringsOf(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, errors.New("is not an array or set")
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			return nil, errors.New("holds something other than strings")
		}
	}
	return out, nil
}

func needOf(v any) (*authzen.Need, error) {
	object, ok := v.(map[string]any)
	if !ok || len(object) == 0 {
		return nil, errors.New("is not an object with acr or max_age")
	}
	need := &authzen.Need{}
	for name, v := range object {
		switch name {
		case "acr":
			if need.ACR, ok = v.(string); !ok || need.ACR == "" {
				return nil, errors.New("has an acr that is not a string")
			}
		case "max_age":
			n, _ := v.(json.Number)
			seconds, err := strconv.Atoi(n.String())
			if err != nil || seconds <= 0 {
				return nil, errors.New("has a max_age that is not a positive number of seconds")
			}
			need.MaxAge = seconds
		default:
			return nil, errors.New("has an unknown member")
		}
	}
	return need, nil
}
