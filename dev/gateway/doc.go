// Package gateway is a small stand-in for Kong 3.9, for development and tests on a machine that has none. It reads the same
// declarative kong.yml, routes and balances as Kong does, and drives the plugin through its Unix socket with Kong's own
// frames, so that what works here works there.
//
// It refuses what it does not implement instead of passing over it, it shows the plugin the path as the client sent it though
// routes and upstreams get it normalised, and it fails closed: a request whose plugin cannot be asked gets 500.
package gateway
