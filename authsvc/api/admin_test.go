package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

func TestAnAdminGivesRolesAndTakesThemAway(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		o.done(t, 201, "POST", "/roles", fields{"name": "orders.reader", "permissions": []fields{{"action": "orders.read", "resource": "order"}}})
		made := o.ask(t, "POST", "/roles", fields{
			"name": "orders.editor", "description": "Edits orders.", "inherits": []string{"orders.reader"}, "reason": "new team", "ticket": "T-7",
			"permissions": []fields{{"action": "orders.edit", "resource": "order", "conditions": []string{"own"}}},
		})
		if made.Status != 201 || made.Header.Get("ETag") != `"1"` || made.Header.Get("Location") != "/admin/v1/roles/orders.editor" || made.Header.Get("Gatehouse-Revision") != "2" {
			t.Fatalf("%d %v %s", made.Status, made.Header, made.Body)
		}
		if read := o.ask(t, "GET", "/roles/orders.editor", nil); read.Body != made.Body || read.Header.Get("ETag") != `"1"` {
			t.Errorf("made %s, read %s", made.Body, read.Body)
		}
		until := o.public.clock().Add(time.Hour)
		b := o.done(t, 201, "POST", "/bindings", fields{
			"subject": "ada", "role": "orders.editor", "tenant": "acme", "until": until, "break_glass": true, "reason": "the night shift is ill", "ticket": "INC-1",
		})
		everywhere := o.done(t, 201, "POST", "/bindings", fields{"subject": "ada", "role": "orders.reader"})
		if b["granted_by"] != o.bossID || b["active"] != true || b["until"] != until.Format(time.RFC3339) || b["break_glass"] != true || b["reason"] != "the night shift is ill" {
			t.Errorf("granted %v", b)
		}
		if read := o.done(t, 200, "GET", "/bindings/"+b["id"].(string), nil); fmt.Sprint(read) != fmt.Sprint(b) {
			t.Errorf("granted %v, read %v", b, read)
		}
		for query, want := range map[string]string{"": "orders.editor orders.reader orders.reader", "?tenant=acme": "orders.editor orders.reader orders.reader", "?tenant=other": "orders.reader"} {
			if got := items(o.done(t, 200, "GET", "/subjects/ada/roles"+query, nil), "role"); got != want {
				t.Errorf("effective %s: %s, want %s", query, got, want)
			}
		}
		for query, want := range map[string]string{
			"": "orders.editor orders.reader", "?subject=ada&role=orders.reader": "orders.reader", "?tenant=acme": "orders.editor", "?everywhere=true": "orders.reader", "?subject=bob": "",
		} {
			if got := items(o.done(t, 200, "GET", "/bindings"+query, nil), "role"); got != want {
				t.Errorf("bindings %s: %q, want %q", query, got, want)
			}
		}

		o.public.at(until) // ended for everybody who reads, swept or not
		if got := items(o.done(t, 200, "GET", "/subjects/ada/roles", nil, o.again(t)...), "role"); got != "orders.reader" {
			t.Errorf("after its end: %s", got)
		}
		if read := o.done(t, 200, "GET", "/bindings/"+b["id"].(string), nil); read["active"] != false {
			t.Errorf("after its end: %v", read)
		}
		if err := o.roles.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantProblem(t, "a swept binding", o.ask(t, "GET", "/bindings/"+b["id"].(string), nil), 404, "binding_not_found")
		wantProblem(t, "a role in use", o.ask(t, "DELETE", "/roles/orders.reader", nil, "If-Match", `"1"`), 409, "role_in_use")
		o.done(t, 204, "DELETE", "/bindings/"+everywhere["id"].(string)+"?reason=moved", nil)
		o.done(t, 204, "DELETE", "/roles/orders.editor", nil, "If-Match", `"1"`)
		o.done(t, 204, "DELETE", "/roles/orders.reader", nil, "If-Match", `"1"`)
		audit := o.done(t, 200, "GET", "/audit", nil)
		if got := items(audit, "action"); got != "role.deleted role.deleted binding.revoked binding.expired binding.granted binding.granted role.created role.created" {
			t.Errorf("the audit: %s", got)
		}
		if got := items(audit, "actor"); got != strings.Join([]string{o.bossID, o.bossID, o.bossID, role.System, o.bossID, o.bossID, o.bossID, o.bossID}, " ") {
			t.Errorf("the audit: %s", got)
		}
		line := audit["items"].([]any)[6].(map[string]any)
		if line["reason"] != "new team" || line["ticket"] != "T-7" || line["request_id"] != trace || line["before"] != nil || line["after"].(map[string]any)["name"] != "orders.editor" {
			t.Errorf("the audit: %v", line)
		}
	})
}

