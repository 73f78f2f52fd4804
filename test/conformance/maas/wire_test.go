// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	get  = http.MethodGet
	post = http.MethodPost
	put  = http.MethodPut

	formType = "application/x-www-form-urlencoded"
	// maxBody bounds an answer: a list of hundreds of machines has a few megabytes.
	maxBody = 256 << 20
	// repeats is how often a call is tried that MAAS asks to repeat.
	repeats = 6
)

// wire is the API over plain HTTP, so that what is tested is MAAS and no client library.
type wire struct {
	http    *http.Client
	root    string
	timeout time.Duration
}

// apiKey is an account's key in its three parts. It is never printed.
type apiKey struct{ consumer, token, secret string }

func parseKey(text string) apiKey {
	parts := strings.SplitN(text+"::", ":", 4)
	return apiKey{parts[0], parts[1], parts[2]}
}

// request is one call. Path is below the API's root; a nil key sends no Authorization.
type request struct {
	method, path, op string
	query, form      url.Values
	key              *apiKey
	// oauth replaces single parameters of the signature.
	oauth map[string]string
	// authorization replaces the whole header.
	authorization string
	// contentType and body replace the encoded form.
	contentType, body string
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// sign is a PLAINTEXT OAuth header with a fresh nonce.
func (k apiKey) sign(overrides map[string]string) string {
	params := map[string]string{
		"oauth_version": "1.0", "oauth_signature_method": "PLAINTEXT", "oauth_consumer_key": k.consumer,
		"oauth_token": k.token, "oauth_signature": "&" + k.secret, "oauth_nonce": rand.Text(),
		"oauth_timestamp": strconv.FormatInt(time.Now().Unix(), 10),
	}
	maps.Copy(params, overrides)
	fields := []string{}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fields = append(fields, fmt.Sprintf("%s=%q", name, url.QueryEscape(params[name])))
	}
	return "OAuth " + strings.Join(fields, ", ")
}

// do sends a call, and sends it again while MAAS says "not now, but later" (409 or 503 with Retry-After).
func (w *wire) do(ctx context.Context, r request) (answer, error) {
	for attempt := 1; ; attempt++ {
		got, err := w.once(ctx, r)
		seconds, hint := strconv.Atoi(got.header.Get("Retry-After"))
		later := got.code == http.StatusConflict || got.code == http.StatusServiceUnavailable
		if err != nil || !later || hint != nil || attempt == repeats {
			return got, err
		}
		pause := time.NewTimer(time.Duration(min(max(seconds, 1), 30)) * time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return got, ctx.Err()
		}
	}
}

func (w *wire) once(ctx context.Context, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	target := w.root + r.path
	query := url.Values{}
	maps.Copy(query, r.query)
	if r.op != "" {
		query.Set("op", r.op)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	body, contentType := r.form.Encode(), formType
	if r.contentType != "" {
		body, contentType = r.body, r.contentType
	}
	sent, err := http.NewRequestWithContext(ctx, r.method, target, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if r.method != get {
		sent.Header.Set("Content-Type", contentType)
	}
	switch {
	case r.authorization != "":
		sent.Header.Set("Authorization", r.authorization)
	case r.key != nil:
		sent.Header.Set("Authorization", r.key.sign(r.oauth))
	}
	response, err := w.http.Do(sent)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return answer{response.StatusCode, response.Header, content}, err
}

// text is the body for messages. That of a 401 can hold the right secret and is never shown.
func (a answer) text() string {
	if a.code == http.StatusUnauthorized {
		return "(the body of a 401 is not shown)"
	}
	text := string(a.body)
	if len(text) > 400 {
		text = text[:400] + "…"
	}
	return fmt.Sprintf("%d %s", a.code, text)
}

// isJSON says whether the answer calls itself JSON and is.
func (a answer) isJSON() bool {
	return strings.HasPrefix(a.header.Get("Content-Type"), "application/json") && json.Valid(a.body)
}

// formErrors is the answer's {"field": ["message", …]}, nil if it has another shape.
func (a answer) formErrors() map[string][]string {
	var fields map[string][]string
	if !a.isJSON() || json.Unmarshal(a.body, &fields) != nil {
		return nil
	}
	return fields
}
