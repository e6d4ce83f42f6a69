package authzen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// A client asks for pages of so many results, and for so many pages of one search.
const (
	pageSize  = 1000
	mostPages = 2000
)

var searchPaths = map[Kind]string{Subjects: SearchSubjectPath, Resources: SearchResourcePath, Actions: SearchActionPath}

// Search asks for all pages of a search, each within the client's time. What is found is permitted; the context is that of the last
// page, complete only if all are, with the reasons of each.
func (c *Client) Search(ctx context.Context, kind Kind, r Request) (found []Entity, about SearchContext, err error) {
	question := map[string]any{"subject": r.Subject, "page": map[string]any{"limit": pageSize}}
	if r.Context != nil {
		question["context"] = r.Context
	}
	if kind != Actions {
		question["action"] = r.Action
	}
	question["resource"] = r.Resource
	reasons := map[string]bool{}
	var all []string
	undecided := 0
	for range mostPages {
		page, err := c.page(ctx, searchPaths[kind], question)
		if err != nil {
			return nil, SearchContext{}, err
		}
		found = append(found, page.Results...)
		if about = (SearchContext{}); page.Context != nil {
			about = *page.Context
		}
		undecided += about.Undecided
		for _, reason := range about.Reasons {
			if !reasons[reason] {
				reasons[reason], all = true, append(all, reason)
			}
		}
		if page.Page.NextToken == "" {
			about.Reasons, about.Undecided, about.Complete = all, undecided, about.Complete && len(all) == 0
			return found, about, nil
		}
		question["page"] = map[string]any{"token": page.Page.NextToken}
	}
	return nil, SearchContext{}, fmt.Errorf("the search has more than %d pages", mostPages)
}

func (c *Client) page(ctx context.Context, path string, question map[string]any) (page SearchResponse, err error) {
	body, err := json.Marshal(question)
	if err != nil {
		return page, fmt.Errorf("encode search: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return page, fmt.Errorf("ask decision point: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.bearer != "" {
		req.Header.Set("Authorization", c.bearer)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return page, fmt.Errorf("ask decision point: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4*maxAnswer+1))
	switch {
	case err != nil:
		return page, fmt.Errorf("read answer: %w", err)
	case len(answer) > 4*maxAnswer:
		return page, errors.New("read answer: too large")
	case res.StatusCode != http.StatusOK:
		var problem struct {
			Code string `json:"code"`
		}
		if json.Unmarshal(answer, &problem) == nil && problem.Code != "" {
			return page, fmt.Errorf("decision point answered status %d (%s)", res.StatusCode, problem.Code)
		}
		return page, fmt.Errorf("decision point answered status %d", res.StatusCode)
	}
	if err := onejson.Check(answer); err != nil {
		return page, fmt.Errorf("decision point answered malformed JSON: %w", err)
	}
	if err := json.Unmarshal(answer, &page); err != nil || page.Results == nil {
		return page, errors.New("decision point answered no search")
	}
	return page, nil
}