// S58: who administers is looked at for each request, by what holds now and not by what the token says.
func TestOnlyAdminsAdminister(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		_, customer := o.person(t, "customer@x.test", "customer")
		inTenant, tenants := o.person(t, "tenant@x.test", "customer")
		second, others := o.person(t, "second@x.test", "customer")
		former, formers := o.person(t, "former@x.test", role.Admin)
		operator := role.Actor{Subject: role.Operator}
		if _, _, err := o.roles.CreateRole(t.Context(), operator, role.Role{Name: role.Admin, Protected: true}, role.Why{}); err != nil {
			t.Fatal(err)
		}
		ended := o.public.clock().Add(time.Minute)
		for _, b := range []role.Binding{{Subject: inTenant, Role: role.Admin, Tenant: "acme"}, {Subject: second, Role: role.Admin, Until: &ended}} {
			if _, _, err := o.roles.Grant(t.Context(), operator, b); err != nil {
				t.Fatal(err)
			}
		}
		o.done(t, 200, "GET", "/roles", nil, others...)
		o.done(t, 200, "GET", "/roles", nil, formers...)
		o.done(t, 204, "DELETE", "/subjects/"+former+"/roles/admin?reason=left", nil)
		before := o.revision(t)
		o.public.at(ended)
		for _, op := range o.operations(t) {
			method, path, _ := strings.Cut(op, " ")
			path = filled(path)
			var body any
			if method == "POST" || method == "PUT" {
				body = map[string]fields{
					"/roles": {"name": "x"}, "/roles/reader": {}, "/bindings": {"subject": "bob", "role": "reader"}, "/subjects/bob": {},
				}[path]
			}
			wantProblem(t, op+" without a token", o.ask(t, method, path, body, "Authorization", ""), 401, "token_missing")
			wantProblem(t, op+" with no token of ours", o.ask(t, method, path, body, "Authorization", "Bearer "+canary), 401, "token_invalid")
			for who, header := range map[string][]string{"a customer": customer, "an admin of a tenant": tenants, "one whose time is over": others, "a former admin": formers} {
				wantProblem(t, op+" by "+who, o.ask(t, method, path, body, header...), 403, "admin_required")
			}
		}
		if after := o.revision(t); after != before {
			t.Errorf("%d changes were made", after-before)
		}
	})
}

