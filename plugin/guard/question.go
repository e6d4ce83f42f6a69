package guard

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// question is the state as the decision cache looks at it (decide.Question). It answers for the inputs that policies look at
// most without building the evaluation request; evaluation says what it has to agree with.
type question struct {
	*state
	target target // what is asked about: the request's own, or one of the objects that it names
	built  bool
	whole  authzen.Request // once it is built
}

// evaluation builds the request once, for whoever looks into it and for the decision point.
func (q *question) evaluation() authzen.Request {
	if !q.built {
		q.built, q.whole = true, q.evaluationOf(q.target)
	}
	return q.whole
}

// Kind implements decide.Question.
func (q *question) Kind() (action, resourceType string) { return q.action(), q.target.Type }

// Each value begins with its kind, and each text with its length, so that no two are alike. One pointer is always answered in
// the same way, so that texts need not look like their JSON.
const (
	absent = 'a'
	text   = 't'
	texts  = 'l'
	other  = 'j'
)

// Append implements decide.Question.
func (q *question) Append(dst []byte, pointer string) ([]byte, bool) {
	if rest, ok := strings.CutPrefix(pointer, "/subject/"); ok {
		return q.appendSubject(dst, pointer, rest)
	}
	switch pointer {
	case "/action/name":
		return appendText(dst, q.action()), true
	case "/resource/type":
		return appendText(dst, q.target.Type), true
	case "/resource/id":
		return appendText(dst, q.target.id()), true
	case "/resource/properties": // all of it follows from these
		return appendText(appendText(appendText(dst, q.target.path), q.Route), q.target.Pattern), true
	case "/resource/properties/path":
		return appendText(dst, q.target.path), true
	case "/resource/properties/route":
		return appendText(dst, q.Route), true
	case "/context/ip":
		return appendText(dst, q.Addr.Unmap().String()), true
	case "/context/user_agent":
		agent, _ := q.header("user-agent")
		return appendText(dst, agent), true
	case "/context/acr":
		return appendText(dst, q.who.ACR), true
	case "/context/auth_time":
		if q.who.AuthTime.IsZero() {
			return append(dst, absent), true
		}
		return appendText(dst, strconv.FormatInt(q.who.AuthTime.Unix(), 10)), true
	}
	if name, ok := leaf(pointer, "/resource/properties/params/"); ok {
		if v, given := q.target.param(name); given {
			return appendText(dst, v), true
		}
		return append(dst, absent), true
	}
	switch name, ok := leaf(pointer, "/resource/properties/"); {
	case !ok, name == "segments", name == "params":
		return q.appendAny(dst, pointer)
	default: // the edge sends no other
		return append(dst, absent), true
	}
}

func (q *question) appendSubject(dst []byte, pointer, rest string) ([]byte, bool) {
	if q.who.Anonymous() { // its few inputs are built in no time
		return q.appendAny(dst, pointer)
	}
	switch rest {
	case "type":
		return appendText(dst, "user"), true
	case "id":
		return appendText(dst, q.who.Subject), true
	case "properties/roles":
		return appendTexts(dst, q.who.Roles), true
	case "properties/groups":
		return appendTexts(dst, q.who.Groups), true
	case "properties/tenant":
		return appendText(dst, q.who.Tenant), true
	case "properties/session":
		return appendText(dst, q.who.SessionID), true
	case "properties/claims/iss":
		return appendText(dst, q.who.Issuer), true
	case "properties/claims/client_id":
		return appendText(dst, q.who.ClientID), true
	case "properties/claims/scope":
		return appendTexts(dst, q.who.Scope), true
	case "properties/claims/acr":
		return appendText(dst, q.who.ACR), true
	case "properties/claims/amr":
		return appendTexts(dst, q.who.AMR), true
	}
	if name, ok := leaf(rest, "properties/attributes/"); ok {
		v, given := q.who.Attributes[name]
		if !given {
			return append(dst, absent), true
		}
		return appendValue(dst, v)
	}
	return q.appendAny(dst, pointer)
}

// leaf answers the one plain token after the prefix.
func leaf(pointer, prefix string) (string, bool) {
	name, ok := strings.CutPrefix(pointer, prefix)
	return name, ok && !strings.ContainsAny(name, "/~")
}

// appendAny builds the whole evaluation request and looks there.
func (q *question) appendAny(dst []byte, pointer string) ([]byte, bool) {
	tokens, err := authzen.ParsePointer(pointer)
	if err != nil {
		return dst, false
	}
	v, found := q.evaluation().At(tokens)
	if !found {
		return append(dst, absent), true
	}
	return appendValue(dst, v)
}

func appendValue(dst []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case string:
		return appendText(dst, v), true
	case []string:
		return appendTexts(dst, v), true
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		return dst, false
	}
	dst = binary.AppendUvarint(append(dst, other), uint64(len(encoded)))
	return append(dst, encoded...), true
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(append(dst, text), uint64(len(s)))
	return append(dst, s...)
}

func appendTexts(dst []byte, list []string) []byte {
	dst = binary.AppendUvarint(append(dst, texts), uint64(len(list)))
	for _, s := range list {
		dst = appendText(dst, s)
	}
	return dst
}
