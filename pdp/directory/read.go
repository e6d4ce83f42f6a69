package directory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// Limits bound what is taken from a source. Zeros are the defaults.
type Limits struct {
	Bytes    int64 // of an answer, and of the texts of a view; default 1 GiB
	Line     int   // bytes of a line; default 1 MiB
	Subjects int   // default 10 million
	Roles    int   // default 100,000

	small int            // subjects of layers that are always merged; default 1024
	way   *way           // to be given by whoever builds; nil is none
	left  *time.Duration // of rests in one piece of work; nil: as much as it takes
}

const maxName = 1024 // bytes of an id or a name

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 1 << 30
	}
	if l.Line == 0 {
		l.Line = 1 << 20
	}
	if l.Subjects == 0 {
		l.Subjects = 10_000_000
	}
	if l.Roles == 0 {
		l.Roles = 100_000
	}
	if l.small == 0 {
		l.small = 1024
	}
	return l
}

// errCut is an answer that lacks its end.
var errCut = errors.New("it was cut off")

// readFeed reads an answer of a feed: begin is told how it begins, and take of each line between. What they were told counts only
// when readFeed answers nil, because the answer may be cut off.
func readFeed(in io.Reader, limits Limits, begin func(feed.Begin) error, take func(feed.Line) error) error {
	r := &bounded{in: in, left: limits.Bytes, line: limits.Line}
	dec := json.NewDecoder(r)
	dec.UseNumber()
	dec.DisallowUnknownFields() // what is not understood might be a condition
	begun, lines := false, 0
	for n := 1; ; n++ {
		var l feed.Line
		if err := dec.Decode(&l); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errCut
		} else if err != nil {
			return fmt.Errorf("line %d: %w", n, plain(err))
		}
		var err error
		switch {
		case !one(l):
			err = errors.New("it does not have exactly one member that is known")
		case begun == (l.Begin != nil):
			err = errors.New("begin is not the first line, or there is another")
		case l.Begin != nil:
			begun = true
			err = begin(*l.Begin)
		case l.End != nil:
			if l.End.Lines != lines {
				return fmt.Errorf("it ends after %d lines, and says that they are %d", lines, l.End.Lines)
			}
			return nothingMore(dec)
		default:
			lines++
			err = take(l)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func one(l feed.Line) bool {
	n := 0
	for _, set := range []bool{l.Begin != nil, l.Role != nil, l.Subject != nil, l.End != nil} {
		if set {
			n++
		}
	}
	return n == 1
}

func nothingMore(dec *json.Decoder) error {
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

// plain is an error of a decoder without what it read.
func plain(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return errors.New("not JSON")
	case errors.As(err, &kind):
		return fmt.Errorf("%s is not of the right type", kind.Field)
	}
	return err
}

// bounded reads no more than left bytes, nor a line of more than line bytes.
type bounded struct {
	in   io.Reader
	left int64
	line int // 0 is any
	at   int // bytes of the line so far
}

// tooLarge is about what was sent, not the source.
type tooLarge struct{ what string }

func (e *tooLarge) Error() string { return e.what }

func (r *bounded) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, &tooLarge{"it is larger than its limit"}
	}
	for _, c := range p[:n] {
		if r.at++; c == '\n' {
			r.at = 0
		}
		if r.line > 0 && r.at > r.line {
			return 0, &tooLarge{fmt.Sprintf("a line is longer than %d bytes", r.line)}
		}
	}
	return n, err
}

// snapshotBuilder makes a view of a snapshot.
type snapshotBuilder struct {
	begin  feed.Begin
	layer  *layerBuilder
	roles  *Roles
	limits Limits
}

func newSnapshot(hint int, limits Limits) *snapshotBuilder {
	return &snapshotBuilder{layer: newLayer(hint, limits), roles: newRoles(map[string]feed.Role{}), limits: limits}
}

func (b *snapshotBuilder) start(begin feed.Begin) error {
	b.begin = begin
	return checkEpoch(begin.Epoch)
}

func checkEpoch(epoch string) error {
	if epoch == "" || len(epoch) > maxName {
		return fmt.Errorf("an epoch of %d bytes; it must be 1 to %d", len(epoch), maxName)
	}
	return nil
}

func (b *snapshotBuilder) take(l feed.Line) error {
	if l.Role != nil {
		if _, there := b.roles.Find(l.Role.Name); there || l.Role.Gone {
			return errors.New("a role is gone, or there twice")
		}
		return b.roles.put(l.Role, b.limits)
	}
	if l.Subject.Gone {
		return errors.New("a subject is gone")
	}
	if err := b.layer.add(l.Subject); err != nil {
		return fmt.Errorf("a subject: %w", err)
	}
	return nil
}

func (b *snapshotBuilder) view() *View {
	v := &View{epoch: b.begin.Epoch, layers: []*layer{b.layer.seal()}, roles: b.roles}
	v.subjects = v.layers[0].ids.count
	v.at(b.begin.Revision)
	return v
}

// Read reads a snapshot as a feed sends it.
func Read(in io.Reader, limits Limits) (*View, error) {
	return readSnapshot(in, 0, limits.withDefaults())
}

func readSnapshot(in io.Reader, hint int, limits Limits) (*View, error) {
	b := newSnapshot(hint, limits)
	if err := readFeed(in, limits, b.start, b.take); err != nil {
		return nil, err
	}
	return b.view(), nil
}

// readChanges answers the view after the changes of an answer, v itself if there are none.
func (v *View) readChanges(in io.Reader, limits Limits) (*View, error) {
	var begin feed.Begin
	var changes []feed.Line
	limits = limits.hurried()
	at, rest := v.revision, limits.rest()
	err := readFeed(in, limits, func(b feed.Begin) error {
		begin = b
		if b.Epoch != v.epoch {
			return errors.New("the changes are of another epoch than was asked for")
		}
		return nil
	}, func(l feed.Line) error {
		revision := uint64(0)
		if l.Role != nil {
			revision = l.Role.Revision
		} else {
			revision = l.Subject.Revision
		}
		if revision <= v.revision || revision < at || revision > at+1 {
			return fmt.Errorf("revision %d does not follow %d", revision, at)
		}
		at = revision
		changes = append(changes, l)
		rest.breathe()
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case begin.Revision != at:
		return nil, fmt.Errorf("it leads to revision %d, and says that this is %d", at, begin.Revision)
	case len(changes) == 0:
		return v, nil
	}
	return v.with(changes, at, limits)
}

// write writes a view as a snapshot.
func (v *View) write(w io.Writer, begin feed.Begin, to *way) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	begin.Epoch, begin.Revision = v.epoch, v.revision
	if err := enc.Encode(feed.Line{Begin: &begin}); err != nil {
		return err
	}
	lines, rest := 0, to.rest()
	for _, r := range v.roles.All() {
		if err := enc.Encode(feed.Line{Role: &r}); err != nil {
			return err
		}
		lines++
	}
	for id, e := range v.All() {
		s := e.Subject(id)
		if err := enc.Encode(feed.Line{Subject: &s}); err != nil {
			return err
		}
		rest.breathe()
		lines++
	}
	return enc.Encode(feed.Line{End: &feed.End{Lines: lines}})
}
