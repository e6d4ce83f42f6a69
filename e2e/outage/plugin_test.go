package outage_test

import (
	"syscall"
	"testing"
	"time"
)

// pluginOutages: the gateway starts the plugin again, at most once a second, and answers 500 until it listens. The new process
// knows nothing: it refuses tokens until it has the issuer's keys and has read which sessions have ended.
func pluginOutages() []outage {
	fresh := []string{pluginAway, "revocations_unknown", "keys_unavailable"}
	return []outage{{
		name: "plugin killed", may: map[string][]string{"": fresh}, bad: fresh, back: 2 * time.Second,
		shows: map[string]string{"/orders": pluginAway, "/public": pluginAway},
		open: func(t *testing.T) (*site, func(), func()) {
			s := open(t, around{})
			begin := func() {
				for first := s.starts.Load(); s.starts.Load() < first+3; { // three processes, one after the other
					at := s.starts.Load()
					if err := syscall.Kill(int(s.pid.Load()), syscall.SIGKILL); err != nil {
						t.Errorf("kill the plugin: %v", err)
					}
					s.wait("the plugin is started again", func() bool { return s.starts.Load() > at })
				}
			}
			return s, begin, func() {}
		},
	}}
}
