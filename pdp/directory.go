package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
)

// directoryFlags declares where subjects are known from. The answered function reads the flags once they are parsed.
func directoryFlags(text func(name, variable, absent, about string) *string) func() (directory.Options, error) {
	url := text("directory-url", "PDP_DIRECTORY_URL", "", "where roles, groups, tenants and attributes of subjects come from: https://…, http://localhost…, unix:///path or file:///path; without one, from requests")
	token := text("directory-token-file", "PDP_DIRECTORY_TOKEN_FILE", "", "file of the bearer token for it")
	ca := text("directory-ca-file", "PDP_DIRECTORY_CA_FILE", "", "PEM file of the authorities of its certificate")
	cert := text("directory-cert-file", "PDP_DIRECTORY_CERT_FILE", "", "PEM file of the certificate that is shown to it")
	key := text("directory-key-file", "PDP_DIRECTORY_KEY_FILE", "", "PEM file of its key")
	plain := text("directory-plain-http", "PDP_DIRECTORY_PLAIN_HTTP", "false", "true: believe what comes over plain http from another machine, and show it the token")
	keep := text("directory-keep", "PDP_DIRECTORY_KEEP", "", "folder where the last directory is kept for the next start")
	maxAge := text("directory-max-age", "PDP_DIRECTORY_MAX_AGE", "24h", "how old what was kept may be")
	maxStaleness := text("directory-max-staleness", "PDP_DIRECTORY_MAX_STALENESS", "0s", "how long after it was last heard a directory is good; 0s for ever")
	whenStale := text("directory-when-stale", "PDP_DIRECTORY_WHEN_STALE", "continue", "continue or deny")
	unknown := text("directory-unknown", "PDP_DIRECTORY_UNKNOWN", "token", "who is not in it has what the token says, or nothing: token or nothing")
	types := text("directory-types", "PDP_DIRECTORY_TYPES", "user", "types of subjects that it is about, as user,service")
	issuer := text("directory-issuer", "PDP_DIRECTORY_ISSUER", "", "issuer (claims.iss) whose subjects it is about; without one, any")
	maxBytes := text("directory-max-bytes", "PDP_DIRECTORY_MAX_BYTES", strconv.Itoa(1<<30), "bytes of a snapshot of it")
	return func() (directory.Options, error) {
		o := directory.Options{URL: *url, TokenFile: *token, CAFile: *ca, CertFile: *cert, KeyFile: *key, Dir: *keep, Issuer: *issuer}
		var errs []error
		fail := func(name string, err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("directory-%s: %w", name, err))
			}
		}
		var err error
		o.PlainHTTP, err = strconv.ParseBool(*plain)
		fail("plain-http", err)
		o.MaxAge, err = time.ParseDuration(*maxAge)
		fail("max-age", err)
		o.MaxStaleness, err = time.ParseDuration(*maxStaleness)
		fail("max-staleness", err)
		o.DenyWhenStale, err = choice(*whenStale, "continue", "deny")
		fail("when-stale", err)
		o.ForgetUnknown, err = choice(*unknown, "token", "nothing")
		fail("unknown", err)
		o.Limits.Bytes, err = number(*maxBytes, 1<<32)
		fail("max-bytes", err)
		for t := range strings.SplitSeq(*types, ",") {
			if t = strings.TrimSpace(t); t != "" {
				o.Types = append(o.Types, t)
			}
		}
		if o.Types == nil {
			fail("types", errors.New("must name one"))
		}
		if o.URL == "" && (o.TokenFile != "" || o.CAFile != "" || o.CertFile != "" || o.Dir != "" || o.MaxStaleness != 0 || o.DenyWhenStale || o.ForgetUnknown || o.Issuer != "") {
			errs = append(errs, errors.New("directory-url is missing, which the other settings of the directory need"))
		}
		return o, errors.Join(errs...)
	}
}

// choice answers whether it is the second of two words.
func choice(text, first, second string) (bool, error) {
	if text != first && text != second {
		return false, fmt.Errorf("must be %s or %s", first, second)
	}
	return text == second, nil
}

// subjects is the directory, if there is one.
type subjects struct{ *directory.Directory }

func openDirectory(o directory.Options, log *slog.Logger) (subjects, error) {
	if o.URL == "" {
		return subjects{}, nil
	}
	o.Log, o.Now = log, now
	d, err := directory.New(o)
	return subjects{d}, err
}

func (s subjects) services() []lifecycle.Service {
	if s.Directory == nil {
		return nil
	}
	return []lifecycle.Service{s.Directory}
}

func (s subjects) measure(meter *metrics.Registry) {
	if s.Directory != nil {
		meter.Register(metrics.Directory(s.Stats, now))
	}
}

// checks adds how the directory is to others. Why it is so is for the private address.
func (s subjects) checks(others map[string]web.Check, private bool) map[string]web.Check {
	if s.Directory == nil {
		return others
	}
	all := map[string]web.Check{"directory": func(context.Context) error {
		err := s.Ready()
		switch {
		case err == nil || private:
			return err
		case errors.Is(err, web.Degraded("")):
			return web.Degraded("The directory cannot be renewed; an older one decides.")
		}
		return errors.New("not ready")
	}}
	maps.Copy(all, others)
	return all
}
