package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The scenario: users with one to four of fifty roles; two hundred permissions, one for each of five operations of forty
// services; twenty permissions to a role; and per operation a condition on the subject, the object, the hour or the network.
const (
	services    = 40
	roles       = 50
	departments = 10
)

var operations = []struct {
	name, method, condition string
	onItem                  bool
}{
	{"list", "GET", "none", false},
	{"create", "POST", "business_hours", false},
	{"read", "GET", "department", true},
	{"update", "PUT", "owner", true},
	{"delete", "DELETE", "network", true},
}

var networks = []string{"10.0.0.0/8", "192.168.10.0/24", "203.0.113.0/24"}

// permission is the right to one operation of one service.
type permission struct {
	id, method, service, condition string
	onItem                         bool
}

func (p permission) pattern() string {
	path := "/api/" + p.service + "/items"
	if p.onItem {
		path += "/*"
	}
	return path
}

var permissions = func() (all []permission) {
	for s := range services {
		for _, o := range operations {
			all = append(all, permission{fmt.Sprintf("p%03d", len(all)), o.method, fmt.Sprintf("svc%02d", s), o.condition, o.onItem})
		}
	}
	return all
}()

func roleName(r int) string { return fmt.Sprintf("r%02d", r) }
func userName(u int) string { return fmt.Sprintf("u%07d", u) }
func userDept(u int) string { return fmt.Sprintf("d%d", u%departments) }

// permissionsOf and rolesOf are spread by steps that share no factor with how many there are.
func permissionsOf(role int) []int {
	all := make([]int, 20)
	for i := range all {
		all[i] = (role*37 + i*11) % len(permissions)
	}
	return all
}

func rolesOf(user int) []int {
	all := make([]int, 1+user%4)
	for i := range all {
		all[i] = (user*7 + i*13) % roles
	}
	return all
}

// question is one request, in the words of the scenario.
type question struct {
	user           int
	method         string
	segments       []string
	owner, resDept string
	ip             string
	at             time.Time
	want           bool
}

func (q question) path() string { return "/" + strings.Join(q.segments, "/") }

// answer decides without any policy: the reference.
func (q question) answer() bool {
	s := q.segments
	at := slices.IndexFunc(permissions, func(p permission) bool {
		return p.method == q.method && len(s) >= 3 && p.service == s[1] && (p.onItem && len(s) == 4 || !p.onItem && len(s) == 3)
	})
	if at < 0 || !slices.ContainsFunc(rolesOf(q.user), func(r int) bool { return slices.Contains(permissionsOf(r), at) }) {
		return false
	}
	switch permissions[at].condition {
	case "none":
		return true
	case "owner":
		return q.owner == userName(q.user)
	case "department":
		return q.resDept == userDept(q.user)
	case "business_hours":
		day, hour := q.at.Weekday(), q.at.Hour()
		return day != time.Saturday && day != time.Sunday && hour >= 9 && hour < 18
	default:
		addr := netip.MustParseAddr(q.ip)
		return slices.ContainsFunc(networks, func(n string) bool { return netip.MustParsePrefix(n).Contains(addr) })
	}
}

// questions makes n of them: two thirds about what a role of the user's grants, three in a hundred about no known service.
func questions(n, users int, seed uint64) []question {
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a seed makes a run one that can be had again
	often := func() bool { return random.Float64() < 0.7 }
	monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	all := make([]question, n)
	for i := range all {
		u := random.IntN(users)
		p := permissions[random.IntN(len(permissions))]
		if random.Float64() < 0.65 {
			held := rolesOf(u)
			granted := permissionsOf(held[random.IntN(len(held))])
			p = permissions[granted[random.IntN(len(granted))]]
		}
		q := question{user: u, method: p.method, owner: userName(u), resDept: userDept(u)}
		service := p.service
		if random.Float64() < 0.03 {
			service = "nosuch"
		}
		q.segments = []string{"api", service, "items"}
		if p.onItem {
			q.segments = append(q.segments, fmt.Sprintf("i%09d", random.IntN(100_000)))
		}
		if !often() {
			q.owner = userName(random.IntN(users))
		}
		if !often() {
			q.resDept = userDept(random.IntN(users))
		}
		q.ip = fmt.Sprintf("198.51.100.%d", 1+random.IntN(250))
		if often() {
			q.ip = fmt.Sprintf("10.%d.%d.%d", random.IntN(256), random.IntN(256), 1+random.IntN(250))
		}
		hour := 9 + random.IntN(9)
		if !often() {
			hour = (18 + random.IntN(15)) % 24
		}
		q.at = monday.AddDate(0, 0, random.IntN(7)).Add(time.Duration(hour)*time.Hour + time.Duration(random.IntN(60))*time.Minute)
		q.want = q.answer()
		all[i] = q
	}
	return all
}
