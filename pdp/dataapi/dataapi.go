// Package dataapi holds the contract of OPA's Data API as the decision point serves it, read-only: what is asked, what is
// answered, and errors in OPA's shape. It needs the standard library only.
package dataapi

// Prefix is the path below which data has its documents.
const Prefix = "/v1/data"

// PlainPrefix is the same of the older API, in which the body is the input and the answer the value, each as a whole.
const PlainPrefix = "/v0/data"

// Question asks for one document.
type Question struct {
	Path     []string // unescaped; none is data as a whole
	Input    any      // as encoding/json decodes it, numbers as json.Number
	HasInput bool     // without it, input is undefined in the rules
}

// Document is the value at a path, for an input.
type Document struct {
	Value      any
	Defined    bool
	DecisionID string // UUIDv7
	Revision   string // of the policies

	// For the decision point's log.
	EvaluatedBy       string   // such as topdown
	Rules             []string // ids of the rules that made it false; nil for other values
	DirectoryRevision string   // of what is known of subjects
}

// Response is the body of a 200. An undefined document has no result.
type Response struct {
	DecisionID string           `json:"decision_id,omitempty"`
	Provenance *Provenance      `json:"provenance,omitempty"`
	Metrics    map[string]int64 `json:"metrics,omitempty"` // nanoseconds
	Result     *any             `json:"result,omitempty"`
	Warning    *Warning         `json:"warning,omitempty"`
}

// Provenance says what answered. OPA's clients expect all of its members.
type Provenance struct {
	Version   string            `json:"version"`
	Commit    string            `json:"build_commit"`
	Timestamp string            `json:"build_timestamp"`
	Hostname  string            `json:"build_hostname"`
	Bundles   map[string]Bundle `json:"bundles,omitempty"`
}

// Bundle is the revision of one source of policies.
type Bundle struct {
	Revision string `json:"revision"`
}

// Warning is what an answer that was made all the same may suffer from.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// The codes of errors and warnings, as OPA has them.
const (
	CodeInternal         = "internal_error"
	CodeInvalidParameter = "invalid_parameter"
	CodeInvalidOperation = "invalid_operation"
	CodeNotFound         = "resource_not_found"
	CodeUnauthorized     = "unauthorized"
	CodeUndefined        = "undefined_document"
	CodeUsage            = "api_usage_warning"
)

// CodeOverloaded is Gatehouse's own: ask again after the time in Retry-After.
const CodeOverloaded = "overloaded"

// Error is the body of every other status.
type Error struct {
	Code       string   `json:"code"`
	Message    string   `json:"message"`
	Errors     []Detail `json:"errors,omitempty"`
	DecisionID string   `json:"decision_id,omitempty"` // if there would have been a decision
}

// Detail is one of the causes of an Error; it holds nothing of the request or the policy.
type Detail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}