// S67: what is changed is in the audit, once; what is refused is not.
func TestEachChangeLeavesOneLineOfTheAudit(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		o.done(t, 201, "POST", "/roles", fields{"name": "reader"})
		free := o.done(t, 201, "POST", "/bindings", fields{"subject": "eve", "role": "reader"})["id"].(string)
		o.done(t, 201, "POST", "/bindings", fields{"subject": "bob", "role": "reader"})
		changes := []struct {
			op, path string
			body     any
			action   string
			target   string
			again    string // what the same answers a second time
		}{
			{"POST /roles", "/roles", fields{"name": "x", "reason": "r", "ticket": "t"}, role.RoleCreated, "x", "role_exists"},
			{"PUT /roles/{name}", "/roles/x", fields{"description": "d", "reason": "r", "ticket": "t"}, role.RoleUpdated, "x", "precondition_failed"},
			{"POST /bindings", "/bindings", fields{"subject": "ada", "role": "x", "reason": "r", "ticket": "t"}, role.Granted, "ada", "binding_exists"},
			{"PUT /subjects/{id}", "/subjects/ada", fields{"tenant": "acme", "groups": []string{"g"}, "attributes": fields{"level": 3}, "reason": "r", "ticket": "t"}, role.SubjectSet, "ada", "precondition_required"},
			{"DELETE /subjects/{id}/roles/{role}", "/subjects/ada/roles/x?reason=r&ticket=t", nil, role.Revoked, "ada", "binding_not_found"},
			{"DELETE /bindings/{id}", "/bindings/" + free + "?reason=r&ticket=t", nil, role.Revoked, "eve", "binding_not_found"},
			{"DELETE /subjects/{id}", "/subjects/ada?reason=r&ticket=t", nil, role.SubjectDeleted, "ada", "subject_not_found"},
			{"DELETE /roles/{name}", "/roles/x?reason=r&ticket=t", nil, role.RoleDeleted, "x", "role_not_found"},
		}
		ifMatch := map[string]string{"PUT /roles/{name}": `"1"`, "DELETE /subjects/{id}": `"1"`, "DELETE /roles/{name}": `"2"`}
		var known []string
		for _, c := range changes {
			known = append(known, c.op)
			method, _, _ := strings.Cut(c.op, " ")
			var headers []string
			if etag := ifMatch[c.op]; etag != "" {
				headers = []string{"If-Match", etag}
			}
			before := o.revision(t)
			if a := o.ask(t, method, c.path, c.body, headers...); a.Status >= 300 || a.Header.Get("Gatehouse-Revision") != fmt.Sprint(before+1) {
				t.Fatalf("%s: %d %s, revision %s after %d", c.op, a.Status, a.Body, a.Header.Get("Gatehouse-Revision"), before)
			}
			lines, err := o.roles.Store.Audits(t.Context(), role.AuditFilter{}, 0, 200)
			if err != nil {
				t.Fatal(err)
			}
			l := lines[0]
			if uint64(len(lines)) != before+1 || l.Action != c.action || l.Target != c.target || l.Actor != o.bossID || l.Reason != "r" || l.Ticket != "t" || l.RequestID != trace || l.Revision != before+1 {
				t.Errorf("%s: %d lines after %d, the newest %+v", c.op, len(lines), before, l)
			}
			if a := o.ask(t, method, c.path, c.body, headers...); !strings.Contains(a.Body, `"code":"`+c.again+`"`) {
				t.Errorf("%s again: %d %s", c.op, a.Status, a.Body)
			}
			if after := o.revision(t); after != before+1 || o.db.Count(t, "role_audit") != int(after) {
				t.Errorf("%s again: revision %d, %d lines", c.op, after, o.db.Count(t, "role_audit"))
			}
		}
		slices.Sort(known)
		var changing []string
		for _, op := range o.operations(t) {
			if !strings.HasPrefix(op, "GET ") {
				changing = append(changing, op)
			}
		}
		if !slices.Equal(known, changing) {
			t.Errorf("there are %v, and tried were %v", changing, known)
		}
	})
}

