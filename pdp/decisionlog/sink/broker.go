package sink

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// BrokerTLS are PEM files by which a message broker and we know each other. All may be "".
type BrokerTLS struct {
	CAFile            string // the authorities that the broker's certificate is believed from; "" for the system's
	CertFile, KeyFile string // ours
}

// config reads the files anew, so that they can be changed.
func (f BrokerTLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CAFile != "" {
		text, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", f.CAFile)
		}
	}
	switch {
	case (f.CertFile == "") != (f.KeyFile == ""):
		return nil, errors.New("cert_file and key_file belong together")
	case f.CertFile != "":
		pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s and %s are no certificate and its key", f.CertFile, f.KeyFile)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (f BrokerTLS) some() bool { return f != BrokerTLS{} }

// password reads a file anew, so that it can be changed; "" where there is none.
func password(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator named it
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// marks are what a message says of its record beside it.
type marks struct {
	ID     string `json:"decision_id"`
	Labels struct {
		ID string `json:"id"` // of the decision point
	} `json:"labels"`
}

// marksOf reads a record. One that is none has no marks.
func marksOf(record []byte) (m marks) {
	_ = json.Unmarshal(record, &m)
	return m
}
