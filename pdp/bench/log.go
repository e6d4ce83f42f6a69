package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// records asks at full load and then counts, at a collector that never fails, how many of the decisions that were answered have a
// record there: of OPA's own server with either of its buffers, and of gatehouse-pdp. Then each is killed while it answers, and
// gatehouse-pdp is started again.
func (b *bench) records(ctx context.Context, all []question, rounds int, each time.Duration) error {
	dir, err := b.write("log", indexed, b.users, false)
	if err != nil {
		return err
	}
	requests := dataAPI.requests(all)
	fmt.Printf("\nRecords of decisions, %v at full load, 16 connections, a healthy collector\n%-28s %12s %12s %12s %8s %12s\n", each, "", "decisions/s", "answered", "received", "lost", "lost %")
	for _, s := range []struct {
		name  string
		start func(*depot) (*process, error)
	}{
		{"OPA, size buffer (default)", func(d *depot) (*process, error) { return b.loggingOPA(ctx, dir, d, "size") }},
		{"OPA, event buffer", func(d *depot) (*process, error) { return b.loggingOPA(ctx, dir, d, "event") }},
		{"gatehouse, block", func(d *depot) (*process, error) { return b.loggingPDP(ctx, dir, d, "full") }},
	} {
		d, err := b.depot(ctx)
		if err != nil {
			return err
		}
		p, err := s.start(d)
		if err != nil {
			return err
		}
		answered, failed := askedFor(ctx, p, requests, each, nil)
		received, err := d.settled(ctx, answered)
		p.stop()
		if err = errors.Join(err, d.close()); err != nil {
			return err
		}
		lost := missing(answered, received)
		fmt.Printf("%-28s %12.0f %12d %12d %8d %11.2f%%\n", s.name, float64(len(answered))/each.Seconds(), len(answered), len(answered)-lost, lost, 100*float64(lost)/float64(max(1, len(answered))))
		if failed > 0 {
			fmt.Printf("%-28s %12s %12d requests had no decision\n", "", "", failed)
		}
	}
	fmt.Printf("\nKilled (SIGKILL) while it answers, and started again (%d times)\n%-28s %12s %8s\n", rounds, "", "answered", "lost")
	for round := range rounds {
		for _, name := range []string{"OPA, size buffer (default)", "gatehouse, block"} {
			answered, lost, err := b.killed(ctx, dir, name, round, requests)
			if err != nil {
				return err
			}
			fmt.Printf("%-28s %12d %8d\n", name, answered, lost)
		}
	}
	return nil
}

// killed answers how many decisions somebody has an answer of, and how many of their records are nowhere.
func (b *bench) killed(ctx context.Context, dir, name string, round int, requests []request) (answered, lost int, err error) {
	d, err := b.depot(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	begin := func() (*process, error) { return b.loggingPDP(ctx, dir, d, fmt.Sprint("killed-", round)) }
	if name != "gatehouse, block" {
		begin = func() (*process, error) { return b.loggingOPA(ctx, dir, d, "size") }
	}
	p, err := begin()
	if err != nil {
		return 0, 0, err
	}
	ids, _ := askedFor(ctx, p, requests, time.Minute, time.AfterFunc(3*time.Second, p.stop))
	if p, err = begin(); err != nil {
		return 0, 0, err
	}
	received, err := d.settled(ctx, ids)
	p.stop()
	return len(ids), missing(ids, received), err
}

// loggingOPA is OPA's server with a buffer of its own two kinds, which reports every second.
func (b *bench) loggingOPA(ctx context.Context, dir string, d *depot, buffer string) (*process, error) {
	socket := dir + ".opa.sock"
	_ = os.Remove(socket) // of one that was killed
	return start(ctx, "OPA", socket, b.opa, "run", "--server", "--addr", "unix://"+socket, "--disable-telemetry", "--log-level", "error",
		"--set", "services.logs.url="+d.url, "--set", "decision_logs.service=logs", "--set", "decision_logs.reporting.buffer_type="+buffer,
		"--set", "decision_logs.reporting.min_delay_seconds=1", "--set", "decision_logs.reporting.max_delay_seconds=1", "-b", dir)
}

// loggingPDP is gatehouse-pdp with a spool of this name.
func (b *bench) loggingPDP(ctx context.Context, dir string, d *depot, spool string) (*process, error) {
	socket, config := dir+".pdp.sock", dir+"."+spool+".yaml"
	_ = os.Remove(socket)
	text := fmt.Sprintf("spool: {dir: %q, size: 1GiB, when_full: block}\nsample: {default: 1}\nsinks:\n  - http: %s\n    allow_plaintext: true\n", filepath.Join(b.dir, spool+".spool"), d.url)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start(ctx, "gatehouse-pdp", socket, b.pdp, "serve", "-listen", "unix://"+socket, "-status", "none", "-log-level", "warn",
		"-policies", dir, "-data-paths", "authz/allow", "-decision-log", config)
}

// askedFor asks as fast as it goes, and answers the ids of all decisions that it has an answer of. Where the server is to be killed,
// the end of it is the end of asking.
func askedFor(ctx context.Context, p *process, requests []request, each time.Duration, killed *time.Timer) (ids []uuid.UUID, failed int64) {
	var mu sync.Mutex
	var none atomic.Int64
	until := time.Now().Add(each)
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			var own []uuid.UUID
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, own...)
			}()
			conn, err := new(net.Dialer).DialContext(ctx, "unix", p.socket)
			if err != nil {
				none.Add(1)
				return
			}
			defer func() { _ = conn.Close() }()
			in, out, answer := bufio.NewReaderSize(conn, 8<<10), []byte(nil), []byte(nil)
			for i := w * 997; time.Now().Before(until); i++ {
				r := requests[i%len(requests)]
				out = append(out[:0], r.bytes...)
				copy(out[r.at:r.at+9], fmt.Sprintf("%09d", 1+stamps.Add(1)%999_999_999))
				status := 0
				if _, err = conn.Write(out); err == nil {
					status, answer, err = readAnswer(in, answer)
				}
				if err != nil {
					if killed == nil {
						none.Add(1)
					}
					return
				}
				id, ok := idIn(answer)
				if status != http.StatusOK || !ok {
					none.Add(1)
					continue
				}
				own = append(own, id)
			}
		})
	}
	all.Wait()
	return ids, none.Load()
}

