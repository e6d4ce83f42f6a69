package forwardauth

import (
	"net/http"
	"net/netip"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// checkGRPC answers one call of Check.
func (h *Handler) checkGRPC(w http.ResponseWriter, r *http.Request) {
	message, err := extauthz.Receive(w, r)
	if err != nil {
		h.Log.WarnContext(r.Context(), "call by Envoy failed", "error", err)
		return
	}
	v := h.verdict(r.Context(), func() (guard.Request, error) { return readCheck(message) })
	extauthz.Reply(w, appendVerdict(make([]byte, 0, 1024), v))
}

// readCheck answers the original request out of a CheckRequest. The client's address is the one that Envoy believes (S15).
func readCheck(message []byte) (guard.Request, error) {
	c, err := extauthz.Read(message)
	if err != nil {
		return guard.Request{}, errWords.Because(err)
	}
	out := guard.Request{Method: c.Method, Host: c.Host, Header: c.Header}
	if out.Addr, err = netip.ParseAddr(c.Address); err != nil || out.Addr.Zone() != "" {
		return out, unreadable("source.address is not an address")
	}
	out.Addr = out.Addr.Unmap()
	return out, complete(&out, c.Path)
}

// appendVerdict encodes a CheckResponse.
func appendVerdict(b []byte, v guard.Verdict) []byte {
	if v.Forward {
		return extauthz.Pass{Set: v.SetHeaders, Respond: v.Respond}.Append(b)
	}
	return extauthz.Refusal{Status: v.Status, Header: v.Header, Body: v.Body}.Append(b)
}
