// Package redisx opens Redis as every program here wants it, impatient, and holds what the programs say to each other
// through it: the stream of revocations.
package redisx

import (
	"errors"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
)

// Open makes a client for redis://, rediss:// or unix:// and connects nothing yet. One command tries once and is given up
// early: a Redis that is away must cost a request next to nothing. The error never holds the URL, which may hold a password.
func Open(address string) (redis.UniversalClient, error) {
	if _, err := url.Parse(address); err != nil {
		return nil, errors.New("redis: not a URL")
	}
	opts, err := redis.ParseURL(address)
	if err != nil {
		return nil, errors.New("redis: expected redis://host:port/database, rediss:// or unix://")
	}
	opts.MaxRetries = -1
	opts.DialerRetries = 1
	opts.DialTimeout = 250 * time.Millisecond
	opts.ReadTimeout = 250 * time.Millisecond
	opts.WriteTimeout = 250 * time.Millisecond
	opts.PoolTimeout = 250 * time.Millisecond
	opts.ContextTimeoutEnabled = true
	opts.DisableIdentity = true
	return redis.NewClient(opts), nil
}
