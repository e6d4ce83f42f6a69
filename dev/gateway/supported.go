package gateway

import (
	"errors"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/internal/kongfile"
)

// supported refuses what Kong can do and this gateway cannot.
func supported(d kongfile.Document) error {
	var errs []error
	for i, s := range d.Services {
		if s.Protocol != "http" {
			errs = append(errs, fmt.Errorf("services[%d].protocol: this gateway speaks http to upstreams, not %q", i, s.Protocol))
		}
	}
	for i, u := range d.Upstreams {
		if u.Algorithm != "" && u.Algorithm != "round-robin" {
			errs = append(errs, fmt.Errorf("upstreams[%d].algorithm: this gateway knows round-robin, not %q", i, u.Algorithm))
		}
		if t := u.Healthchecks.Active.Type; t != "" && t != "http" && t != "tcp" {
			errs = append(errs, fmt.Errorf("upstreams[%d].healthchecks.active.type: this gateway probes http and tcp, not %q", i, t))
		}
	}
	return errors.Join(errs...)
}
