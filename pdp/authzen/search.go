package authzen

// The search endpoints.
const (
	SearchSubjectPath  = "/access/v1/search/subject"
	SearchResourcePath = "/access/v1/search/resource"
	SearchActionPath   = "/access/v1/search/action"
)

// Kind is what a search is for.
type Kind string

// The kinds.
const (
	Subjects  Kind = "subject"
	Resources Kind = "resource"
	Actions   Kind = "action"
)

// Search asks which entities of a kind would be permitted.
type Search struct {
	For      Kind
	Request  Request // without the id of what is searched for; an action has no name
	Limit    int     // most entities to find; 0 finds none
	From     int     // how many candidates are behind the pages before, where the policy names them
	After    string  // the last candidate of the pages before, where they come by their names; "" for the first page
	Revision string  // of the policy that the pages before came from; "" for the first page
}

// Found is one page of a search.
type Found struct {
	Results    []Entity
	More       bool     // there are candidates that were not asked about
	Next       int      // for the next page's From
	Last       string   // for its After
	Complete   bool     // see SearchContext
	Reasons    []string // why it is not complete
	Undecided  int      // candidates of this page for which no decision could be made; they are not among the results
	Revision   string
	Directory  string // revision of the directory; "" without one
	DecisionID string // of the whole search
}

// Entity is a subject or a resource, or an action, which has nothing but its name.
type Entity struct {
	Type string `json:"type,omitempty"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// SearchResponse is the answer to a search.
type SearchResponse struct {
	Page    Page           `json:"page"` // first, as AuthZEN recommends
	Context *SearchContext `json:"context,omitempty"`
	Results []Entity       `json:"results"`
}

// Page says where the next one is.
type Page struct {
	NextToken string `json:"next_token"` // "" on the last page
	Count     int    `json:"count"`      // results on this page
}

// SearchContext says what an answer is worth.
type SearchContext struct {
	// Complete says that the pages together name everything that the policy permits now. It is false where the policy does not
	// know of all that there is, and where candidates could not be decided on; what is named is permitted all the same.
	Complete   bool     `json:"complete"`
	Reasons    []string `json:"reasons,omitempty"` // why it is not: one of the Reasons below
	Undecided  int      `json:"undecided,omitempty"`
	Revision   string   `json:"revision,omitempty"`
	Directory  string   `json:"directory_revision,omitempty"`
	DecisionID string   `json:"decision_id,omitempty"` // the decision log's key of this search
}

// Why an answer is not complete.
const (
	ReasonPartial   = "candidates_partial"  // the policy says that it does not know of all
	ReasonUnknown   = "candidates_unknown"  // the policy knows of none for what is asked
	ReasonUndecided = "undecided"           // some candidates could not be decided on
	ReasonTooMany   = "too_many_candidates" // only the first of them were looked at
	ReasonOutside   = "outside_directory"   // whom the directory does not know may be permitted as well
	ReasonToken     = "depends_on_token"    // rules look at what only a token says; the request's word stood for it
)