func idIn(answer []byte) (uuid.UUID, bool) {
	const name = `"decision_id":"`
	at := bytes.Index(answer, []byte(name))
	if at < 0 || len(answer) < at+len(name)+36 {
		return uuid.UUID{}, false
	}
	id, err := uuid.ParseBytes(answer[at+len(name) : at+len(name)+36])
	return id, err == nil
}

func missing(answered []uuid.UUID, received map[uuid.UUID]bool) (n int) {
	for _, id := range answered {
		if !received[id] {
			n++
		}
	}
	return n
}

// depot takes decision logs by OPA's protocol and keeps them as they come, in files. What is in them is looked at when the load is
// over, so that the collector costs next to nothing while it lasts.
type depot struct {
	url    string
	dir    string
	server *http.Server
	files  atomic.Int64
	failed atomic.Pointer[error]
	read   int64 // files that were looked at
	ids    map[uuid.UUID]bool
}

func (b *bench) depot(ctx context.Context) (*depot, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &depot{url: "http://" + l.Addr().String(), ids: map[uuid.UUID]bool{}}
	if d.dir, err = os.MkdirTemp(b.dir, "depot"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	d.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(d.take)}
	go func() {
		if err := d.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.failed.Store(&err)
		}
	}()
	return d, nil
}

// take answers once a body is in its file. Files are numbered when they are whole.
func (d *depot) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		aside := filepath.Join(d.dir, uuid.NewString())
		if err = os.WriteFile(aside, body, 0o600); err == nil {
			err = os.Rename(aside, d.file(d.files.Add(1)))
		}
	}
	if err != nil {
		d.failed.Store(&err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (d *depot) file(n int64) string { return filepath.Join(d.dir, fmt.Sprint(n)) }

// settled waits until all that was answered is there, or nothing has come for ten seconds, and answers what is there.
func (d *depot) settled(ctx context.Context, answered []uuid.UUID) (map[uuid.UUID]bool, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; quiet < 20; quiet++ {
		before := d.read
		if err := d.look(); err != nil {
			return nil, err
		}
		if d.read > before {
			quiet = 0
		}
		if len(d.ids) >= len(answered) && missing(answered, d.ids) == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := d.failed.Load(); err != nil {
		return nil, fmt.Errorf("collector: %w", *err)
	}
	return maps.Clone(d.ids), nil
}

// look reads the files that have come since it last looked.
func (d *depot) look() error {
	for d.read < d.files.Load() {
		f, err := os.Open(d.file(d.read + 1))
		if errors.Is(err, os.ErrNotExist) {
			return nil // it is on its way
		}
		if err != nil {
			return err
		}
		err = errors.Join(d.count(f), f.Close())
		if err != nil {
			return fmt.Errorf("a batch of records: %w", err)
		}
		d.read++
	}
	return nil
}

func (d *depot) count(r io.Reader) error {
	plain, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	var batch []struct {
		ID uuid.UUID `json:"decision_id"`
	}
	if err := json.NewDecoder(plain).Decode(&batch); err != nil {
		return err
	}
	for _, record := range batch {
		d.ids[record.ID] = true
	}
	return nil
}

func (d *depot) close() error { return errors.Join(d.server.Close(), os.RemoveAll(d.dir)) }
