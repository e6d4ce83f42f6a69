package author

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Regal runs the linter regal over the folder dir, with regal's own configuration if there is one in it or above. The program must be
// in PATH: it is not part of this one, for its module brings a language server along.
func Regal(ctx context.Context, dir string) ([]Finding, error) {
	name, err := exec.LookPath("regal")
	if err != nil {
		return nil, fmt.Errorf("--regal: regal is not in PATH: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "lint", "--format", "json", "--", dir) //nolint:gosec // the folder that the user named
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // it ends with 2 or 3 where it found something
		return nil, fmt.Errorf("regal: %w", err)
	}
	var report struct {
		Violations *[]struct {
			Title, Description, Category string
			Location                     struct {
				File string
				Row  int
			}
		}
	}
	if bad := json.NewDecoder(bytes.NewReader(out)).Decode(&report); bad != nil || report.Violations == nil {
		return nil, fmt.Errorf("regal: no report (%w): %s", errors.Join(bad, err), strings.TrimSpace(stderr.String()))
	}
	var found []Finding
	for _, v := range *report.Violations {
		found = append(found, Finding{File: v.Location.File, Line: v.Location.Row, Rule: "regal/" + v.Category + "/" + v.Title, Message: v.Description})
	}
	return found, nil
}
