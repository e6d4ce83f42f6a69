package directory

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// document reads an OPA data.json: the object that policies read as data.directory, at the top or as its member "directory".
// What else the file holds is left out.
type document struct {
	dec    *json.Decoder
	b      *snapshotBuilder
	nested bool
	seen   map[string]bool
	at     int64 // byte behind the name of the member that was read last
}

// member is what a data.json says of a subject: roles for the whole world and for ever, and bindings as the feed has them.
type member struct {
	Tenant     string         `json:"tenant"`
	Groups     []string       `json:"groups"`
	Roles      []string       `json:"roles"`
	Attributes map[string]any `json:"attributes"`
	Bindings   []feed.Binding `json:"bindings"`
}

// ReadData reads an OPA data.json. Its revision is that of its contents.
func ReadData(in io.Reader, limits Limits) (*View, error) {
	return readData(in, 0, limits.withDefaults())
}

func readData(in io.Reader, hint int, limits Limits) (*View, error) {
	sum := sha256.New()
	d := &document{dec: json.NewDecoder(&summed{&bounded{in: in, left: limits.Bytes}, sum}), b: newSnapshot(hint, limits), seen: map[string]bool{}}
	d.dec.UseNumber()
	d.dec.DisallowUnknownFields() // what is not understood might be a condition
	err := d.object(d.top)
	if err == nil {
		err = nothingMore(d.dec)
	}
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCut
	case err != nil:
		return nil, &placedError{plain(err), d.at}
	case len(d.seen) == 0:
		return nil, errors.New("it has no directory with subjects or roles")
	}
	d.b.begin = feed.Begin{Epoch: "file", Revision: binary.BigEndian.Uint64(sum.Sum(nil))}
	return d.b.view(), nil
}

// placedError is a mistake behind the member whose name ends at a byte of the document.
type placedError struct {
	error
	at int64
}

func (e *placedError) Unwrap() error { return e.error }

type summed struct {
	in  io.Reader
	sum hash.Hash
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

// object reads an object member by member.
func (d *document) object(member func(name string) error) error {
	if t, err := d.dec.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("something is not an object that must be one")
	}
	for d.dec.More() {
		t, err := d.dec.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		d.at = d.dec.InputOffset()
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := d.dec.Token()
	return err
}

func (d *document) top(name string) error {
	if name == "directory" {
		if len(d.seen) > 0 {
			return errors.New("directory is there twice, or beside subjects or roles")
		}
		d.nested = true
		return d.object(d.part)
	}
	if d.nested {
		return d.skip()
	}
	return d.part(name)
}

// part reads subjects and roles. Every other member of a directory would be a mistake; beside one, it is someone else's.
func (d *document) part(name string) error {
	switch name {
	case "subjects", "roles":
	default:
		return d.skip()
	}
	if d.seen[name] {
		return fmt.Errorf("%s are there twice", name)
	}
	d.seen[name] = true
	if name == "roles" {
		return d.object(d.role)
	}
	return d.object(d.subject)
}

func (d *document) skip() error {
	var anything json.RawMessage
	return d.dec.Decode(&anything)
}

func (d *document) role(name string) error {
	r := feed.Role{}
	if err := d.dec.Decode(&r); err != nil {
		return err
	}
	if r.Name != "" && r.Name != name || r.Gone {
		return errors.New("roles: a role is gone, or has another name than its key")
	}
	r.Name = name
	return d.b.take(feed.Line{Role: &r})
}

func (d *document) subject(id string) error {
	m := member{}
	if err := d.dec.Decode(&m); err != nil {
		return err
	}
	s := feed.Subject{ID: id, Tenant: m.Tenant, Groups: m.Groups, Attributes: m.Attributes, Bindings: m.Bindings}
	for _, role := range m.Roles {
		s.Bindings = append(s.Bindings, feed.Binding{Role: role})
	}
	return d.b.take(feed.Line{Subject: &s})
}
