// Package feed is the contract between who administers roles (authsvc) and who decides by them (the PDP's directory): a snapshot
// and the changes after it, as lines of JSON (NDJSON). It needs the standard library only.
//
// Revisions count up by one with each change and never come back within an epoch. An epoch is one life of the administered data;
// after a restore from a backup there is a new one, and readers begin again with a snapshot.
//
//	GET SnapshotPath                                    200, a Line that is a Begin, one Line per role and subject, a Line that is an End
//	GET ChangesPath?epoch=E&since=N&wait=SECONDS        200, a Begin, the changes with a revision above N in their order, an End;
//	                                                    held for up to wait seconds (at most MaxWait) while there are none
//	                                                    410 when the epoch is another, N is too old to continue from, or ahead
//
// A reader uses nothing of an answer that lacks its End: it was cut short. Begin of changes bears the revision of the last of
// them, and N itself where there are none: it is what the reader asks from next. One change may take several lines, which then
// bear one revision; an answer holds all of them. feedtest.Run is the contract as a test.
package feed

import "time"

// Paths and the media type.
const (
	SnapshotPath = "/directory/v1/snapshot"
	ChangesPath  = "/directory/v1/changes"
	MediaType    = "application/x-ndjson"
)

// MaxWait bounds how long a request for changes is held.
const MaxWait = 30 * time.Second

// Line is one line: exactly one of its members is set.
type Line struct {
	Begin   *Begin   `json:"begin,omitempty"`
	Role    *Role    `json:"role,omitempty"`
	Subject *Subject `json:"subject,omitempty"`
	End     *End     `json:"end,omitempty"`
}

// Begin opens an answer.
type Begin struct {
	Epoch    string    `json:"epoch"`
	Revision uint64    `json:"revision"` // that of the snapshot; for changes, that of the last of them
	At       time.Time `json:"at"`       // the sender's clock
}

// End closes an answer, and says how many lines stand between Begin and End.
type End struct {
	Lines int `json:"lines"`
}

// Role is a role as it is from Revision on.
type Role struct {
	Revision    uint64       `json:"revision,omitempty"`
	Name        string       `json:"name"`
	Gone        bool         `json:"gone,omitempty"` // the role is no more; nothing else is set
	Inherits    []string     `json:"inherits,omitempty"`
	Permissions []Permission `json:"permissions,omitempty"`
}

// Permission lets whoever holds the role do something to something, under conditions that policies know by name.
type Permission struct {
	Action     string   `json:"action"`               // as policies call it
	Resource   string   `json:"resource"`             // a resource type, or a pattern that the policies define
	Conditions []string `json:"conditions,omitempty"` // all must hold
}

// Subject is all that is known of a subject from Revision on; a later line replaces an earlier one whole.
type Subject struct {
	Revision   uint64         `json:"revision,omitempty"`
	ID         string         `json:"id"`
	Gone       bool           `json:"gone,omitempty"`
	Tenant     string         `json:"tenant,omitempty"`
	Groups     []string       `json:"groups,omitempty"`
	Attributes map[string]any `json:"attributes,omitempty"`
	Bindings   []Binding      `json:"bindings,omitempty"`
}

// Binding is a role that a subject holds in a tenant, or everywhere if Tenant is empty, until it ends by itself.
type Binding struct {
	Role   string     `json:"role"`
	Tenant string     `json:"tenant,omitempty"`
	Until  *time.Time `json:"until,omitempty"` // nil: until it is taken away
}
