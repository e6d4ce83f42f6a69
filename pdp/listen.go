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
		config, e.callers.Certificates, e.parts = t.Config(), t.Mutual(), append(e.parts, t)
	}
	ln, err := listen(ctx, c.listen, c.socketMode)
	if err != nil {
		return nil, err
	}
	if at, ok := ln.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() {
		switch {
		case !e.callers.Required() && !c.anyoneMayAsk:
			return nil, errors.Join(fmt.Errorf("listen: %s can be reached from elsewhere, and no caller has to show who it is: "+
				"set tokens-file or tls-client-ca-file, or say anyone-may-ask", c.listen), ln.Close())
		case !e.callers.Required():
			log.WarnContext(ctx, "anyone who reaches this address may ask", "address", ln.Addr().String())
		case config == nil:
			log.WarnContext(ctx, "callers' tokens travel without TLS", "address", ln.Addr().String())
		}
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	e.Listener = ln
	return e, nil
}

// listen opens a TCP port or a Unix socket.
func listen(ctx context.Context, address string, mode fs.FileMode) (net.Listener, error) {
	if path, unix := strings.CutPrefix(address, "unix://"); unix {
		return web.ListenUnix(ctx, path, mode)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}
