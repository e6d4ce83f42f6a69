package app

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	netmail "net/mail"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/mail"
	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
)

// Role is a part of authsvc that a process may serve.
type Role string

// The roles: Auth serves accounts, sessions and keys, Profile the profiles, Admin what admins change and what decision points
// read of it, Worker does the jobs that all of them leave behind.
const (
	Auth    Role = "auth"
	Profile Role = "profile"
	Admin   Role = "admin"
	Worker  Role = "worker"
)

// Config is all that authsvc can be told. Each value comes from the environment variable beside it; a secret may also come
// from the file that the same variable with _FILE at its end names.
type Config struct {
	Roles       []Role           // AUTHSVC_ROLES: auth,profile,admin,worker
	Listen      string           // AUTHSVC_LISTEN: host:port
	DatabaseURL telemetry.Secret // AUTHSVC_DATABASE_URL: postgres://… or sqlite:path
	RedisURL    telemetry.Secret // AUTHSVC_REDIS_URL: redis://…, where the edge reads revocations
	RootKey     telemetry.Secret // AUTHSVC_ROOT_KEY: 64 hexadecimal digits; seals what is stored
	Issuer      string           // AUTHSVC_ISSUER: claim iss, an absolute URL
	Audience    string           // AUTHSVC_AUDIENCE: claim aud
	AccessTTL   time.Duration    // AUTHSVC_ACCESS_TTL: life of an access token
	SMTPURL     telemetry.Secret // AUTHSVC_SMTP_URL: smtp://… or smtps://…
	MailFrom    string           // AUTHSVC_MAIL_FROM: such as Gatehouse <noreply@example.org>
	HashAtOnce  int              // AUTHSVC_HASH_AT_ONCE: passwords hashed at the same moment; 0 for one per processor

	AdminListen     string       // AUTHSVC_ADMIN_LISTEN: host:port of /admin/v1
	DirectoryListen string       // AUTHSVC_DIRECTORY_LISTEN: host:port or unix:///path where decision points read roles; "" for nowhere
	DirectoryTokens string       // AUTHSVC_DIRECTORY_TOKENS_FILE: those decision points, a name and a token per line
	DirectoryTLS    caller.Files // AUTHSVC_DIRECTORY_TLS_CERT_FILE, _KEY_FILE, _CLIENT_CA_FILE
}

// UnixScheme begins an address that is the path of a Unix socket.
const UnixScheme = "unix://"

// Bounds of AccessTTL: a revocation is remembered as long as a token lives.
const (
	minAccessTTL = time.Minute
	maxAccessTTL = time.Hour
)

// Load reads the environment. It answers every value that cannot be read, by the variable's name, and shows none.
func Load(getenv func(string) string) (Config, error) {
	var errs []error
	text := func(name, absent string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return absent
	}
	secret := func(name string) telemetry.Secret {
		v, file := getenv(name), getenv(name+"_FILE")
		if file == "" {
			return telemetry.Secret(v)
		}
		if v != "" {
			errs = append(errs, fmt.Errorf("%s: given twice, also as %s_FILE", name, name))
		}
		data, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			errs = append(errs, fmt.Errorf("%s_FILE: %w", name, withoutPath(err)))
		}
		return telemetry.Secret(strings.TrimSpace(string(data)))
	}
	c := Config{
		Listen:      text("AUTHSVC_LISTEN", ":8081"),
		DatabaseURL: secret("AUTHSVC_DATABASE_URL"),
		RedisURL:    secret("AUTHSVC_REDIS_URL"),
		RootKey:     secret("AUTHSVC_ROOT_KEY"),
		Issuer:      getenv("AUTHSVC_ISSUER"),
		Audience:    text("AUTHSVC_AUDIENCE", "gatehouse-api"),
		SMTPURL:     secret("AUTHSVC_SMTP_URL"),
		MailFrom:    getenv("AUTHSVC_MAIL_FROM"),

		AdminListen:     text("AUTHSVC_ADMIN_LISTEN", "127.0.0.1:8083"),
		DirectoryListen: getenv("AUTHSVC_DIRECTORY_LISTEN"),
		DirectoryTokens: getenv("AUTHSVC_DIRECTORY_TOKENS_FILE"),
		DirectoryTLS: caller.Files{
			Cert: getenv("AUTHSVC_DIRECTORY_TLS_CERT_FILE"), Key: getenv("AUTHSVC_DIRECTORY_TLS_KEY_FILE"),
			ClientCA: getenv("AUTHSVC_DIRECTORY_TLS_CLIENT_CA_FILE"),
		},
	}
	for name := range strings.SplitSeq(text("AUTHSVC_ROLES", "auth,profile,worker"), ",") {
		c.Roles = append(c.Roles, Role(strings.TrimSpace(name)))
	}
	var err error
	if c.AccessTTL, err = time.ParseDuration(text("AUTHSVC_ACCESS_TTL", "5m")); err != nil {
		errs = append(errs, errors.New("AUTHSVC_ACCESS_TTL: not a duration such as 5m"))
	}
	if c.HashAtOnce, err = strconv.Atoi(text("AUTHSVC_HASH_AT_ONCE", "0")); err != nil || c.HashAtOnce < 0 {
		errs = append(errs, errors.New("AUTHSVC_HASH_AT_ONCE: not a number of hashes"))
	}
	return c, errors.Join(errs...)
}

// withoutPath takes the file's name out of an error: the secret itself may stand there by mistake.
func withoutPath(err error) error {
	if failed := new(fs.PathError); errors.As(err, &failed) {
		return fmt.Errorf("the file cannot be read: %w", failed.Err)
	}
	return errors.New("the file cannot be read")
}

