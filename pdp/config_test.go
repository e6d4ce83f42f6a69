package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A token of a service leaves this machine by TLS only.
func TestATokenOfAServiceGoesByTLSOrStaysHere(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	services, err := parseServices("near=http://127.0.0.1:9000|http://localhost:9001,far=https://orders.test,plain=http://orders.test,mixed=https://orders.test|http://127.evil.test")
	if err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{
		"": true, "near=" + file: true, "near=" + file + ", far=" + file: true,
		"plain=" + file: false, "mixed=" + file: false, "nobody=" + file: false, "near": false, "near=": false, "near=" + file + ".gone": false, "near=" + file + ",near=" + file: false,
	} {
		files, err := parseServiceTokens(text, services)
		if (err == nil) != good || good && text != "" && files["near"] != file {
			t.Errorf("%q: %v, %v", text, files, err)
		}
	}
}
