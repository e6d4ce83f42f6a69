// Package redisx opens Redis as every program here wants it, impatient, and holds what the programs say to each other
// through it: the stream of revocations and its snapshot, and which plugin processes there are.
package redisx

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// patience bounds each step of one command: a Redis that is away must cost a request next to nothing.
const patience = 250 * time.Millisecond

var errAddress = errors.New("redis: expected redis://host:port/database, rediss://, unix://path, redis+sentinel://host,host/database?master=name or redis+cluster://host,host")

// Open makes a client and connects nothing yet. One command tries once and is given up early. The error never holds the
// address, which may hold a password. Addresses, where rediss is redis over TLS:
//
//	redis://user:password@host:6379/0                                     one server; also unix://path
//	redis+sentinel://user:password@host:26379,host:26379/0?master=name    what Sentinels say is the master; with
//	                                                                      &sentinel_username= and &sentinel_password= for themselves
//	redis+cluster://user:password@host:6379,host:6379                     a cluster; a few of its nodes are enough
//
// Each takes what go-redis' ParseURL takes after ?, and patience=250ms: how long to wait in each step of a command.
func Open(address string) (redis.UniversalClient, error) { return OpenFor(address, patience) }

// OpenFor is Open for work that no request waits for: each step of a command may take wait, unless the address says otherwise.
func OpenFor(address string, wait time.Duration) (redis.UniversalClient, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return nil, errAddress
	}
	plain, kind, _ := strings.Cut(scheme, "+")
	userinfo, hosts, path, query, err := split(rest)
	if err != nil || (kind != "" && (plain != "redis" && plain != "rediss" || len(hosts) == 0)) {
		return nil, errAddress
	}
	wait, err = time.ParseDuration(take(query, "patience", wait.String()))
	if err != nil || wait < time.Millisecond || wait > time.Minute {
		return nil, errors.New("redis: patience: expected a time from 1ms to 1m")
	}
	master, user, password := take(query, "master", ""), take(query, "sentinel_username", ""), take(query, "sentinel_password", "")
	if len(hosts) == 0 {
		hosts = []string{""} // a socket
	}
	// Several hosts are no URL: the first stands for all, the list goes beside it.
	o, err := redis.ParseURL(plain + "://" + userinfo + hosts[0] + path + "?" + query.Encode())
	if err != nil {
		return nil, errAddress
	}
	if kind != "" && o.TLSConfig != nil {
		o.TLSConfig.ServerName = "" // each host is asked for by its own name
	}
	switch {
	case kind == "" && len(hosts) == 1 && master == "":
		o.MaxRetries, o.DialerRetries, o.Protocol, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, 2, true, true
		o.MaintNotificationsConfig = quiet()
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = wait, wait, wait, wait
		return redis.NewClient(o), nil
	case kind == "sentinel" && master != "":
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: master, SentinelAddrs: withPort(hosts, "26379"), SentinelUsername: user, SentinelPassword: password,
			Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLSConfig, PoolSize: o.PoolSize,
			MaxRetries: -1, DialerRetries: 1, Protocol: 2, ContextTimeoutEnabled: true, DisableIdentity: true,
			DialTimeout: wait, ReadTimeout: wait, WriteTimeout: wait, PoolTimeout: wait,
		}), nil
	case kind == "cluster" && o.DB == 0 && master == "":
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: withPort(hosts, "6379"), Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig, PoolSize: o.PoolSize,
			MaxRetries: -1, DialerRetries: 1, Protocol: 2, ContextTimeoutEnabled: true, DisableIdentity: true,
			DialTimeout: wait, ReadTimeout: wait, WriteTimeout: wait, PoolTimeout: wait, MaintNotificationsConfig: quiet(),
		}), nil
	}
	return nil, errAddress
}

// Quiet keeps go-redis from writing lines of its own form to standard error: it answers what it has to say as errors as well,
// which are logged where they matter. It is for the whole process, and for its main to call.
func Quiet() { logging.Disable() }

// quiet keeps go-redis from asking each server whether it announces its maintenance, as only Redis Enterprise does, and
// from looking its name up when a client is made.
func quiet() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// Shown is an address that Open takes without what may be secret in it: user, password and what stands after ?.
func Shown(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	_, hosts, path, _, err := split(rest)
	if !ok || err != nil {
		return "unreadable"
	}
	return scheme + "://" + strings.Join(hosts, ",") + path
}

// take answers a value of the query, or def, and takes it out, for go-redis does not know it.
func take(query url.Values, name, def string) string {
	v := query.Get(name)
	query.Del(name)
	if v == "" {
		return def
	}
	return v
}

// split takes an address without its scheme apart: "user:password@", the hosts, the path and the query.
func split(rest string) (userinfo string, hosts []string, path string, query url.Values, err error) {
	rest, raw, _ := strings.Cut(rest, "?")
	if query, err = url.ParseQuery(raw); err != nil {
		return "", nil, "", nil, err
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest, path = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		userinfo, rest = rest[:i+1], rest[i+1:]
	}
	for h := range strings.SplitSeq(rest, ",") {
		if h = strings.TrimSpace(h); h != "" {
			hosts = append(hosts, h)
		}
	}
	return userinfo, hosts, path, query, nil
}

func withPort(hosts []string, port string) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if out[i] = h; !strings.Contains(h, ":") || strings.HasSuffix(h, "]") {
			out[i] = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
	}
	return out
}
