package jose

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
)

const maxMetadataBytes = 256 << 10

// wellKnown answers where an issuer's metadata may be: OpenID Connect Discovery section 4, and RFC 8414 section 3, which puts
// its word before the issuer's path.
func wellKnown(issuer string) ([]string, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("the issuer is not a URL that metadata could be at")
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	return []string{origin + path + "/.well-known/openid-configuration", origin + "/.well-known/oauth-authorization-server" + path}, nil
}

// discover answers the URL of the issuer's key set, as its metadata says. The metadata must name the very issuer that it was
// asked for (S46, OpenID Connect Discovery section 4.3, RFC 8414 section 3.3).
func discover(ctx context.Context, client *egress.Client, issuer, metadataURL string) (jwksURL string, err error) {
	places := []string{metadataURL}
	if metadataURL == "" {
		if places, err = wellKnown(issuer); err != nil {
			return "", fmt.Errorf("metadata: %w", err)
		}
	}
	var failed []error
	for _, place := range places {
		_, body, err := client.Get(ctx, place, "application/json", maxMetadataBytes)
		if err == nil {
			jwksURL, err = readMetadata(body, issuer)
		}
		if err == nil {
			return jwksURL, nil
		}
		failed = append(failed, fmt.Errorf("metadata: %w", err))
	}
	return "", errors.Join(failed...)
}

func readMetadata(body []byte, issuer string) (jwksURL string, err error) {
	m, err := readObject(body)
	if err != nil {
		return "", errors.New("not a JSON object of one reading")
	}
	if name, _ := m["issuer"].(string); name != issuer {
		return "", errors.New("another issuer than the configured one")
	}
	if jwksURL, _ = m["jwks_uri"].(string); jwksURL == "" {
		return "", errors.New("no jwks_uri")
	}
	return jwksURL, nil
}
