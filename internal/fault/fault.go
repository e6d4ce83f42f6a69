// Package fault is the one vocabulary of failures. A fault carries a code that decides the HTTP status, a reason that a
// program can test for, and a detail that is safe to show to the caller; its cause stays in the log.
package fault

import "errors"

// Code is the kind of a failure. The set is closed: internal/web maps each to one HTTP status.
type Code string

// The codes, from the caller's mistakes to ours.
const (
	Invalid         Code = "invalid"
	Unauthenticated Code = "unauthenticated"
	Forbidden       Code = "forbidden"
	NotFound        Code = "not_found"
	Conflict        Code = "conflict"
	Limited         Code = "limited"
	Unavailable     Code = "unavailable"
	Internal        Code = "internal"
)

// Error is a failure with a code.
type Error struct {
	Code   Code
	Reason string // snake_case and stable; the problem document's "code". Equal to Code unless named.
	Detail string // one sentence for the caller; never holds what the caller sent, nor a secret
	Err    error  // the cause, for the log alone
}

// New makes a fault whose reason is its code.
func New(code Code, detail string) *Error {
	return &Error{Code: code, Reason: string(code), Detail: detail}
}

// Named returns a copy of e with the given reason.
func (e *Error) Named(reason string) *Error {
	c := *e
	c.Reason = reason
	return &c
}

// Because returns a copy of e with err as its cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

func (e *Error) Error() string {
	s := e.Reason
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is a fault of the same code and reason, so that errors.Is works with a fault as its pattern.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Reason == e.Reason
}

// As finds the outermost fault in err's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// CodeOf answers the code of err's outermost fault, and Internal for an error that has none.
func CodeOf(err error) Code {
	if e, ok := As(err); ok {
		return e.Code
	}
	return Internal
}
