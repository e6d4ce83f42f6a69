package lookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a request for several objects.
const (
	defaultMost    = 100
	maxMost        = 1000
	maxAnswerOfAll = 2 << 20 // bytes
	maxIDsInURL    = 4 << 10 // bytes; servers take lines of 8 KB
)

// manyPlaceholder stands for the ids, with commas between them, as the whole value of a parameter.
const manyPlaceholder = "{ids}"

// severalAtOnce is how several objects are asked for in one request, as it is written beside the policies.
type severalAtOnce struct {
	URL   string `json:"url"`   // http://<service>/path?ids={ids}
	Most  int    `json:"most"`  // ids in one request; default 100
	Items string `json:"items"` // JSON pointer (RFC 6901) at the array of objects in the answer; default "", the answer itself
	ID    string `json:"id"`    // JSON pointer at an object's id in it; default /id
}

// batchSpec is a checked severalAtOnce.
type batchSpec struct {
	before, after string // path and query around the ids
	most          int
	items, id     []string // unescaped reference tokens
}

// check takes URLs of the service that single objects are asked of, root, and of no other.
func (d *severalAtOnce) check(root string) (*batchSpec, error) {
	rest, own := strings.CutPrefix(d.URL, root)
	before, after, found := strings.Cut(rest, manyPlaceholder)
	u, err := url.Parse(root + before + "id" + after)
	switch {
	case !own || !strings.HasPrefix(rest, "/"):
		return nil, errors.New("url: must be of the same service as url")
	case err != nil || u.User != nil || u.Fragment != "" || strings.Contains(rest, "#") || strings.ContainsAny(before+after, "{}"):
		return nil, errors.New("url: must be a URL with one {ids}, without user and fragment")
	case !found || !strings.Contains(before, "?") || !strings.HasSuffix(before, "=") || after != "" && after[0] != '&':
		return nil, errors.New("url: must have {ids} as the whole value of a parameter")
	case d.Most < 0 || d.Most > maxMost:
		return nil, fmt.Errorf("most: must be from 1 to %d", maxMost)
	case d.Items != "" && d.Items[0] != '/':
		return nil, errors.New("items: not a JSON pointer")
	case d.ID != "" && d.ID[0] != '/':
		return nil, errors.New("id: not a JSON pointer")
	}
	b := &batchSpec{before: before, after: after, most: d.Most, id: []string{"id"}}
	if b.most == 0 {
		b.most = defaultMost
	}
	if d.Items != "" {
		b.items = pointerTokens(d.Items)
	}
	if d.ID != "" {
		b.id = pointerTokens(d.ID)
	}
	return b, nil
}

// chunks cuts ids into those that are asked for in one request. Without a batch, and for an id that has what stands between ids, that
// is each alone.
func (b *batchSpec) chunks(ids []string) (all [][]string) {
	var open []string
	size := 0
	for _, id := range ids {
		if b == nil || strings.Contains(id, ",") {
			all = append(all, []string{id})
			continue
		}
		more := len(url.QueryEscape(id)) + 1
		if len(open) == b.most || len(open) > 0 && size+more > maxIDsInURL {
			all, open, size = append(all, open), nil, 0
		}
		open, size = append(open, id), size+more
	}
	if len(open) > 0 {
		all = append(all, open)
	}
	return all
}

// findSome looks several up in one request, which callers that want the same at the same moment share.
func (s *Set) findSome(ctx context.Context, kind string, spec *spec, ids []string) map[string]outcome {
	ids = slices.Sorted(slices.Values(ids))
	flight := s.flights.DoChan(fmt.Sprintf("%s\x00\x00%d %s", kind, s.changes.Load(), strings.Join(ids, ",")), func() (shared any, err error) {
		defer func() { // here a panic would end the program
			if p := recover(); p != nil {
				err = fmt.Errorf("look-up: panic: %T", p)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spec.deadline)
		defer cancel()
		asked := s.now()
		found, err := s.askForSome(ctx, kind, spec, ids)
		if err != nil {
			return nil, err
		}
		for id, properties := range found {
			s.remember(key{kind, id}, entry{properties, asked, asked.Add(spec.lasts(properties))})
		}
		return found, nil
	})
	by := make(map[string]outcome, len(ids))
	fail := func(err error) map[string]outcome {
		for _, id := range ids {
			by[id] = outcome{nil, Failed, err}
		}
		return by
	}
	select {
	case r := <-flight:
		if r.Err != nil {
			return fail(r.Err)
		}
		for id, properties := range r.Val.(map[string]map[string]any) {
			o := outcome{properties, Found, nil}
			if properties[missing] != nil {
				o.result = Missing
			}
			by[id] = o
		}
		return by
	case <-ctx.Done():
		return fail(fmt.Errorf("look-up: %w", ctx.Err()))
	}
}

// askForSome answers for each id. What does not come back does not exist; that there is nothing at the URL (404) says nothing of them.
func (s *Set) askForSome(ctx context.Context, kind string, spec *spec, ids []string) (found map[string]map[string]any, err error) {
	escaped := make([]string, len(ids))
	for i, id := range ids {
		escaped[i] = url.QueryEscape(id)
	}
	path := spec.batch.before + strings.Join(escaped, ",") + spec.batch.after
	err = s.ask(ctx, kind, spec, path, maxAnswerOfAll, func(status int, body []byte) (err error) {
		if status != http.StatusOK {
			return &refusal{"status " + strconv.Itoa(status)}
		}
		found, err = spec.readSome(body, ids)
		return err
	})
	return found, err
}

// readSome takes the declared properties of each object from an answer. Two that have one id, and one that has none, make all of it
// useless; those that nobody asked for are passed over.
func (s *spec) readSome(body []byte, ids []string) (map[string]map[string]any, error) {
	v, _ := resolve(document(body), s.batch.items)
	items, ok := v.([]any)
	if !ok {
		return nil, &refusal{"answer has no array of objects"}
	}
	found := make(map[string]map[string]any, len(ids))
	for _, item := range items {
		object, _ := item.(map[string]any)
		v, _ := resolve(object, s.batch.id)
		id := ""
		switch v := v.(type) {
		case string:
			id = v
		case json.Number:
			id = string(v)
		}
		if object == nil || id == "" || found[id] != nil {
			return nil, &refusal{"answer has an object without an id of its own"}
		}
		found[id] = s.pick(object)
	}
	all := make(map[string]map[string]any, len(ids))
	for _, id := range ids {
		if all[id] = found[id]; all[id] == nil {
			all[id] = map[string]any{missing: true}
		}
	}
	return all, nil
}
