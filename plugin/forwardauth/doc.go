// Package forwardauth lets other proxies than Kong ask the guard: NGINX's auth_request, Traefik's ForwardAuth, Caddy's
// forward_auth and Envoy's ext_authz. What is guarded, and how, stands in the same kong.yml; a request's route is found in it
// by the method, host and path that the proxy tells.
//
// Which proxy asks is configured, never guessed: each has its own headers for the original request, and one that is believed
// although the proxy does not set it would be the client's word. Whoever can reach the listener is believed as the proxy is,
// so that it listens on a Unix socket, a loopback or a private address only.
//
// A request is answered with 2xx only if it may pass. Every other outcome, a panic and a proxy's words that cannot be read
// among them, is an answer at which the proxy refuses.
package forwardauth
