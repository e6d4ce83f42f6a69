package guard

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Mode says what a denial does.
type Mode string

// The modes: Enforce (also "") stops denied requests, Observe goes through all checks, logs each that fails, and lets the
// request pass.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// Config is what one route (or service) asks of the guard. Each stage's own types, and what is wrong with them, are in the
// stage's file.
type Config struct {
	Mode     Mode
	RedisURL telemetry.Secret // for revocations, limits, challenges and proofs of possession

	// identify.go
	Identify Identify
	Issuers  []Issuer

	// credential.go
	Cookie Cookie

	// dpop.go
	DPoP DPoP

	// cors.go
	CORS CORS

	// login.go
	Login Login

	// alive.go
	Alive Alive

	// limit.go
	Limits []Limit

	// challenge.go
	Challenge Challenge

	// authorize.go
	Authorize   bool
	Resources   []Resource
	PDP         PDP
	Obligations Obligations

	// forward.go
	Assertion Assertion
}

// reject notes what is wrong with a field, by its path below config.
type reject func(path, format string, args ...any)

// Validate answers everything that is wrong, each with the path of its field.
func (c Config) Validate() error {
	var errs []error
	wrong := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("config.%s: %s", path, fmt.Sprintf(format, args...)))
	}
	if c.Mode != Enforce && c.Mode != Observe && c.Mode != "" {
		wrong("mode", "expected enforce or observe")
	}
	c.validateIdentify(wrong)
	c.validateCookie(wrong)
	c.validateDPoP(wrong)
	c.validateCORS(wrong)
	c.validateLogin(wrong)
	c.validateAlive(wrong)
	c.validateLimits(wrong)
	c.validateChallenge(wrong)
	c.validateAuthorize(wrong)
	c.validateForward(wrong)
	return errors.Join(errs...)
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
