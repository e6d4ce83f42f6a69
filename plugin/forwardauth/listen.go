package forwardauth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Listen opens host:port. It refuses an address that is neither loopback nor private (RFC 1918, RFC 4193), every address of
// the machine at once, and one that neighbours can reach unless peers says who of them may ask.
func Listen(ctx context.Context, address string, peers []netip.Prefix) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return nil, fmt.Errorf("listen %q: expected unix:path or host:port, the host being one private address", address)
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	for _, a := range found {
		switch a = a.Unmap(); {
		case a.IsLoopback():
		case !a.IsPrivate():
			return nil, fmt.Errorf("listen %q: expected a loopback or private address, for whoever reaches it is believed as the proxy is", address)
		case len(peers) == 0:
			return nil, errors.New("listen: say with -from which networks the proxies are in, or listen on a loopback address or a Unix socket")
		}
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(found[0].Unmap().String(), port))
}
