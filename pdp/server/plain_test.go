package server

import (
	"encoding/json"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
)

func TestAPlainAnswerIsWrittenAsAnyOther(t *testing.T) {
	t.Parallel()
	for _, yes := range []any{true, false} {
		want, err := json.Marshal(dataapi.Response{DecisionID: "01a21229-8372-74a6-aee8-3080cfb352c3", Result: &yes})
		if got := plainAnswer("01a21229-8372-74a6-aee8-3080cfb352c3", yes == true); err != nil || string(got) != string(want)+"\n" {
			t.Errorf("%s, want %s, %v", got, want, err)
		}
	}
}
