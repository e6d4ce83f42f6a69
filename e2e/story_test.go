package e2e_test

import (
	"os"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/dev/stack"
	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// The whole story, once with the plugin as Kong runs it and once in one process, as `make dev` has it.
func TestTheStory(t *testing.T) {
	t.Parallel()
	for name, child := range map[string]bool{"plugin as a child": true, "one process": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s site
			if os.Getenv("GATEHOUSE_URL") != "" {
				if !child {
					t.Skip("how the plugin runs at GATEHOUSE_URL is not ours to choose")
				}
				s = open(t)
			} else {
				o := stack.Options{}
				if child {
					binary, err := plugin()
					if err != nil {
						t.Fatal(err)
					}
					o.Plugin = binary
				}
				s = own(t, o)
			}
			var told strings.Builder
			if err := story.Play(t.Context(), s.Site, &told); err != nil {
				t.Errorf("%v\n%s", err, told.String())
			}
			if s.stack != nil && !strings.Contains(told.String(), " 0 skipped") {
				t.Errorf("steps were skipped:\n%s", told.String())
			}
		})
	}
}
