// Package requestline says which methods, hosts and targets of a request every parser reads alike. What it refuses is refused by the
// edge and by the decision point, for two readings of one request are how a check is passed by.
package requestline

import (
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	maxMethod = 32
	maxHost   = 255 + len(":65535")
)

// Method accepts what proxies do: methods are case-sensitive, and an upstream could take "get" for GET.
func Method(s string) bool {
	return s != "" && len(s) <= maxMethod && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == ""
}

// Host accepts a name or an address with or without a port, and nothing that could be a user, a path or two hosts.
func Host(s string) bool {
	return s != "" && len(s) <= maxHost && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") == ""
}

// OriginForm cuts a request target at its query. Anything but origin-form (RFC 9112 section 3.2.1) is refused: the absolute
// form has a host of its own, and a fragment is no part of a request.
func OriginForm(target string) (path, query string, err error) {
	if !strings.HasPrefix(target, "/") {
		return "", "", errors.New("the target is not in origin-form")
	}
	if strings.IndexByte(target, '#') >= 0 {
		return "", "", errors.New("the target has a fragment")
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return "", "", errors.New("the target holds a space or control character")
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query, nil
}

// Plain reports whether a header value is UTF-8 without control characters.
func Plain(s string) bool {
	for i := range len(s) {
		if (s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

// Canonical reports whether every parser sees the same segments in the path: absolute, no empty or dot segment, no
// separator, dot, percent, control or non-UTF-8 byte in disguise, no path parameter.
func Canonical(p string) bool {
	if p == "" || p[0] != '/' || strings.Contains(p, "//") || strings.ContainsAny(p, "\\;#?\t") || !Plain(p) {
		return false
	}
	decoded := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c == '%' {
			if i+2 >= len(p) {
				return false
			}
			hi, lo := unhex(p[i+1]), unhex(p[i+2])
			if hi < 0 || lo < 0 {
				return false
			}
			c, i = byte(hi<<4|lo), i+2
			if c < 0x20 || c == 0x7f || strings.IndexByte(`/\.%;?#`, c) >= 0 {
				return false
			}
		}
		decoded = append(decoded, c)
	}
	if !utf8.Valid(decoded) {
		return false
	}
	for segment := range strings.SplitSeq(string(decoded), "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
