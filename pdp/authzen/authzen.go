// Package authzen holds the contract between a policy enforcement point and a policy decision point: the types of the
// OpenID AuthZEN Authorization API 1.0 (access evaluation), with the members that Gatehouse adds to the answer's context,
// and a client. It needs the standard library only, so that the edge stays small.
package authzen

// Path is the access evaluation endpoint.
const Path = "/access/v1/evaluation"

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

// ResponseContext says why, and on what ground.
type ResponseContext struct {
	Reasons     []string       `json:"reasons,omitempty"` // stable snake_case words of the policy
	Need        *Need          `json:"need,omitempty"`    // what would change the answer
	Revision    string         `json:"revision,omitempty"`
	DecisionID  string         `json:"decision_id,omitempty"` // UUIDv7; the decision log's key
	Obligations map[string]any `json:"obligations,omitempty"`
}

// Need is a stronger or fresher authentication that the policy asks for (RFC 9470).
type Need struct {
	ACR    string `json:"acr,omitempty"`
	MaxAge int    `json:"max_age,omitempty"` // seconds
}
