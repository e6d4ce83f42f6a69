package spool_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// What is being written has a torn end; what is damaged costs no more than itself.
func TestScanReadsAroundDamage(t *testing.T) {
	t.Parallel()
	frame := func(text string) []byte {
		b := append(spool.AppendFrame(nil), text...)
		if err := spool.Seal(b, 0, time.Unix(7, 0)); err != nil {
			t.Fatal(err)
		}
		return b
	}
	bad := frame("bad")
	bad[len(bad)-1] ^= 1
	var all []byte
	for _, f := range [][]byte{frame("one"), bad, frame("two"), frame("torn")[:15]} {
		all = append(all, f...)
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"0000000000000001.seg": all, "0000000000000002.seg": frame("three"), "file.place": []byte("x")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	damaged, err := spool.Scan(dir, func(r spool.Record) error {
		got = append(got, string(r.Text))
		return nil
	})
	if err != nil || damaged != 1 || len(got) != 3 || got[0] != "one" || got[1] != "two" || got[2] != "three" {
		t.Errorf("read %q, %d damaged, %v", got, damaged, err)
	}
}
