package command

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// span is the time that a log is read of; zero times bound nothing.
type span struct{ since, until time.Time }

// spanOf reads --since and --until: a time (RFC 3339), or how long ago.
func spanOf(since, until string, now time.Time) (s span, err error) {
	for _, one := range []struct {
		text string
		to   *time.Time
	}{{since, &s.since}, {until, &s.until}} {
		if one.text == "" {
			continue
		}
		if ago, err := time.ParseDuration(one.text); err == nil && ago >= 0 {
			*one.to = now.Add(-ago)
		} else if *one.to, err = time.Parse(time.RFC3339, one.text); err != nil {
			return s, fmt.Errorf("%q is neither how long ago, as 24h, nor a time (RFC 3339)", one.text)
		}
	}
	return s, nil
}

// holds reports whether the span has the time of a record; one without a time is in every span.
func (s span) holds(at time.Time) bool {
	return at.IsZero() || !at.Before(s.since) && (s.until.IsZero() || !at.After(s.until))
}

// records reads decision logs: files of JSON lines or of OPA's uploads, gzipped or not, spools of Gatehouse's, - for stdin. The first
// line that is no decision is told, the others counted.
func (in *invocation) records(names []string, s span) func(yield func(author.Record, string) error) error {
	return func(yield func(author.Record, string) error) error {
		told := false
		for _, name := range names {
			err := in.entries(name, func(title string, line []byte) error {
				r, skip, err := author.ParseRecord(title, line)
				switch {
				case err != nil && !told:
					told = true
					fmt.Fprintf(in.Err, "%v; left out, as all that hold no decision\n", err)
				case skip == "" && !s.holds(r.Time):
					skip = author.SkipOutOfRange
				}
				return yield(r, skip)
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// entries reads each entry of one log.
func (in *invocation) entries(name string, yield func(title string, line []byte) error) error {
	from := in.In
	if name != "-" {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return in.spooled(name, yield)
		}
		f, err := os.Open(name) //nolint:gosec // the file that the user named
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	text := bufio.NewReaderSize(from, 64<<10)
	if head, _ := text.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		text = bufio.NewReaderSize(unzipped, 64<<10)
	}
	if head, _ := text.Peek(1); string(head) == "[" {
		return uploaded(name, text, yield)
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, mostInput)
	row := 0
	for lines.Scan() {
		row++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := yield(fmt.Sprintf("%s:%d", name, row), line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, row+1, err)
	}
	return nil
}

// uploaded reads what OPA sends to a server: an array of entries.
func uploaded(name string, text io.Reader, yield func(title string, line []byte) error) error {
	dec := json.NewDecoder(text)
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for i := 1; dec.More(); i++ {
		var one json.RawMessage
		if err := dec.Decode(&one); err != nil {
			return fmt.Errorf("%s: entry %d: %w", name, i, err)
		}
		if err := yield(fmt.Sprintf("%s: entry %d", name, i), one); err != nil {
			return err
		}
	}
	return nil
}

// spooled reads the spool of a decision point, which may be running.
func (in *invocation) spooled(name string, yield func(title string, line []byte) error) error {
	i := 0
	damaged, err := spool.Scan(name, func(r spool.Record) error {
		i++
		return yield(fmt.Sprintf("%s: record %d", name, i), r.Text)
	})
	if damaged > 0 {
		fmt.Fprintf(in.Err, "%s: %d damaged stretches were passed over\n", name, damaged)
	}
	if err == nil && i == 0 {
		return fmt.Errorf("%s holds no records: it is no spool, or every sink has taken all of it", name)
	}
	return err
}

var errFound = errors.New("found")

// recorded finds a decision by its id.
func (in *invocation) recorded(name, id string) (author.Record, error) {
	var found author.Record
	err := in.entries(name, func(title string, line []byte) error {
		if !bytes.Contains(line, []byte(id)) {
			return nil
		}
		var e struct {
			ID string `json:"decision_id"`
		}
		if json.Unmarshal(line, &e) != nil || e.ID != id {
			return nil //nolint:nilerr // another line
		}
		r, skip, err := author.ParseRecord(title, line)
		switch {
		case err != nil:
			return err
		case skip == author.SkipOther:
			return fmt.Errorf("%s: decision %s is of a document of OPA's Data API, and not one by %s", title, id, "gatehouse.authz.decision")
		}
		r.Title = name + " " + id
		found = r
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return found, nil
	case err != nil:
		return found, err
	}
	return found, fmt.Errorf("%s: no decision %s", name, id)
}

// words is "masked 2, cut 1".
func words(skipped map[string]int) string {
	var parts []string
	for _, why := range []string{
		author.SkipOutOfRange, author.SkipOther, author.SkipUndecided, author.SkipMasked, author.SkipNotLooked, author.SkipTimeless, author.SkipCut, author.SkipUnread,
	} {
		if n := skipped[why]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(why, "_", " ")))
		}
	}
	return strings.Join(parts, ", ")
}