// Has reports whether this process serves a role.
func (c Config) Has(r Role) bool { return slices.Contains(c.Roles, r) }

// Validate answers every problem of the roles that are served, each in a line that begins with the variable, in the
// operator's words and without a value.
func (c Config) Validate() error {
	errs := []error{c.ValidateStore()}
	wrong := func(variable, reason string) { errs = append(errs, errors.New(variable+": "+reason)) }
	if !c.rolesValid() {
		wrong("AUTHSVC_ROLES", "expected some of auth, profile, admin and worker, each once")
	}
	if !listenable(c.Listen) {
		wrong("AUTHSVC_LISTEN", "expected host:port, such as :8081")
	}
	if c.Has(Admin) {
		errs = append(errs, c.validateAdmin())
	}
	if c.RedisURL == "" {
		wrong("AUTHSVC_REDIS_URL", "is needed, so that the edge learns of ended sessions")
	} else if client, err := redisx.Open(c.RedisURL.Reveal()); err != nil {
		wrong("AUTHSVC_REDIS_URL", err.Error())
	} else {
		_ = client.Close() // nothing was connected
	}
	if !issuerValid(c.Issuer) {
		wrong("AUTHSVC_ISSUER", "expected an absolute URL without user, query and fragment, such as https://api.example.org")
	}
	if c.Audience == "" {
		wrong("AUTHSVC_AUDIENCE", "is empty")
	}
	if c.AccessTTL < minAccessTTL || c.AccessTTL > maxAccessTTL {
		wrong("AUTHSVC_ACCESS_TTL", fmt.Sprintf("expected %s to %s", minAccessTTL, maxAccessTTL))
	}
	if c.Has(Worker) && c.SMTPURL != "" {
		from := c.MailFrom
		if _, err := netmail.ParseAddress(from); err != nil {
			wrong("AUTHSVC_MAIL_FROM", "expected an address such as Gatehouse <noreply@example.org>")
			from = "noreply@example.org"
		}
		if _, err := mail.NewSMTP(c.SMTPURL, from); err != nil {
			wrong("AUTHSVC_SMTP_URL", err.Error())
		}
	}
	return errors.Join(errs...)
}

// validateAdmin checks what only the role admin needs.
func (c Config) validateAdmin() error {
	var errs []error
	wrong := func(variable, reason string) { errs = append(errs, errors.New(variable+": "+reason)) }
	if !listenable(c.AdminListen) {
		wrong("AUTHSVC_ADMIN_LISTEN", "expected host:port, such as 127.0.0.1:8083")
	}
	tls := c.DirectoryTLS
	if (tls.Cert == "") != (tls.Key == "") || tls.ClientCA != "" && tls.Cert == "" {
		wrong("AUTHSVC_DIRECTORY_TLS_CERT_FILE", "a certificate needs its key, a key its certificate, and a client CA both")
	}
	switch {
	case c.DirectoryListen == "":
	case !listenable(c.DirectoryListen) && !strings.HasPrefix(c.DirectoryListen, UnixScheme+"/"):
		wrong("AUTHSVC_DIRECTORY_LISTEN", "expected host:port, such as 127.0.0.1:8084, or unix:///path")
	case c.DirectoryTokens == "" && tls.ClientCA == "":
		wrong("AUTHSVC_DIRECTORY_TOKENS_FILE", "is needed, or AUTHSVC_DIRECTORY_TLS_CLIENT_CA_FILE: the directory tells who may do what")
	}
	return errors.Join(errs...)
}

func (c Config) rolesValid() bool {
	seen := map[Role]bool{}
	for _, r := range c.Roles {
		if seen[r] || !slices.Contains([]Role{Auth, Profile, Admin, Worker}, r) {
			return false
		}
		seen[r] = true
	}
	return len(seen) > 0
}

func listenable(address string) bool {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// issuerValid wants a URL that is written as it is compared (RFC 8414 section 2): whatever stands in it is in every token.
func issuerValid(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil &&
		!strings.ContainsAny(issuer, "?#") && u.String() == issuer
}

// ValidateStore checks what every command needs: the database and the key that seals what is in it.
func (c Config) ValidateStore() error {
	_, err := c.rootKey()
	return errors.Join(c.ValidateDatabase(), err)
}

// ValidateDatabase checks what migrating needs. Whether the database is there shows when it is opened.
func (c Config) ValidateDatabase() error {
	const expected = "postgres://… or sqlite:path"
	dsn := c.DatabaseURL.Reveal()
	if dsn == "" {
		return errors.New("AUTHSVC_DATABASE_URL: is needed: " + expected)
	}
	for _, scheme := range []string{"postgres://", "postgresql://", "sqlite:"} {
		if strings.HasPrefix(dsn, scheme) {
			return nil
		}
	}
	return errors.New("AUTHSVC_DATABASE_URL: expected " + expected)
}

// rootKey refuses what is no key of random bytes: a boot with a known key would be an open door (S7).
func (c Config) rootKey() ([]byte, error) {
	key, err := hex.DecodeString(c.RootKey.Reveal())
	if err != nil || len(key) != seal.KeySize {
		return nil, errors.New("AUTHSVC_ROOT_KEY: expected 64 hexadecimal digits, such as `openssl rand -hex 32` prints")
	}
	distinct := map[byte]bool{}
	steps := map[byte]bool{}
	for i, b := range key {
		distinct[b] = true
		if i > 0 {
			steps[b-key[i-1]] = true
		}
	}
	if len(distinct) < 8 || len(steps) < 8 {
		return nil, errors.New("AUTHSVC_ROOT_KEY: this is a pattern, not a random key; make one by `openssl rand -hex 32`")
	}
	return key, nil
}