func TestNobodyGrantsThemselvesAnything(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		operator := role.Actor{Subject: role.Operator}
		for _, r := range []role.Role{
			{Name: role.Admin, Protected: true}, {Name: "root", Protected: true}, {Name: "above-root", Inherits: []string{"root"}}, {Name: "base"}, {Name: "mine", Inherits: []string{"base"}},
		} {
			if _, _, err := o.roles.CreateRole(t.Context(), operator, r, role.Why{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := o.roles.Grant(t.Context(), operator, role.Binding{Subject: o.bossID, Role: "mine", Tenant: "acme"}); err != nil {
			t.Fatal(err)
		}
		soon := o.public.clock().Add(time.Hour)
		before := o.revision(t)
		for what, c := range map[string]struct {
			method, path string
			body         any
			status       int
			code         string
		}{
			"a role to oneself":                    {"POST", "/bindings", fields{"subject": o.bossID, "role": "base"}, 403, "own_privilege"},
			"break-glass to oneself":               {"POST", "/bindings", fields{"subject": o.bossID, "role": "base", "break_glass": true, "until": soon, "reason": "r", "ticket": "t"}, 403, "own_privilege"},
			"more to a role one holds":             {"PUT", "/roles/mine", fields{"permissions": []fields{{"action": "a", "resource": "r"}}}, 403, "own_privilege"},
			"more to what that inherits":           {"PUT", "/roles/base", fields{"permissions": []fields{{"action": "a", "resource": "r"}}}, 403, "own_privilege"},
			"one's own attributes":                 {"PUT", "/subjects/" + o.bossID, fields{"attributes": fields{"clearance": 9}}, 403, "own_privilege"},
			"the admins' own role":                 {"PUT", "/roles/admin", fields{}, 403, "own_privilege"},
			"a protected role":                     {"POST", "/bindings", fields{"subject": "ada", "role": "root"}, 403, "role_protected"},
			"what inherits a protected role":       {"POST", "/bindings", fields{"subject": "ada", "role": "above-root"}, 403, "role_protected"},
			"a change of a protected role":         {"PUT", "/roles/root", fields{}, 403, "role_protected"},
			"an end of a protected role":           {"DELETE", "/roles/root", nil, 403, "role_protected"},
			"a new way to a protected role":        {"POST", "/roles", fields{"name": "way", "inherits": []string{"above-root"}}, 403, "role_protected"},
			"break-glass without an end":           {"POST", "/bindings", fields{"subject": "ada", "role": "base", "break_glass": true, "reason": "r", "ticket": "t"}, 422, "unprocessable"},
			"break-glass for longer than a day":    {"POST", "/bindings", fields{"subject": "ada", "role": "base", "break_glass": true, "until": o.public.clock().Add(24*time.Hour + time.Second), "reason": "r", "ticket": "t"}, 422, "unprocessable"},
			"break-glass without a reason":         {"POST", "/bindings", fields{"subject": "ada", "role": "base", "break_glass": true, "until": soon, "ticket": "t"}, 422, "unprocessable"},
			"break-glass without a ticket":         {"POST", "/bindings", fields{"subject": "ada", "role": "base", "break_glass": true, "until": soon, "reason": "r"}, 422, "unprocessable"},
			"what has ended before it began":       {"POST", "/bindings", fields{"subject": "ada", "role": "base", "until": o.public.clock()}, 422, "unprocessable"},
			"a role that is not there":             {"POST", "/bindings", fields{"subject": "ada", "role": "none"}, 404, "role_not_found"},
			"a role that inherits what is not":     {"POST", "/roles", fields{"name": "x", "inherits": []string{"none"}}, 409, "parent_not_found"},
			"a role that inherits itself":          {"POST", "/roles", fields{"name": "x", "inherits": []string{"x"}}, 409, "role_cycle"},
			"a reason that forges a line":          {"POST", "/roles", fields{"name": "x", "reason": canary + "\n"}, 422, "unprocessable"},
			"a name that looks like another":       {"POST", "/roles", fields{"name": "Admin"}, 422, "unprocessable"},
			"an attribute that no database keeps":  {"PUT", "/subjects/ada", fields{"attributes": fields{"a": canary + "\x00"}}, 422, "unprocessable"},
			"an attribute larger than its purpose": {"PUT", "/subjects/ada", fields{"attributes": fields{"a": strings.Repeat(canary, 100)}}, 422, "unprocessable"},
			"a number that would become long":      {"PUT", "/subjects/ada", fields{"attributes": fields{"a": 1e300}}, 422, "unprocessable"},
			"a member that is none":                {"PUT", "/subjects/ada", fields{canary: 1}, 422, "unprocessable"},
		} {
			a := o.ask(t, c.method, c.path, c.body, "If-Match", `"1"`)
			wantProblem(t, what, a, c.status, c.code)
			o.wantNoCanary(t, what, a)
		}
		if after := o.revision(t); after != before {
			t.Errorf("%d changes were made", after-before)
		}
		o.done(t, 201, "POST", "/bindings", fields{"subject": "ada", "role": role.Admin}) // who holds a protected role may give it
	})
}

func TestAChangeIsForTheVersionThatWasRead(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		o.done(t, 201, "POST", "/roles", fields{"name": "x"})
		o.done(t, 200, "PUT", "/subjects/ada", fields{"tenant": "a"})
		for _, path := range []string{"/roles/x", "/subjects/ada"} {
			for _, method := range []string{"PUT", "DELETE"} {
				var body any
				if method == "PUT" {
					body = fields{}
				}
				wantProblem(t, method+" without If-Match", o.ask(t, method, path, body), 428, "precondition_required")
				wantProblem(t, method+" of another version", o.ask(t, method, path, body, "If-Match", `"2"`), 412, "precondition_failed")
				wantProblem(t, method+" of a weak version", o.ask(t, method, path, body, "If-Match", `W/"1"`), 412, "precondition_failed")
			}
			if a := o.ask(t, "PUT", path, fields{}, "If-Match", `"1"`); a.Status != 200 || a.Header.Get("ETag") != `"2"` {
				t.Errorf("PUT %s: %d %v", path, a.Status, a.Header)
			}
			wantProblem(t, "the same again", o.ask(t, "PUT", path, fields{}, "If-Match", `"1"`), 412, "precondition_failed")
			o.done(t, 200, "PUT", path, fields{}, "If-Match", "*")
		}
		wantProblem(t, "what is not there", o.ask(t, "PUT", "/subjects/bob", fields{}, "If-Match", "*"), 412, "precondition_failed")
	})
}

