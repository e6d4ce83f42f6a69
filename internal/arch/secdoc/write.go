package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// requirements is how many there are, numbered from 1.
const requirements = 73

// The lines that the program knows. A requirement begins a paragraph; a proof and what is open are items below it.
var (
	statement = regexp.MustCompile(`^\*\*S([0-9]+)\*\* \S`)
	summary   = regexp.MustCompile(`^Of [0-9]+ requirements `)
)

const (
	proved = "- Proved by "
	open   = "- Open: "
)

// write answers the document with its proofs and its summary anew. It refuses a document that lacks a requirement, and one
// that says neither how a requirement is proved nor why it is not; so it does proofs of what is no requirement.
func write(old string, proofs map[int][]proof) (string, error) {
	var out []string
	var errs []error
	next, current, isOpen, at, count := 1, 0, false, -1, [3]int{}
	finish := func() {
		switch {
		case current == 0:
			return
		case len(proofs[current]) == 0 && !isOpen:
			errs = append(errs, fmt.Errorf("requirement S%d is neither proved by a test nor said to be open", current))
		case len(proofs[current]) == 0:
			count[2]++
		case isOpen:
			count[1]++
		default:
			count[0]++
		}
		current, isOpen = 0, false
	}
	for _, line := range strings.Split(old, "\n") {
		m := statement.FindStringSubmatch(line)
		switch {
		case m != nil:
			finish()
			current, _ = strconv.Atoi(m[1])
			if current != next {
				errs = append(errs, fmt.Errorf("requirement S%d stands where S%d should", current, next))
			}
			next = current + 1
			out = append(out, line)
			if p := proofs[current]; len(p) > 0 {
				out = append(out, proved+list(p))
			}
			continue
		case line == "":
			finish()
		case summary.MatchString(line):
			at = len(out)
		case strings.HasPrefix(line, proved):
			continue // written anew above
		case strings.HasPrefix(line, open):
			isOpen = true
		}
		out = append(out, line)
	}
	finish()
	if next != requirements+1 {
		errs = append(errs, fmt.Errorf("there are %d requirements; the last here is S%d", requirements, next-1))
	}
	for n, p := range proofs {
		if n < 1 || n > requirements {
			errs = append(errs, fmt.Errorf("%s: %s names S%d, which is no requirement", p[0].File, p[0].Test, n))
		}
	}
	if at < 0 {
		errs = append(errs, errors.New("no line for the summary"))
		return "", errors.Join(errs...)
	}
	out[at] = fmt.Sprintf("Of %d requirements %d are proved by tests, %d in part, and %d are open.", requirements, count[0], count[1], count[2])
	return strings.Join(out, "\n"), errors.Join(errs...)
}

// list names each file once: `file` TestA, TestB; `other` TestC.
func list(proofs []proof) string {
	var b strings.Builder
	last := ""
	for _, p := range proofs {
		switch {
		case p.File == last:
			b.WriteString(", ")
		case last != "":
			b.WriteString("; ")
		}
		if p.File != last {
			b.WriteString("`" + p.File + "` ")
		}
		b.WriteString(strings.ReplaceAll(p.Test, "_", `\_`))
		last = p.File
	}
	return b.String()
}
