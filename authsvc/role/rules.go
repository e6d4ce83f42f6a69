package role

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Limits.
const (
	MaxRoles       = 5000
	MaxBindings    = 1000 // of one subject: whatever is known of it is one line of the feed
	MaxBreakGlass  = 24 * time.Hour
	maxDescription = 500 // code points
	maxInherits    = 50
	maxPermissions = 500
	maxConditions  = 16
	maxGroups      = 100
	maxReason      = 500 // code points
	maxAttributes  = 64
	maxText        = 500 // bytes of a text within attributes
	maxList        = 100 // elements of a list within attributes
	maxDepth       = 4   // objects and lists within each other, within attributes
	maxNumber      = 1e15
	minNumber      = 1e-9
)

var (
	validName    = regexp.MustCompile(`^[a-z][a-z0-9._:-]{0,63}$`)
	validTenant  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)
	validSubject = regexp.MustCompile(`^[!-~]{1,200}$`)
	validWord    = regexp.MustCompile(`^[!-~]{1,200}$`)
	validTicket  = regexp.MustCompile(`^[!-~]{1,100}$`)
	validKey     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)
)

// refuse names the field and the rule, never the value.
func refuse(field, rule string) error {
	return fault.New(fault.Invalid, field+": "+rule).Named("unprocessable")
}

// tidy sorts what has no order and answers what is wrong with a role.
func (r *Role) tidy() error {
	switch {
	case !validName.MatchString(r.Name):
		return refuse("name", "a lower-case letter, then up to 63 of a-z, 0-9, dot, colon, dash and underscore")
	case !plain(r.Description, maxDescription):
		return refuse("description", fmt.Sprintf("at most %d characters without control characters", maxDescription))
	case len(r.Permissions) > maxPermissions:
		return refuse("permissions", fmt.Sprintf("at most %d", maxPermissions))
	}
	r.Inherits = sorted(r.Inherits)
	if len(r.Inherits) > maxInherits || slices.ContainsFunc(r.Inherits, func(s string) bool { return !validName.MatchString(s) }) {
		return refuse("inherits", fmt.Sprintf("at most %d names of roles", maxInherits))
	}
	r.Permissions = slices.Clone(r.Permissions)
	for i := range r.Permissions {
		p := &r.Permissions[i]
		p.Conditions = sorted(p.Conditions)
		switch {
		case !validWord.MatchString(p.Action):
			return refuse(fmt.Sprintf("permissions[%d].action", i), "1 to 200 printable ASCII characters without blanks")
		case !validWord.MatchString(p.Resource):
			return refuse(fmt.Sprintf("permissions[%d].resource", i), "1 to 200 printable ASCII characters without blanks")
		case len(p.Conditions) > maxConditions || slices.ContainsFunc(p.Conditions, func(s string) bool { return !validName.MatchString(s) }):
			return refuse(fmt.Sprintf("permissions[%d].conditions", i), fmt.Sprintf("at most %d names", maxConditions))
		}
	}
	return nil
}

// check answers what is wrong with a binding that is made at now.
func (b Binding) check(now time.Time) error {
	switch {
	case !ValidSubject(b.Subject):
		return refuse("subject", "1 to 200 printable ASCII characters without blanks")
	case !validName.MatchString(b.Role):
		return refuse("role", "expected the name of a role")
	case b.Tenant != "" && !validTenant.MatchString(b.Tenant):
		return refuse("tenant", "expected the name of a tenant, or nothing for everywhere")
	case b.Until != nil && !b.Until.After(now):
		return refuse("until", "has passed")
	case b.Until != nil && b.Until.Year() > 9999:
		return refuse("until", "after the year 9999")
	case !b.BreakGlass:
		return nil
	case b.Until == nil || b.Until.Sub(now) > MaxBreakGlass:
		return refuse("until", "is needed of a break-glass grant, at most 24 hours ahead")
	case b.Reason == "" || b.Ticket == "":
		return refuse("reason", "a break-glass grant needs a reason and a ticket")
	}
	return nil
}

// tidy sorts the groups and answers what is wrong with a subject.
func (s *Subject) tidy() error {
	if !ValidSubject(s.ID) {
		return refuse("id", "1 to 200 printable ASCII characters without blanks")
	}
	if s.Tenant != "" && !validTenant.MatchString(s.Tenant) {
		return refuse("tenant", "expected the name of a tenant")
	}
	s.Groups = sorted(s.Groups)
	if len(s.Groups) > maxGroups || slices.ContainsFunc(s.Groups, func(g string) bool { return !validTenant.MatchString(g) }) {
		return refuse("groups", fmt.Sprintf("at most %d names", maxGroups))
	}
	if s.Attributes == nil {
		s.Attributes = map[string]any{}
	}
	if !plainValue(s.Attributes, 1) {
		return refuse("attributes", fmt.Sprintf("at most %d names (a letter first), texts of at most %d bytes without control characters, "+
			"numbers up to 10^15, lists of at most %d, nested at most %d deep", maxAttributes, maxText, maxList, maxDepth))
	}
	return nil
}

// check answers what is wrong with a cause.
func (c Cause) check() error {
	if !plain(c.Reason, maxReason) {
		return refuse("reason", fmt.Sprintf("at most %d characters without control characters", maxReason))
	}
	if c.Ticket != "" && !validTicket.MatchString(c.Ticket) {
		return refuse("ticket", "at most 100 printable ASCII characters without blanks")
	}
	return nil
}

// ValidSubject reports whether s can be a subject's id. What a path could not hold as one segment is none.
func ValidSubject(s string) bool { return validSubject.MatchString(s) && s != "." && s != ".." }

// plainValue bounds what attributes cost whoever keeps them, and keeps out what the databases would store otherwise than it came.
func plainValue(v any, depth int) bool {
	switch v := v.(type) {
	case nil, bool:
		return true
	case string:
		return len(v) <= maxText && plain(v, maxText)
	case float64:
		return v == 0 || math.Abs(v) <= maxNumber && math.Abs(v) >= minNumber
	case []any:
		return depth <= maxDepth && len(v) <= maxList && !slices.ContainsFunc(v, func(e any) bool { return !plainValue(e, depth+1) })
	case map[string]any:
		if depth > maxDepth || len(v) > maxAttributes {
			return false
		}
		for key, e := range v {
			if !validKey.MatchString(key) || !plainValue(e, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// plain reports whether s can be shown in one line as it is.
func plain(s string, most int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == utf8.RuneError
	})
}

// sorted answers a sorted copy without doubles, and never nil.
func sorted(list []string) []string {
	out := append([]string{}, list...)
	slices.Sort(out)
	return slices.Compact(out)
}
