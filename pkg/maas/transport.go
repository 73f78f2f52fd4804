// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/canonical/gomaasclient/client"
	"github.com/juju/gomaasapi/v2"
)

// This file closes what gomaasclient v0.20.0 and gomaasapi v2.3.0 leave open. They
// accept a RoundTripper, so each call runs on one of its own (type exchange):
//
//   - no context: the exchange puts the caller's context into the request;
//   - no timeout: the context gets a deadline;
//   - no keep-alive: gomaasapi sets Request.Close; the exchange clears it and all
//     exchanges of a Client share one http.Transport;
//   - hidden retries: gomaasapi sleeps for Retry-After, without regard to any context,
//     and sends a POST up to five times; the exchange keeps the value and removes it
//     from the response;
//   - unbounded bodies: reading stops at Config.MaxBody;
//   - 401 bodies can quote the token secret and become error text: they are dropped;
//   - the error's text holds the URL, and that a claim token: URLs are stripped;
//   - redirects turn a POST into a GET or carry it elsewhere: they are refused;
//   - allocate cannot say "any of these system IDs", nor devices; entity.Machine lacks
//     is_dpu, parent and error_description; power_off's null looks like a machine: these
//     calls use gomaasapi's OAuth client directly (raw) with the same exchange;
//   - an empty ID addresses the collection (release would be a bulk release): arguments
//     are checked before anything is sent, see checkSystemID.

const (
	apiVersion = "2.0"
	// maxErrorBody bounds what is kept of an answer that is not a success.
	maxErrorBody = 64 << 10
)

// exchange is the RoundTripper of one call and remembers what happened to it.
type exchange struct {
	ctx      context.Context
	base     http.RoundTripper
	maxBody  int64
	readOnly bool

	// connections the request was written to, by count: 0 proves it never left; more
	// than 1 means that net/http repeated it, with the same OAuth nonce.
	connections atomic.Int32

	status     int
	date       string
	retryAfter string
	errorBody  []byte
	// bodyErr is what broke the reading of a successful answer, other than its size.
	bodyErr error
}

// RoundTrip sends the request once, under the call's context.
func (x *exchange) RoundTrip(request *http.Request) (*http.Response, error) {
	if x.readOnly && request.Method != http.MethodGet {
		return nil, ErrReadOnly
	}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.connections.Add(1) }}
	request = request.Clone(httptrace.WithClientTrace(x.ctx, trace))
	request.Close = false

	response, err := x.base.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	x.status = response.StatusCode
	x.date = response.Header.Get("Date")
	x.retryAfter = response.Header.Get("Retry-After")
	response.Header.Del("Retry-After")

	switch {
	case response.StatusCode >= 200 && response.StatusCode <= 299:
		response.Body = &boundedBody{ReadCloser: response.Body, left: x.maxBody, broken: &x.bodyErr}
		return response, nil
	case response.StatusCode >= 300 && response.StatusCode <= 399:
		_ = response.Body.Close()
		return nil, ErrRedirected
	}
	// What cannot be read of an error body is not needed: the status says enough.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
	_ = response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		x.errorBody = body
	}
	// gomaasapi gets no body at all: it would put it into its error's text.
	response.Body = http.NoBody
	response.ContentLength = 0
	return response, nil
}

// boundedBody fails, rather than ends, at its limit.
type boundedBody struct {
	io.ReadCloser
	left   int64
	broken *error
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrBodyTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n, ErrBodyTooLarge
	}
	if err != nil && err != io.EOF {
		*b.broken = err
	}
	return n, err
}

// request is one call as the methods of Client describe it.
type request struct {
	Call
	// mutating calls with a lost answer have an unknown outcome.
	mutating bool
	// answerless calls succeed with the status line; whatever follows is not needed.
	answerless bool
	timeout    time.Duration
	// secrets must not appear in a text made from the answer.
	secrets []string
	// private calls carry so much that is secret that the text of a 500, which is that
	// of any exception, is dropped.
	private bool
}

// wire is what a call can be sent through: gomaasclient, or raw where that falls short.
type wire struct {
	maas *client.Client
	raw  gomaasapi.Client
}

func (w wire) get(path, operation string, query url.Values) ([]byte, error) {
	return w.raw.Get(&url.URL{Path: path}, operation, query)
}

