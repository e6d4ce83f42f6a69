// Package engine decides by Rego policies with OPA inside the process.
//
// All that a decision depends on (rules, data, declared look-ups) is one immutable snapshot, built aside and swapped in whole.
// A snapshot that does not parse, compile under strict checks, keep its own tests and deny by default never replaces one that
// does; Ready then says so while the old one goes on deciding. Its parts come from a folder, from sources that Put them, or both,
// each within roots of its own. Policies see only their input and data: every builtin that
// could reach outside or answer differently twice (http.send, net.lookup_ip_addr, opa.runtime, time.now_ns, …) is taken away
// (S62), and the clock is input.context.time. So a decision is made once for all inputs that are alike in what the rules can
// look at, and remembered for as long as its snapshot decides.
//
// What OPA's evaluator says is the answer; forms.go makes faster forms of the same rules, and drops those that answer otherwise.
//
// Evaluate never turns a failure into a pass: an undefined or malformed decision, a time-out and a panic are errors, for which
// the caller must deny (S56). They are told apart from what a rule denies and from what no rule covers (authzen.Outcome).
//
// A decision comes in by engine.go, is looked for among what is remembered (remember.go; rests.go where it rests on the directory), and
// is asked of a form (ask.go, lanes.go) as a question (question.go, questionread.go; inputparts.go for topdown). Forms are made by
// forms.go of native code, of what partial evaluation leaves (partialmerge.go, partialcheck.go) and of topdown (topdown.go, rulevalues.go).
// A snapshot is read (watch.go, files.go, decoded.go, dataread.go), joined of parts (parts.go), built in steps (load.go, publish.go),
// tried by made-up questions (probe.go, probedirectory.go), and followed by what can wait (later.go); what each of its rules can say is found out then, for denials to name them (because.go). Data and the directory are
// in store.go, relation.go and directory.go, directorydata.go. OPA's documents are document.go, searches search.go, searchnames.go
// and searchalike.go.
package engine
