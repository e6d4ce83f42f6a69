package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

func TestAFaultIsFoundThroughWrapping(t *testing.T) {
	t.Parallel()
	cause := errors.New("connection refused")
	taken := fault.New(fault.Conflict, "the address is taken").Named("email_taken")
	err := fmt.Errorf("register: %w", taken.Because(cause))

	if !errors.Is(err, taken) {
		t.Error("errors.Is does not see the same code and reason")
	}
	if !errors.Is(err, cause) {
		t.Error("errors.Is does not see the cause")
	}
	if got := fault.CodeOf(err); got != fault.Conflict {
		t.Errorf("CodeOf = %q, want %q", got, fault.Conflict)
	}
	if errors.Is(err, taken.Named("name_taken")) {
		t.Error("another reason counts as the same fault")
	}
	if taken.Err != nil {
		t.Error("Because changed the fault that it was called on")
	}
}

func TestAnErrorWithoutAFaultIsInternal(t *testing.T) {
	t.Parallel()
	if got := fault.CodeOf(errors.New("x")); got != fault.Internal {
		t.Errorf("CodeOf = %q, want %q", got, fault.Internal)
	}
}