func TestListsComeByPages(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		for i := range 5 {
			o.done(t, 201, "POST", "/roles", fields{"name": fmt.Sprint("r", i)})
			o.done(t, 201, "POST", "/bindings", fields{"subject": "ada", "role": fmt.Sprint("r", i)})
			o.done(t, 200, "PUT", fmt.Sprint("/subjects/s", i), fields{})
		}
		for path, want := range map[string]struct {
			field string
			n     int
		}{"/roles": {"name", 5}, "/bindings": {"id", 5}, "/subjects": {"id", 5}, "/audit": {"revision", 15}} {
			seen := map[string]bool{}
			query := "?limit=2"
			pages := 0
			for {
				page := o.done(t, 200, "GET", path+query, nil)
				for _, key := range strings.Fields(items(page, want.field)) {
					if seen[key] {
						t.Errorf("%s: %s comes twice", path, key)
					}
					seen[key] = true
				}
				pages++
				next, more := page["next"].(string)
				if !more {
					break
				}
				query = "?limit=2&cursor=" + next
			}
			if len(seen) != want.n || pages != (want.n+1)/2 {
				t.Errorf("%s: %d in %d pages", path, len(seen), pages)
			}
			wantProblem(t, path+" from nowhere", o.ask(t, "GET", path+"?cursor=%21", nil), 400, "invalid_cursor")
			wantProblem(t, path+" too many", o.ask(t, "GET", path+"?limit=201", nil), 422, "unprocessable")
		}
	})
}

// S58: the tokens that are out say what is no longer true, so they end; the next ones do not say it.
func TestARoleThatTokensCarryEndsWithThem(t *testing.T) {
	t.Parallel()
	inOffices(t, func(t *testing.T, o *office) {
		id, header := o.person(t, "ada@x.test", "auditor", "customer")
		wantProblem(t, "what nobody has", o.ask(t, "DELETE", "/subjects/"+id+"/roles/boss", nil), 404, "binding_not_found")
		o.db.Forget(t)
		o.done(t, 204, "DELETE", "/subjects/"+id+"/roles/auditor?reason=moved", nil)
		at := o.public.clock()
		want := job.Revocation{Kind: "sub", Value: id, NotBefore: at, ExpiresAt: at.Add(6 * time.Minute)}
		if jobs := o.db.Jobs(t); len(jobs) != 1 || jobs[0].Args != want {
			t.Errorf("the jobs are %+v", jobs)
		}
		if all := o.db.Revocations(t); len(all) != 1 || all[0].Kind != "sub" || all[0].Value != id || !all[0].NotBefore.Equal(at) {
			t.Errorf("the revocations are %+v", all)
		}
		if len(o.published) != 1 || o.published[0] != want {
			t.Errorf("published were %+v", o.published)
		}
		var me struct{ Roles []string }
		if err := json.Unmarshal([]byte(o.public.send(t, "GET", "/auth/me", "", header...).Body), &me); err != nil || !slices.Equal(me.Roles, []string{"customer"}) {
			t.Errorf("the account has %v, %v", me.Roles, err)
		}
		if a := o.ask(t, http.MethodGet, "/audit?target="+id, nil); !strings.Contains(a.Body, `"account":true`) {
			t.Errorf("the audit says %s", a.Body)
		}
	})
}
