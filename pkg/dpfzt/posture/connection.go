// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"
)

// gofish speaks Redfish. What it leaves open is closed in this file:
//   - answers of any size are read, and its errors repeat them: bodies are bounded, and errors made anew from what the
//     transport saw (gofish drops the status where the body of an error cannot be read);
//   - redirects are followed, with its session token: none is;
//   - a session's address is what the BMC says, appended to the endpoint as it is: only the requests permitted here leave;
//   - Logout waits without end where its context ended: the HTTP client bounds each request;
//   - it has no resources of NVIDIA (see bmc.go).
const (
	maxAnswer   = 1 << 20
	maxHeaders  = 64 << 10
	sessionPath = "/redfish/v1/SessionService/Sessions"
)

// connection is one session with one BMC, used by one goroutine.
type connection struct {
	api     *gofish.APIClient
	http    *http.Client
	guard   *guard
	address string
	session bool
}

// connect logs in: with a session, or, where the BMC gives none, with each request.
func connect(ctx context.Context, bmc netip.AddrPort, access Access, request time.Duration, now func() time.Time) (*connection, error) {
	address := bmc.String()
	tlsConfig, err := access.Trust.config(address, bmc.Addr().String(), now)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		// No proxy: credentials of BMCs go to BMCs.
		DialContext:            (&net.Dialer{Timeout: request}).DialContext,
		TLSClientConfig:        tlsConfig,
		MaxConnsPerHost:        1,
		MaxResponseHeaderBytes: maxHeaders,
	}
	c := &connection{guard: &guard{next: transport, host: address}, address: address}
	c.http = &http.Client{
		Transport: c.guard, Timeout: request,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	config := gofish.ClientConfig{
		Endpoint: "https://" + address, Username: access.Credentials.username, Password: access.Credentials.password,
		HTTPClient: c.http, NoModifyTransport: true, ReuseConnections: true,
	}
	c.session = true
	c.api, err = gofish.ConnectContext(ctx, config)
	if err != nil && c.guard.loggingIn && c.withoutSession(err) {
		c.session, config.BasicAuth = false, true
		c.api, err = gofish.ConnectContext(ctx, config)
	}
	if err != nil {
		c.http.CloseIdleConnections()
		return nil, c.explain(err)
	}
	return c, nil
}

// withoutSession reports whether a session was refused for another reason than the credentials.
func (c *connection) withoutSession(err error) bool {
	var resource *ResourceError
	return errors.As(c.explain(err), &resource)
}

// close ends the session, also where the reading's time is over.
func (c *connection) close() {
	if c.session {
		c.http.Timeout = logoutLimit
		c.api.Logout()
	}
	c.http.CloseIdleConnections()
}

// get reads one resource.
func get[T any, PT schemas.GenericSchemaObjectPointer[T]](c *connection, resource string) (*T, error) {
	c.guard.failure, c.guard.status = nil, 0
	object, err := schemas.GetObject[T, PT](c.api, resource)
	if err != nil {
		return nil, c.explain(err)
	}
	return object, nil
}

// explain says what an error of gofish means, by what the transport saw.
func (c *connection) explain(err error) error {
	var certificate *CertificateError
	var unverified *tls.CertificateVerificationError
	var answer *AnswerError
	var network net.Error
	switch {
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &unverified), errors.As(c.guard.failure, &unverified):
		return notVerified(c.address, unverified)
	case errors.As(err, &answer):
		return answer
	case errors.As(c.guard.failure, &answer):
		return answer
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout(),
		errors.As(c.guard.failure, &network) && network.Timeout(), errors.Is(c.guard.failure, context.DeadlineExceeded):
		return &UnreachableError{Address: c.address, Late: true}
	case c.guard.failure != nil || c.guard.status == 0:
		return &UnreachableError{Address: c.address}
	case c.guard.status == http.StatusUnauthorized:
		return &CredentialsError{Address: c.address}
	case c.guard.status == http.StatusForbidden:
		return &CredentialsError{Address: c.address, Forbidden: true}
	case c.guard.status >= 300 && c.guard.status < 400:
		return &AnswerError{Address: c.address, Problem: "redirects, which is not followed"}
	case c.guard.status >= 400:
		return &ResourceError{Path: c.guard.path, Code: c.guard.status}
	default:
		return &AnswerError{Address: c.address, Problem: "answers what is not Redfish"}
	}
}

// guard lets only what is permitted leave, to the BMC alone, and notes what became of the last request.
type guard struct {
	next http.RoundTripper
	host string

	path    string
	status  int
	failure error
	// loggingIn says that a session was asked for.
	loggingIn bool
}

func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	g.path, g.status, g.failure = request.URL.Path, 0, nil
	g.loggingIn = g.loggingIn || request.Method == http.MethodPost
	if request.URL.Scheme != "https" || request.URL.Host != g.host || request.URL.User != nil || !permitted(request.Method, request.URL.Path) {
		g.failure = &AnswerError{Address: g.host, Problem: "names an address that is not asked"}
		return nil, g.failure
	}
	response, err := g.next.RoundTrip(request)
	if err != nil {
		g.failure = err
		return nil, err
	}
	g.status = response.StatusCode
	response.Body = &bounded{ReadCloser: response.Body, guard: g, left: maxAnswer}
	return response, nil
}

// permitted are GETs, and what begins and ends a session.
func permitted(method, target string) bool {
	switch method {
	case http.MethodGet:
		return true
	case http.MethodPost:
		return path.Clean(target) == sessionPath
	case http.MethodDelete:
		return path.Clean(target) == target && strings.HasPrefix(target, sessionPath+"/")
	default:
		return false
	}
}

// bounded ends an answer that is too large.
type bounded struct {
	io.ReadCloser
	guard *guard
	left  int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.guard.failure = &AnswerError{Address: b.guard.host, Problem: "answers more than a megabyte"}
		return 0, b.guard.failure
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil && !errors.Is(err, io.EOF) {
		b.guard.failure = err
	}
	return n, err
}
