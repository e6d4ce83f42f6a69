package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// api is which of the decision point's languages a load speaks.
type api struct {
	path string
	yes  []byte
	body func(q question, stamp string) any
}

var dataAPI = api{"/v1/data/authz/allow", []byte(`"result":true`), func(q question, stamp string) any {
	return object{"input": object{
		"method": q.method, "path": q.path(), "segments": q.segments,
		"subject":  object{"id": userName(q.user), "department": userDept(q.user)},
		"resource": object{"owner": q.owner, "department": q.resDept},
		"context":  object{"ip": q.ip, "time": stamp},
	}}
}}

var authZEN = api{"/access/v1/evaluation", []byte(`"decision":true`), func(q question, stamp string) any {
	return object{
		"subject": object{"type": "user", "id": userName(q.user), "properties": object{"attributes": object{"department": userDept(q.user)}}},
		"action":  object{"name": q.method},
		"resource": object{"type": "item", "id": q.path(), "properties": object{"path": q.path(), "segments": q.segments,
			"owner": q.owner, "department": q.resDept}},
		"context": object{"ip": q.ip, "asked_at": stamp},
	}
}}

// request is an HTTP request with a place for nine digits, which make it one that was never seen before.
type request struct {
	bytes []byte
	at    int // of the digits
	want  bool
}

func stampOf(q question) string { return q.at.Format("2006-01-02T15:04:05") + ".000000000Z" }

// requests are ready to be sent, so that the load costs little beside the server.
func (a api) requests(all []question) []request {
	out := make([]request, len(all))
	for i, q := range all {
		body, _ := json.Marshal(a.body(q, stampOf(q))) // strings alone; it cannot fail
		head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", a.path, len(body))
		whole := append(head, body...)
		out[i] = request{whole, bytes.Index(whole, []byte(".000000000Z")) + 1, q.want}
	}
	return out
}

// load is how a server is asked.
type load struct {
	api      api
	requests []request
	conns    int
	time     time.Duration
	again    float64 // the share of requests that are the same as others before
	rate     int     // requests a second of all connections together, timed from when each was due; 0 for as many as go
}

// result is what a load saw of a server.
type result struct {
	perSecond     float64
	cpu           float64 // µs of the server's per decision
	p50, p99, p3n float64 // µs; p3n is the 99.9th
	failed, wrong int64
	times         []float64 // µs, sorted
}

// stamps makes every request of a run another one.
var stamps atomic.Uint32

// run asks, and checks every answer against the reference.
func (l load) run(ctx context.Context, p *process) (result, error) {
	var failed, wrong atomic.Int64
	took := make([][]float64, l.conns)
	begin, before := time.Now(), p.cpu()
	until := begin.Add(l.time)
	var all sync.WaitGroup
	for w := range l.conns {
		all.Go(func() {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", p.socket)
			if err != nil {
				failed.Add(1)
				return
			}
			defer func() { _ = conn.Close() }()
			in, out, answer := bufio.NewReaderSize(conn, 8<<10), []byte(nil), []byte(nil)
			step := time.Duration(0)
			if l.rate > 0 {
				step = time.Second * time.Duration(l.conns) / time.Duration(l.rate)
			}
			next := begin.Add(step * time.Duration(w) / time.Duration(l.conns))
			for i := w * 997; ; i++ {
				due := time.Now()
				if step > 0 {
					time.Sleep(next.Sub(due))
					due, next = next, next.Add(step)
				}
				if due.After(until) {
					return
				}
				r := l.requests[i%len(l.requests)]
				if float64(i%100) < l.again*100 {
					r = l.requests[i%min(200, len(l.requests))]
				}
				out = append(out[:0], r.bytes...)
				if float64(i%100) >= l.again*100 {
					copy(out[r.at:r.at+9], fmt.Sprintf("%09d", 1+stamps.Add(1)%999_999_999))
				}
				var status int
				if _, err = conn.Write(out); err == nil {
					status, answer, err = readAnswer(in, answer)
				}
				switch {
				case err != nil || status != 200:
					if failed.Add(1); err != nil {
						return
					}
				case bytes.Contains(answer, l.api.yes) != r.want:
					wrong.Add(1)
				}
				took[w] = append(took[w], float64(time.Since(due))/1e3)
			}
		})
	}
	all.Wait()
	elapsed, spent := time.Since(begin), p.cpu()-before
	times := slices.Concat(took...)
	if len(times) == 0 {
		return result{}, errors.New(p.name + " answered nothing")
	}
	slices.Sort(times)
	at := func(share float64) float64 { return times[int(share*float64(len(times)-1))] }
	r := result{
		perSecond: float64(len(times)) / elapsed.Seconds(), cpu: float64(spent.Microseconds()) / float64(len(times)),
		p50: at(.5), p99: at(.99), p3n: at(.999), failed: failed.Load(), wrong: wrong.Load(), times: times,
	}
	if r.failed+r.wrong > 0 {
		return r, fmt.Errorf("%s: %d failed and %d wrong decisions of %d", p.name, r.failed, r.wrong, len(times))
	}
	return r, nil
}

// readAnswer reads one HTTP/1.1 response into buf.
func readAnswer(in *bufio.Reader, buf []byte) (status int, body []byte, err error) {
	length, chunked := 0, false
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, buf, err
		}
		if first {
			status, _ = strconv.Atoi(string(line[9:12]))
			continue
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	if !chunked {
		buf = slices.Grow(buf[:0], length)[:length]
		_, err = io.ReadFull(in, buf)
		return status, buf, err
	}
	buf = buf[:0]
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, buf, err
		}
		n, _ := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		at := len(buf)
		buf = slices.Grow(buf, int(n)+2)[:at+int(n)+2]
		if _, err := io.ReadFull(in, buf[at:]); err != nil {
			return 0, buf, err
		}
		if buf = buf[:at+int(n)]; n == 0 {
			return status, buf, nil
		}
	}
}
