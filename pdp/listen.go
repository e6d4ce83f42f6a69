package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
)

// entrance is where requests come in, who may, and what keeps that up to date.
type entrance struct {
	net.Listener
	callers caller.Check
	tls     *caller.TLS // nil: none
	parts   []lifecycle.Service
}

// open listens as configured. Beyond this machine it does not unless callers have to show who they are, or the operator has said
// that anybody may ask (S71): whoever asks can try out who may do what.
func open(ctx context.Context, c config, log *slog.Logger) (*entrance, error) {
	e := &entrance{}
	if c.tokens != "" {
		tokens, err := caller.OpenTokens(c.tokens, log)
		if err != nil {
			return nil, err
		}
		e.callers.Tokens, e.parts = tokens, append(e.parts, tokens)
	}
	var config *tls.Config
	if c.tls.Cert != "" {
		t, err := caller.OpenTLS(c.tls, log)
		if err != nil {
			return nil, err
		}
		config, e.tls, e.callers.Certificates, e.parts = t.Config(), t, t.Mutual(), append(e.parts, t)
	}
	var err error
	e.Listener, err = e.at(ctx, "listen", c.listen, c, config, log)
	return e, err
}

// envoy listens for Envoy as open does for others; nil where it is not wanted.
func (e *entrance) envoy(ctx context.Context, c config, log *slog.Logger) (net.Listener, error) {
	if c.envoyListen == "" {
		return nil, nil
	}
	var config *tls.Config
	if e.tls != nil {
		config = e.tls.HTTP2()
	}
	return e.at(ctx, "envoy-listen", c.envoyListen, c, config, log)
}

// at listens at an address of the option named.
func (e *entrance) at(ctx context.Context, option, address string, c config, tlsConfig *tls.Config, log *slog.Logger) (net.Listener, error) {
	ln, err := listen(ctx, address, c.socketMode)
	if err != nil {
		return nil, err
	}
	if at, ok := ln.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() {
		switch {
		case !e.callers.Required() && !c.anyoneMayAsk:
			return nil, errors.Join(fmt.Errorf("%s: %s can be reached from elsewhere, and no caller has to show who it is: "+
				"set tokens-file or tls-client-ca-file, or say anyone-may-ask", option, address), ln.Close())
		case !e.callers.Required():
			log.WarnContext(ctx, "anyone who reaches this address may ask", "address", ln.Addr().String())
		case tlsConfig == nil:
			log.WarnContext(ctx, "callers' tokens travel without TLS", "address", ln.Addr().String())
		}
	}
	if tlsConfig != nil {
		ln = tls.NewListener(ln, tlsConfig)
	}
	return ln, nil
}

// listen opens a TCP port or a Unix socket.
func listen(ctx context.Context, address string, mode fs.FileMode) (net.Listener, error) {
	if path, unix := strings.CutPrefix(address, "unix://"); unix {
		return web.ListenUnix(ctx, path, mode)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}
