// Package authzen holds the contract between a policy enforcement point and a policy decision point: the types of the
// OpenID AuthZEN Authorization API 1.0 (access evaluation, evaluations and searches), with the members that Gatehouse adds to the answer's context,
// and a client. It needs the standard library only, so that the edge stays small.
//
// # What an answer may be used for again
//
// A decision point may add context.cache, with context.revision and, where it consulted a directory of subjects,
// context.directory_revision:
//
//	"context": {
//	  "revision": "p-17", "directory_revision": "d-4711",
//	  "cache": {"ttl_ms": 800, "vary": ["/subject/properties/roles", "/action/name", "/resource/type"]}
//	}
//
// It says: for ttl_ms milliseconds from when this question was asked, and as long as both revisions stand, every request that
// has the same values at all pointers of vary has this same answer, reasons, need and obligations included. vary lists what the
// policy looked at on its way to this answer, absent members too, as JSON Pointers (RFC 6901) into the evaluation request; a
// pointer to an object or array stands for all of it.
//
// What a decision depends on besides the request is the decision point's to answer for: time and looked-up properties by a
// ttl_ms that is short enough, or by leaving cache out; the policy and the directory by changing their revision, which is an
// opaque word. An enforcement point drops all it keeps as soon as an answer bears other revisions than the one before. It keeps
// nothing where cache is missing, ttl_ms is not above zero, vary is empty or holds what is no pointer, or revision is missing,
// and it may keep less, and for a shorter time, than it was allowed to.
//
// # Obligations
//
// An allowance may oblige the enforcement point: obligations.upstream_headers and obligations.response_headers are objects of
// header names and texts, set on the request to the upstream and on the answer to the client. The enforcement point refuses the
// request if it cannot do what an obligation says, or does not know it.
package authzen

// Path is the access evaluation endpoint.
const Path = "/access/v1/evaluation"

// BatchPath is the access evaluations endpoint, for several evaluations in one request.
const BatchPath = "/access/v1/evaluations"

// Semantic says when a decision point stops within a batch.
type Semantic string

// The semantics. The first is what a batch without one has.
const (
	ExecuteAll          Semantic = "execute_all"
	DenyOnFirstDeny     Semantic = "deny_on_first_deny"     // stops behind the first denial or failure
	PermitOnFirstPermit Semantic = "permit_on_first_permit" // stops behind the first allowance
)

// Outcome is a decision in XACML's terms. Only Permit lets anything pass; the others are denials that have different causes.
type Outcome string

// The outcomes.
const (
	Permit        Outcome = "permit"
	Deny          Outcome = "deny"           // a rule says no
	NotApplicable Outcome = "not_applicable" // no rule covers what is asked
	Indeterminate Outcome = "indeterminate"  // the policy, or a look-up that it needs, failed
)

// Subject is who asks.
type Subject struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Action is what is to be done.
type Action struct {
	Name       string         `json:"name"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Resource is what it is to be done to.
type Resource struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Request is one access evaluation.
type Request struct {
	Subject  Subject        `json:"subject"`
	Action   Action         `json:"action"`
	Resource Resource       `json:"resource"`
	Context  map[string]any `json:"context,omitempty"`
}

// Response is the decision. An HTTP error means that no decision was made; it is never a denial.
type Response struct {
	Decision bool             `json:"decision"`
	Context  *ResponseContext `json:"context,omitempty"`
}

// BatchRequest is several access evaluations that have all but the resource in common.
type BatchRequest struct {
	Subject     Subject        `json:"subject"`
	Action      Action         `json:"action"`
	Context     map[string]any `json:"context,omitempty"`
	Evaluations []On           `json:"evaluations"`
	Options     Options        `json:"options"`
}

// On is one evaluation of a batch.
type On struct {
	Resource Resource `json:"resource"`
}

// Options of a batch.
type Options struct {
	Semantic Semantic `json:"evaluations_semantic,omitempty"`
}

// BatchResponse is the decisions of a batch, in the order of its evaluations. Where the semantic stopped early it is shorter.
type BatchResponse struct {
	Evaluations []Response `json:"evaluations"`
}

// Error is why one evaluation of a batch could not be made, which denies it.
type Error struct {
	Status  int    `json:"status"` // the HTTP status that the evaluation would have had alone
	Code    string `json:"code"`   // the code of the problem document that it would have had alone
	Message string `json:"message"`
}

// ResponseContext says why, and on what ground.
type ResponseContext struct {
	Outcome     Outcome        `json:"outcome,omitempty"`
	Reasons     []string       `json:"reasons,omitempty"`     // stable snake_case words of the policy
	Rules       []string       `json:"rules,omitempty"`       // of a denial: ids of the rules that it came to be by; never for the client
	Need        *Need          `json:"need,omitempty"`        // what would change the answer
	Revision    string         `json:"revision,omitempty"`    // of the policy; opaque
	DecisionID  string         `json:"decision_id,omitempty"` // UUIDv7; the decision log's key
	Obligations map[string]any `json:"obligations,omitempty"` // see the package's documentation

	Error *Error `json:"error,omitempty"` // in a batch: why there is no decision

	DirectoryRevision string `json:"directory_revision,omitempty"` // of what is known of subjects; opaque
	Cache             *Cache `json:"cache,omitempty"`              // nil: the answer is for this request alone; not to be changed

	// How the decision came about, for the decision point's log alone.
	EvaluatedBy string         `json:"-"` // such as topdown
	Subject     map[string]any `json:"-"` // the subject's properties as the policy saw them, where a directory had a part in them; not to be changed
	LookedUp    map[string]any `json:"-"` // what the policy was told of the resource by a look-up; not to be changed
}

// Cache says for which other requests, and for how long, an answer holds; see the package's documentation.
type Cache struct {
	TTL  int      `json:"ttl_ms"` // milliseconds from when the question was asked
	Vary []string `json:"vary"`   // JSON Pointers (RFC 6901) into the evaluation request
}

// The obligations that enforcement points of Gatehouse know.
const (
	UpstreamHeaders = "upstream_headers"
	ResponseHeaders = "response_headers"
)

// Need is a stronger or fresher authentication that the policy asks for (RFC 9470).
type Need struct {
	ACR    string `json:"acr,omitempty"`
	MaxAge int    `json:"max_age,omitempty"` // seconds
}
