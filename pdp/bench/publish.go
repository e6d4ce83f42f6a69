package main

import (
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
	"strings"
	"time"
)

// steadily is how servers are asked while policies are published: at a pace that leaves them idle for the most part, so that what
// there is of lateness comes from publishing, and from the machine, which is measured in turns.
func steadily(requests []request) load {
	return load{api: dataAPI, requests: requests, conns: 8, time: 2 * time.Second, rate: 1000}
}

// edition writes one of a file's contents, each with another number that can be asked for.
type edition struct {
	name, file string
	text       func(n int) ([]byte, error)
}

func (b *bench) editions(users int) ([]edition, error) {
	data := dataOf(indexed, users)
	whole, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	return []edition{
		{"rules", "authz/policy.rego", func(n int) ([]byte, error) {
			return fmt.Appendf(nil, "%s\nrules_published := %d\n", policyOf(indexed), n), nil
		}},
		// One binding more each time; a program that writes JSON writes all of it.
		{"data", "rbac/data.json", func(n int) ([]byte, error) {
			return fmt.Appendf(nil, `{"data_published": %d, %s, "user_roles": {%q: ["r00"], %s`, n, strings.TrimSuffix(string(whole[1:strings.Index(string(whole), `"user_roles"`)]), ","),
				fmt.Sprintf("v%07d", n), whole[strings.Index(string(whole), `"user_roles":{`)+len(`"user_roles":{`):]), nil
		}},
	}, nil
}

// published asks a server until it knows the number of an edition, and answers how long that took.
func (p *process) published(ctx context.Context, name string, n int, began time.Time) (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.socket)
	}}}
	defer client.CloseIdleConnections()
	path := map[string]string{"rules": "authz/rules_published", "data": "rbac/data_published"}[name]
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
	editions, err := b.editions(users)
	if err != nil {
		return err
	}
	steady := steadily(dataAPI.requests(questions(5000, users, 7)))
	fmt.Printf("\nPublishing with %d bindings at 1,000 requests/s (%d rounds): p99.9 in ms, median and worst of the rounds, and of all together\n%-24s %20s   %20s %10s %12s %8s\n",
		bindings, rounds, "", "nothing published", "publishing", "seen after", "CPU s each", "RSS MB")
	for _, start := range []func(context.Context, string) (*process, error){
		func(ctx context.Context, dir string) (*process, error) { return b.startOPA(ctx, dir, "--watch") },
		func(ctx context.Context, dir string) (*process, error) {
			return b.startPDP(ctx, dir, "-data-paths", "authz/allow,authz/rules_published,rbac/data_published")
		},
	} {
		if err := b.publishTo(ctx, start, editions, users, rounds, steady); err != nil {
			return err
		}
	}
	fmt.Println("No decision failed, and none was wrong.")
	return nil
}

func (b *bench) publishTo(ctx context.Context, start func(context.Context, string) (*process, error), editions []edition, users, rounds int, steady load) error {
	dir, err := b.write("publish", indexed, users, false)
	if err != nil {
		return err
	}
	p, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer p.stop()
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
			loading, took, err := publishing(ctx, p, dir, e, round+1, steady)
			if err != nil {
				return err
			}
			busy.add(loading)
			seen = append(seen, took.Seconds())
			spent = append(spent, (loading.cpu-idle.cpu)*loading.perSecond*steady.time.Seconds()/1e6)
		}
		fmt.Printf("%-24s %s   %s %8.2f s %12.2f %8d\n", p.name+", "+e.name+" changed", &quiet, &busy, median(seen), median(spent), p.resident())
	}
	return nil
}

// publishing asks steadily, and publishes an edition soon after it has begun.
func publishing(ctx context.Context, p *process, dir string, e edition, n int, steady load) (result, time.Duration, error) {
	text, err := e.text(n)
	if err != nil {
		return result{}, 0, err
	}
	at := filepath.Join(dir, e.file)
	next := filepath.Join(filepath.Dir(dir), "next")
	if err := os.WriteFile(next, text, 0o600); err != nil {
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
		err := os.Rename(next, at)
		took := time.Duration(0)
		if err == nil {
			took, err = p.published(ctx, e.name, n, began)
		}
		seen <- answer{took, err}
	}()
	r, err := steady.run(ctx, p)
	a := <-seen
	return r, a.took, errors.Join(err, a.err)
}