func (w wire) post(path, operation string, form url.Values) ([]byte, error) {
	return w.raw.Post(&url.URL{Path: path}, operation, form, nil)
}

// do runs one call: send through the wire it is given, then decode. It returns our typed
// errors only; errors of the libraries are dropped because they quote bodies and URLs.
func (c *Client) do(ctx context.Context, r request, send func(wire) error) error {
	timeout := r.timeout
	if timeout == 0 {
		timeout = c.timeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	x := &exchange{ctx: ctx, base: c.transport, maxBody: c.maxBody, readOnly: c.readOnly}
	w, err := c.wire(x)
	if err != nil {
		return err
	}
	if c.admit != nil {
		if err := c.admit(ctx, r.Operation); err != nil {
			return &UnavailableError{Call: r.Call, Err: err}
		}
	}
	start := c.clock.Now()
	err = send(w)
	if c.observe != nil {
		after, _ := parseRetryAfter(x.retryAfter, c.clock.Now())
		c.observe(Observation{
			Operation: r.Operation, Code: x.status, Duration: c.clock.Since(start), Question: !r.mutating, RetryAfter: after,
		})
	}
	if r.answerless && x.status >= 200 && x.status <= 299 {
		return nil
	}
	if err == nil {
		return nil
	}
	return c.classify(r, x, err)
}

// wire builds the libraries' clients around one exchange; this does no I/O.
func (c *Client) wire(x *exchange) (wire, error) {
	maas, err := client.GetClientWithTransport(c.endpoint, c.key.reveal(), apiVersion, x)
	if err != nil {
		return wire{}, &ConfigError{Field: "APIKey", Problem: "or endpoint is refused by the MAAS client library"}
	}
	raw, err := gomaasapi.NewAuthenticatedClient(gomaasapi.AddAPIVersionToURL(c.endpoint, apiVersion), c.key.reveal())
	if err != nil {
		return wire{}, &ConfigError{Field: "APIKey", Problem: "or endpoint is refused by the MAAS client library"}
	}
	raw.HTTPClient = &http.Client{Transport: x}
	return wire{maas: maas, raw: *raw}, nil
}

// classify turns what happened into one of our errors.
func (c *Client) classify(r request, x *exchange, err error) error {
	cause := c.plainCause(x.ctx, r, err)
	switch {
	case x.status == 0:
		if r.mutating && x.connections.Load() > 0 {
			return &UnknownOutcomeError{Call: r.Call, Err: cause}
		}
		return &UnavailableError{Call: r.Call, Err: cause}
	case x.status >= 200 && x.status <= 299:
		if r.mutating {
			return &UnknownOutcomeError{Call: r.Call, Err: cause}
		}
		if x.bodyErr != nil {
			return &UnavailableError{Call: r.Call, Err: cause}
		}
		return &MalformedAnswerError{Call: r.Call, Err: cause}
	case x.status >= 300 && x.status <= 399:
		return &UnavailableError{Call: r.Call, Err: ErrRedirected}
	case x.status == http.StatusUnauthorized && !r.mutating && x.connections.Load() > 1:
		// net/http repeated a read on a fresh connection; its nonce was used up.
		return &UnavailableError{Call: r.Call, Err: errReplayed}
	}
	typed := c.statusError(r, x)
	if r.mutating && x.status >= 500 {
		// MAAS acts on power and networks after the commit and reports failures there
		// as a 5xx, so the change may well have been made.
		return &UnknownOutcomeError{Call: r.Call, Err: typed}
	}
	return typed
}

// plainCause strips URLs (they carry claim tokens) off an error and prefers the
// context's word: a deadline surfaces in many forms.
func (c *Client) plainCause(ctx context.Context, r request, err error) error {
	if ctxErr := context.Cause(ctx); ctxErr != nil {
		return fmt.Errorf("no complete answer: %w", ctxErr)
	}
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	return &scrubbedError{text: scrub(err.Error(), append(c.key.parts(), r.secrets...)), err: err}
}

// scrubbedError keeps an error's identity and replaces its text.
type scrubbedError struct {
	text string
	err  error
}

func (e *scrubbedError) Error() string        { return e.text }
func (e *scrubbedError) Is(target error) bool { return errors.Is(e.err, target) }

// null reports whether an answer is JSON null, as power_off gives when nothing was sent.
func null(body []byte) bool { return bytes.Equal(bytes.TrimSpace(body), []byte("null")) }
