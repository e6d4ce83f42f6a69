package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
)

// administration opens the listeners of the role admin, and answers what serves on them.
func administration(ctx context.Context, c app.Config, a *app.App, log *slog.Logger) ([]lifecycle.Service, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.AdminListen)
	if err != nil {
		return nil, fmt.Errorf("AUTHSVC_ADMIN_LISTEN: %w", err)
	}
	log.InfoContext(ctx, "serving admins", "address", ln.Addr().String())
	more := []lifecycle.Service{a.Serving(ln, a.Admin)}
	if c.DirectoryListen == "" {
		return more, nil
	}
	feed, err := directory(ctx, c, a, log)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return append(more, feed...), nil
}

// socketMode lets the group of authsvc's user ask.
const socketMode = 0o660

// listen opens a TCP port or a Unix socket.
func listen(ctx context.Context, address string) (net.Listener, error) {
	if path, unix := strings.CutPrefix(address, app.UnixScheme); unix {
		return web.ListenUnix(ctx, path, socketMode)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// directory opens the listener for decision points, who show a token or a certificate (S71). What a token opens does not travel
// beyond this machine in the clear, and neither does the token.
func directory(ctx context.Context, c app.Config, a *app.App, log *slog.Logger) ([]lifecycle.Service, error) {
	var check caller.Check
	var parts []lifecycle.Service
	if c.DirectoryTokens != "" {
		tokens, err := caller.OpenTokens(c.DirectoryTokens, log)
		if err != nil {
			return nil, fmt.Errorf("AUTHSVC_DIRECTORY_TOKENS_FILE: %w", err)
		}
		check.Tokens, parts = tokens, append(parts, tokens)
	}
	var config *tls.Config
	if c.DirectoryTLS.Cert != "" {
		t, err := caller.OpenTLS(c.DirectoryTLS, log)
		if err != nil {
			return nil, fmt.Errorf("AUTHSVC_DIRECTORY_TLS_CERT_FILE: %w", err)
		}
		config, check.Certificates, parts = t.Config(), t.Mutual(), append(parts, t)
	}
	ln, err := listen(ctx, c.DirectoryListen)
	if err != nil {
		return nil, fmt.Errorf("AUTHSVC_DIRECTORY_LISTEN: %w", err)
	}
	if at, ok := ln.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() && config == nil {
		return nil, errors.Join(errors.New("AUTHSVC_DIRECTORY_LISTEN: can be reached from elsewhere, so AUTHSVC_DIRECTORY_TLS_CERT_FILE and _KEY_FILE are needed"), ln.Close())
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	log.InfoContext(ctx, "serving decision points", "address", ln.Addr().String())
	return append(parts, a.Serving(ln, a.Directory(check.Identify))), nil
}
