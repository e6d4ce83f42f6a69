package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// steadily is how servers are asked while policies are published: at a pace that leaves them idle for the most part, so that what
// there is of lateness comes from publishing, and from the machine, which is measured in turns.
func steadily(requests []request) load {
	return load{api: dataAPI, requests: requests, conns: 8, time: 2 * time.Second, rate: 1000}
}

// published is something that is published again and again, with a number that a server tells once it knows it. What can be done
// before is done before publish is called, which answers the number.
type published struct {
	name, path string
	prepare    func(n int) (publish func() (int, error), err error)
}

// inFile replaces a file of a folder.
func inFile(name, path, file string, text func(n int) []byte) published {
	return published{name, path, func(n int) (func() (int, error), error) {
		next := file + ".next" // no policy file by its name
		return func() (int, error) { return n, os.Rename(next, file) }, os.WriteFile(next, text(n), 0o600)
	}}
}

func fileEditions(dir string, users int) ([]published, error) {
	whole, err := json.Marshal(dataOf(indexed, users))
	if err != nil {
		return nil, err
	}
	const from = `"user_roles":{`
	before, after, ok := bytes.Cut(whole, []byte(from))
	if !ok {
		return nil, errors.New("there are no bindings")
	}
	return []published{
		inFile("rules", "authz/published", filepath.Join(dir, "authz/policy.rego"), func(n int) []byte {
			return fmt.Appendf(nil, "%s\npublished := %d\n", policyOf(indexed), n)
		}),
		// One binding more; whatever writes JSON writes all of it.
		inFile("a binding in data.json", "rbac/published", filepath.Join(dir, "rbac/data.json"), func(n int) []byte {
			text := fmt.Appendf(make([]byte, 0, len(whole)+100), `{"published":%d,%s%s"w%07d":["r00"],`, n, before[1:], from, n)
			return append(text, after...)
		}),
	}, nil
}

// knows asks a server until it tells a number, and answers how long that took.
func (p *process) knows(ctx context.Context, path string, n int, began time.Time) (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.socket)
	}}}
	defer client.CloseIdleConnections()
	for time.Since(began) < time.Minute {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/v1/data/"+path, nil)
		if err != nil {
			return 0, err
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return 0, err
		}
		var answer struct {
			Result json.Number `json:"result"`
		}
		if err := json.Unmarshal(body, &answer); err == nil && answer.Result.String() == strconv.Itoa(n) {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return 0, errors.New(p.name + " does not take up what is published")
}

// late is what loads saw: each round's p99.9 in ms, and all times together.
type late struct {
	rounds []float64
	all    []float64
}

func (l *late) add(r result) {
	l.rounds = append(l.rounds, r.p3n/1e3)
	l.all = append(l.all, r.times...)
}

func (l *late) String() string {
	slices.Sort(l.all)
	return fmt.Sprintf("%6.1f %6.1f %6.1f", median(slices.Clone(l.rounds)), slices.Max(l.rounds), l.all[int(.999*float64(len(l.all)-1))]/1e3)
}

// publish asks both servers steadily, in turns while nothing is published and while something is.
func (b *bench) publish(ctx context.Context, bindings, rounds int) error {
	if bindings == 0 {
		return nil
	}
	users := usersFor(bindings)
	steady := steadily(dataAPI.requests(questions(5000, users, 7)))
	fmt.Printf("\nPublishing with %d bindings at 1,000 requests/s (%d rounds): p99.9 in ms, median and worst of the rounds, and of all together\n%-40s %20s   %20s %10s %12s %8s\n",
		bindings, rounds, "", "nothing published", "publishing", "seen after", "CPU s each", "RSS MB")
	dir, err := b.write("publish", indexed, users, false)
	if err != nil {
		return err
	}
	files, err := fileEditions(dir, users)
	if err != nil {
		return err
	}
	opa, err := b.startOPA(ctx, dir, "--watch")
	if err != nil {
		return err
	}
	err = publishTo(ctx, opa, files, rounds, steady)
	opa.stop()
	if err != nil {
		return err
	}
	pdp, err := b.startPDP(ctx, dir, "-data-paths", "authz/allow,authz/published,rbac/published")
	if err != nil {
		return err
	}
	err = publishTo(ctx, pdp, files, rounds, steady)
	pdp.stop()
	if err != nil {
		return err
	}
	sent, err := sendRoles(ctx, users)
	if err != nil {
		return err
	}
	defer func() { _ = sent.server.Close() }()
	dir, changes, err := b.directoryEditions(sent)
	if err != nil {
		return err
	}
	if pdp, err = b.startPDP(ctx, dir, "-data-paths", "authz/allow,authz/published", "-directory-url", sent.url()); err != nil {
		return err
	}
	defer pdp.stop()
	if _, err := pdp.knows(ctx, "authz/published", 1, time.Now()); err != nil {
		return err
	}
	if err := publishTo(ctx, pdp, changes, rounds, steady); err != nil {
		return err
	}
	fmt.Println("No decision failed, and none was wrong.")
	return nil
}

func publishTo(ctx context.Context, p *process, editions []published, rounds int, steady load) error {
	if _, err := steady.run(ctx, p); err != nil { // for warmth
		return err
	}
	for _, e := range editions {
		var quiet, busy late
		var seen, spent []float64
		for round := range rounds {
			idle, err := steady.run(ctx, p)
			if err != nil {
				return err
			}
			quiet.add(idle)
			loading, took, err := publishing(ctx, p, e, round+1, steady)
			if err != nil {
				return err
			}
			busy.add(loading)
			seen = append(seen, took.Seconds())
			spent = append(spent, (loading.cpu-idle.cpu)*loading.perSecond*steady.time.Seconds()/1e6)
		}
		fmt.Printf("%-40s %s   %s %8.2f s %12.2f %8d\n", p.name+": "+e.name, &quiet, &busy, median(seen), median(spent), p.resident())
	}
	return nil
}

// publishing asks steadily, publishes an edition soon after it has begun, and goes on until it is known.
func publishing(ctx context.Context, p *process, e published, n int, steady load) (result, time.Duration, error) {
	publish, err := e.prepare(n)
	if err != nil {
		return result{}, 0, err
	}
	type answer struct {
		took time.Duration
		err  error
	}
	seen := make(chan answer, 1)
	go func() {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		began := time.Now()
		n, err := publish()
		took := time.Duration(0)
		if err == nil {
			took, err = p.knows(ctx, e.path, n, began)
		}
		seen <- answer{took, err}
	}()
	r, err := steady.run(ctx, p)
	a := <-seen
	return r, a.took, errors.Join(err, a.err)
}
