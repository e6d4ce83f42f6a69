// Package caller knows who may ask the decision point: enforcement points with a token (RFC 6750) of a file, those with a
// certificate of a pinned authority, or, where both are configured, those with both (S71). Files are read again when they
// change, so that tokens and certificates rotate without a restart.
//
// It decides on enforcement points only. On whose behalf they ask is what the policies decide on.
package caller

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// minToken is how long a token is at least, in bytes; 32 hexadecimal digits are 128 bits.
const minToken = 32

// Unknown is every caller who is not known; which of the reasons it was is nobody's business.
var Unknown = fault.New(fault.Unauthenticated, "The caller is not known here.").Named("caller_unknown")

var (
	validName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	validToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`) // RFC 6750 section 2.1
)

// token is one line of the file. Only its digest is kept.
type token struct {
	name   string
	digest [sha256.Size]byte
}

// Tokens are those of a file: a name and a token per line, several of one name while it changes its token.
type Tokens struct{ file *watched[[]token] }

// OpenTokens reads the file. One without any token is refused.
func OpenTokens(file string, log *slog.Logger) (*Tokens, error) {
	w, err := watch("callers' tokens", []string{file}, log, func(contents [][]byte) ([]token, error) { return readTokens(contents[0]) })
	if err != nil {
		return nil, err
	}
	if len(w.get()) == 0 {
		return nil, fmt.Errorf("callers' tokens: %s holds none", file)
	}
	return &Tokens{w}, nil
}

// readTokens reads lines of a name, white space and a token; blank ones and those that begin with # are for people. An error
// names the line and nothing that it holds.
func readTokens(text []byte) ([]token, error) {
	var all []token
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		words := strings.Fields(line)
		switch {
		case len(words) != 2:
			return nil, fmt.Errorf("line %d: must be a name and a token", n)
		case !validName.MatchString(words[0]):
			return nil, fmt.Errorf("line %d: the name must be 1 to 64 letters, digits, dots, dashes or underscores", n)
		case len(words[1]) < minToken || !validToken.MatchString(words[1]):
			return nil, fmt.Errorf("line %d: the token must be at least %d characters that a Bearer token may have", n, minToken)
		}
		t := token{words[0], sha256.Sum256([]byte(words[1]))}
		for _, other := range all {
			if other.digest == t.digest && other.name != t.name {
				return nil, fmt.Errorf("line %d: another name has the same token", n)
			}
		}
		all = append(all, t)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return all, nil
}

// Run reads the file again when it changes, until ctx ends. A file from which the last token is taken admits nobody.
func (t *Tokens) Run(ctx context.Context) error { return t.file.run(ctx) }

// Find answers the name of who presents this token. How long it takes depends on the number of tokens alone.
func (t *Tokens) Find(presented string) (name string, ok bool) {
	digest := sha256.Sum256([]byte(presented))
	for _, known := range t.file.get() {
		if subtle.ConstantTimeCompare(digest[:], known.digest[:]) == 1 {
			name, ok = known.name, true
		}
	}
	return name, ok
}

// Check is what a caller must bring. Its zero value lets anybody ask.
type Check struct {
	Tokens       *Tokens // nil: none is needed
	Certificates bool    // whether the connection must have a verified certificate of the caller
}

// Required reports whether there is anything to bring.
func (c Check) Required() bool { return c.Tokens != nil || c.Certificates }

// Identify answers the caller's name, or Unknown. The name is the token's, or else the certificate's common name; it is "" where
// anybody may ask.
func (c Check) Identify(r *http.Request) (string, error) {
	name := ""
	if c.Certificates {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return "", Unknown
		}
		name = printable(r.TLS.VerifiedChains[0][0].Subject.CommonName)
	}
	if c.Tokens == nil {
		return name, nil
	}
	// Two Authorization headers would leave it open which one counts.
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", Unknown
	}
	scheme, presented, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", Unknown
	}
	name, ok := c.Tokens.Find(strings.TrimLeft(presented, " "))
	if !ok {
		return "", Unknown
	}
	return name, nil
}

// printable bounds what a certificate can make us write.
func printable(s string) string {
	const most = 128
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
