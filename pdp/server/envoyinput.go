package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
)

// opaInput is what opa-envoy-plugin gives to a policy of a CheckRequest: the message itself, and parts of it that were read. Where
// that plug-in refuses a request for what cannot be read, this does too, and also for JSON that two parsers could read differently.
func opaInput(message []byte) (map[string]any, error) {
	input, err := extauthz.Document(message)
	if err != nil {
		return nil, err
	}
	http := under(input, "attributes", "request", "http")
	headers, _ := http["headers"].(map[string]any)
	input["version"] = map[string]any{"ext_authz": "v3", "encoding": "protojson"}
	if input["parsed_path"], input["parsed_query"], err = parsedPath(textOf(http, "path")); err != nil {
		return nil, err
	}
	if input["parsed_body"], input["truncated_body"], err = parsedBody(headers, http); err != nil {
		return nil, err
	}
	if principal := textOf(under(input, "attributes", "source"), "principal"); principal != "" {
		input["source_principal"] = principal
	}
	return input, nil
}

// under answers the object at a path, empty where there is none.
func under(object map[string]any, path ...string) map[string]any {
	for _, name := range path {
		object, _ = object[name].(map[string]any)
	}
	return object
}

func textOf(object map[string]any, name string) string {
	s, _ := object[name].(string)
	return s
}

func parsedPath(target string) (segments []any, query map[string]any, err error) {
	path, rawQuery, _ := strings.Cut(target, "?")
	if path, err = url.PathUnescape(path); err != nil || !utf8.ValidString(path) {
		return nil, nil, errors.New("the path is malformed")
	}
	for s := range strings.SplitSeq(strings.TrimLeft(path, "/"), "/") {
		segments = append(segments, s)
	}
	query, err = parsedQuery(rawQuery)
	return segments, query, err
}

func parsedQuery(text string) (map[string]any, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, errors.New("the query is malformed")
	}
	all := make(map[string]any, len(values))
	for name, of := range values {
		list := make([]any, len(of))
		for i, v := range of {
			if list[i] = v; !utf8.ValidString(name) || !utf8.ValidString(v) {
				return nil, errors.New("the query is not UTF-8")
			}
		}
		all[name] = list
	}
	return all, nil
}

// parsedBody reads a body of a type that it knows. One that Envoy has not sent whole is not read.
func parsedBody(headers, http map[string]any) (body any, truncated bool, err error) {
	kind := textOf(headers, "content-type")
	if textOf(headers, "x-envoy-auth-partial-body") == "true" {
		return nil, true, nil
	}
	var read func(text string) (any, error)
	switch {
	case strings.Contains(kind, "application/json"):
		read = func(text string) (any, error) { return readDocument([]byte(text)) }
	case strings.Contains(kind, "application/grpc"): // read only where its messages are known, and here none are
		return nil, false, nil
	case strings.Contains(kind, "application/x-www-form-urlencoded"):
		read = func(text string) (any, error) { return parsedQuery(text) }
	case strings.Contains(kind, "multipart/form-data"):
		read = func(text string) (any, error) { return parsedForm(kind, text) }
	default:
		return nil, false, nil
	}
	text := textOf(http, "body")
	if text == "" {
		raw, err := base64.StdEncoding.DecodeString(textOf(http, "rawBody"))
		if text = string(raw); err != nil || text == "" {
			return nil, false, err
		}
	}
	if length, there := headers["content-length"].(string); there {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			return nil, false, errors.New("content-length is no number")
		}
		if n != -1 && n > int64(len(text)) {
			return nil, true, nil
		}
	}
	body, err = read(text)
	return body, false, err
}

// parsedForm reads multipart/form-data: by name, a list of texts and of what JSON they hold.
func parsedForm(kind, text string) (any, error) {
	_, params, err := mime.ParseMediaType(kind)
	if err != nil {
		return nil, errors.New("content-type is malformed")
	}
	boundary, ok := params["boundary"]
	if !ok {
		return nil, nil //nolint:nilnil // it is none that can be read, which is no error to the plug-in either
	}
	form := map[string]any{}
	for parts := multipart.NewReader(strings.NewReader(text), boundary); ; {
		part, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // an end that is wrapped came too early
			return form, nil
		}
		if err != nil {
			return nil, errors.New("the form is malformed")
		}
		name := part.FormName()
		if name == "" {
			continue
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, errors.New("the form is malformed")
		}
		var value any = strings.ToValidUTF8(string(content), "\uFFFD")
		if strings.Contains(part.Header.Get("Content-Type"), "application/json") {
			if value, err = readDocument(content); err != nil {
				return nil, fmt.Errorf("the form: %w", err)
			}
		}
		list, _ := form[name].([]any)
		form[name] = append(list, value)
	}
}
