// Package sinktest is the contract of decisionlog.Sink, as tests.
package sinktest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// Place is a sink under test, and where it delivers to.
type Place struct {
	Sink decisionlog.Sink
	// Delivered answers what has arrived, in the order of arrival where there is one; a record may be there twice.
	Delivered func(t *testing.T) []string
	// Break makes deliveries fail until it is mended, as an outage does.
	Break func(t *testing.T) (mend func())
	// Secrets are texts that must be in no error.
	Secrets []string
}

const canary = "canary-in-a-record"

// Records are n records; the nth has its number in decision_id.
func Records(from, to int) (records [][]byte) {
	for i := from; i < to; i++ {
		records = append(records, fmt.Appendf(nil,
			`{"decision_id":"d-%06d","timestamp":"2026-03-03T12:00:00.%06dZ","input":{"subject":{"id":"%s é \u0001 \u2028 \\ \" \\u0000"}},"gatehouse":{"outcome":"deny"}}`, i, i, canary))
	}
	return records
}

// Run checks a sink. open answers a new one that delivers to a place of its own.
func Run(t *testing.T, open func(*testing.T) Place) {
	slice := func(name string, check func(*testing.T, Place)) {
		t.Run(name, func(t *testing.T) {
			p := open(t)
			check(t, p)
			if err := p.Sink.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	slice("records arrive unchanged and in order", inOrder)
	slice("no records are no delivery", none)
	slice("a large batch arrives whole", largeBatch)
	slice("a record may be delivered again", again)
	slice("an outage is an error, and over once it is mended", outage)
	slice("a context that has ended is an error", ended)
	slice("nothing is written after the end", closed)
}

func write(t *testing.T, p Place, records [][]byte) {
	t.Helper()
	if err := p.Sink.Write(t.Context(), records); err != nil {
		t.Fatal(err)
	}
}

// want fails unless these records have arrived, in this order if each came once.
func want(t *testing.T, p Place, records [][]byte) {
	t.Helper()
	var got, want []any
	for _, text := range p.Delivered(t) {
		got = append(got, value(t, []byte(text)))
	}
	for _, r := range records {
		want = append(want, value(t, r))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%d of %d records: %.2000s", len(got), len(want), diff)
	}
}

func value(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

func inOrder(t *testing.T, p Place) {
	write(t, p, Records(0, 3))
	write(t, p, Records(3, 4))
	write(t, p, Records(4, 104))
	want(t, p, Records(0, 104))
}

func none(t *testing.T, p Place) {
	write(t, p, nil)
	write(t, p, [][]byte{})
	want(t, p, nil)
}

func largeBatch(t *testing.T, p Place) {
	records := Records(0, 1000)
	write(t, p, records)
	want(t, p, records)
}

func again(t *testing.T, p Place) {
	write(t, p, Records(0, 5))
	write(t, p, Records(0, 5))
	write(t, p, Records(3, 7))
	seen := map[string]bool{}
	for _, text := range p.Delivered(t) {
		seen[text] = true
	}
	if len(seen) != 7 {
		t.Errorf("%d different records, want 7", len(seen))
	}
}

func outage(t *testing.T, p Place) {
	write(t, p, Records(0, 2))
	mend := p.Break(t)
	for range 2 {
		err := p.Sink.Write(t.Context(), Records(2, 4))
		if err == nil {
			t.Fatal("it is delivered to nobody")
		}
		for _, secret := range append(p.Secrets, canary) {
			if secret != "" && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
				t.Errorf("the error tells %q: %v", secret, err)
			}
		}
	}
	mend()
	deadline := time.Now().Add(30 * time.Second)
	for err := p.Sink.Write(t.Context(), Records(2, 4)); err != nil; err = p.Sink.Write(t.Context(), Records(2, 4)) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come back: %v", err)
		}
	}
	seen := map[string]bool{}
	for _, text := range p.Delivered(t) {
		seen[text] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d different records, want 4", len(seen))
	}
}

func ended(t *testing.T, p Place) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Sink.Write(ctx, Records(0, 1)); err == nil {
		t.Error("it is delivered")
	}
	write(t, p, Records(0, 1))
}

func closed(t *testing.T, p Place) {
	for range 2 {
		if err := p.Sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Sink.Write(t.Context(), Records(0, 1)); err == nil {
		t.Error("it is delivered")
	}
}
