package web

import (
	"errors"
	"io"
	"os"
	"strings"
)

const maxToken = 16 << 10 // bytes

// ReadToken answers the bearer token (RFC 6750 section 2.1) that a file holds, without the space around it. No error holds any of it.
func ReadToken(name string) (string, error) {
	f, err := os.Open(name) //nolint:gosec // the operator says which
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", errors.New("holds no token")
	}
	return token, nil
}
