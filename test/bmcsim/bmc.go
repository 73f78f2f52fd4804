// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bmcsim

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	root         = "/redfish/v1"
	sessionsPath = root + "/SessionService/Sessions"
	tokenHeader  = "X-Auth-Token"
	maxBody      = 64 << 10
	dripPause    = 100 * time.Millisecond
)

// Request is one entry of the journal.
type Request struct {
	Method, Path string
	// Code is the HTTP status; 0 if there was no answer.
	Code int
	// Login says how the request was authenticated: "", "basic" or "session".
	Login string
}

// BMC is one simulated BMC.
type BMC struct {
	site    *Site
	address netip.AddrPort
	server  *http.Server
	closed  chan struct{}

	mu          sync.Mutex
	state       State
	certificate *tls.Certificate
	// sessions are the tokens by session ID.
	sessions map[string]string
	numbers  int
	journal  []Request
}

// Address is where the BMC listens.
func (b *BMC) Address() netip.AddrPort { return b.address }

// Set changes what the BMC answers with.
func (b *BMC) Set(change func(*State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.state.clone()
	change(&next)
	b.state = next
}

// Requests returns the journal.
func (b *BMC) Requests() []Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.journal)
}

// Sessions is how many sessions are open.
func (b *BMC) Sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

// Close stops the BMC: connections are refused from now on.
func (b *BMC) Close() error {
	err := b.server.Close()
	<-b.closed
	return err
}

// ServeHTTP answers one request.
func (b *BMC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	leave := b.site.enter()
	defer leave()
	b.mu.Lock()
	state := b.state.clone()
	b.mu.Unlock()
	path := strings.TrimSuffix(r.URL.Path, "/")
	entry := Request{Method: r.Method, Path: path}
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.journal = append(b.journal, entry)
	}()
	if fault, ok := state.fault(r.Method, path); ok {
		entry.Code = fail(w, r, fault)
		return
	}
	var reply reply
	entry.Login, reply = b.serve(&state, r, path)
	entry.Code = reply.code
	for key, value := range reply.header {
		w.Header().Set(key, value)
	}
	write(w, reply.code, reply.body)
}

// reply is an answer.
type reply struct {
	code   int
	body   any
	header map[string]string
}

func (b *BMC) serve(state *State, r *http.Request, path string) (login string, answer reply) {
	if path == sessionsPath && r.Method == http.MethodPost {
		return "", b.openSession(state, r)
	}
	login, ok := b.login(state, r)
	if path == root && r.Method == http.MethodGet {
		return login, reply{code: http.StatusOK, body: serviceRoot()}
	}
	if !ok {
		return "", reply{
			code: http.StatusUnauthorized, body: redfishError("Base.1.15.0.NoValidSession", "There is no valid session established with the implementation."),
			header: map[string]string{"WWW-Authenticate": "Basic"},
		}
	}
	if id, found := strings.CutPrefix(path, sessionsPath+"/"); found {
		return login, b.session(r, id)
	}
	body, found := resource(state, path, r.URL.Query().Get("$expand"))
	switch {
	case !found:
		return login, notFound(path)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		// The settings that can be written are not: nobody is to write through this simulator.
		return login, reply{
			code: http.StatusMethodNotAllowed, body: redfishError("Base.1.15.0.OperationNotAllowed", "The operation is not allowed on this resource."),
			header: map[string]string{"Allow": "GET, HEAD"},
		}
	}
	return login, reply{code: http.StatusOK, body: body}
}

// login says whether a request is authenticated, and how.
func (b *BMC) login(state *State, r *http.Request) (string, bool) {
	if token := r.Header.Get(tokenHeader); token != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, known := range b.sessions {
			if known == token {
				return "session", true
			}
		}
		return "", false
	}
	username, password, ok := r.BasicAuth()
	if ok && username == state.Username && password == state.Password {
		return "basic", true
	}
	return "", false
}

func (b *BMC) openSession(state *State, r *http.Request) reply {
	var wanted struct{ UserName, Password *string }
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil || json.Unmarshal(data, &wanted) != nil {
		return reply{code: http.StatusBadRequest, body: redfishError("Base.1.15.0.MalformedJSON", "The request body submitted was malformed JSON.")}
	}
	if wanted.UserName == nil || wanted.Password == nil {
		return reply{code: http.StatusBadRequest, body: redfishError("Base.1.15.0.PropertyMissing", "The property UserName or Password is missing.")}
	}
	if *wanted.UserName != state.Username || *wanted.Password != state.Password {
		return reply{code: http.StatusUnauthorized, body: redfishError("Base.1.15.0.ResourceAtUriUnauthorized", "While accessing the resource, the service received an authorization error.")}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if state.NoSessions || len(b.sessions) >= b.site.sessionsPerCard {
		return reply{code: http.StatusServiceUnavailable, body: redfishError("Base.1.15.0.SessionLimitExceeded", "The session establishment failed due to the number of simultaneous sessions.")}
	}
	b.numbers++
	id, token := fmt.Sprintf("s%04d", b.numbers), rand.Text()
	b.sessions[id] = token
	return reply{
		code: http.StatusCreated, body: sessionBody(id, state.Username),
		header: map[string]string{tokenHeader: token, "Location": sessionsPath + "/" + id},
	}
}

// session answers about one session, and ends it.
func (b *BMC) session(r *http.Request, id string) reply {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.sessions[id]; !ok {
		return notFound(sessionsPath + "/" + id)
	}
	switch r.Method {
	case http.MethodGet:
		return reply{code: http.StatusOK, body: sessionBody(id, b.state.Username)}
	case http.MethodDelete:
		delete(b.sessions, id)
		return reply{code: http.StatusOK, body: map[string]any{}}
	default:
		return reply{code: http.StatusMethodNotAllowed, body: redfishError("Base.1.15.0.OperationNotAllowed", "The operation is not allowed on this resource.")}
	}
}

func notFound(path string) reply {
	return reply{code: http.StatusNotFound, body: redfishError("Base.1.15.0.ResourceNotFound", "The requested resource "+path+" was not found.")}
}

func redfishError(id, message string) map[string]any {
	return map[string]any{"error": map[string]any{
		"code": id, "message": message,
		"@Message.ExtendedInfo": []any{map[string]any{
			"@odata.type": "#Message.v1_1_1.Message", "MessageId": id, "Message": message, "MessageSeverity": "Critical",
		}},
	}}
}

func write(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("OData-Version", "4.0")
	w.Header().Set("Cache-Control", "no-store, max-age=0")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// fail does what a fault says, and returns the status that was sent.
func fail(w http.ResponseWriter, r *http.Request, fault Fault) int {
	switch fault.Kind {
	case Hang:
		// The server notices that the client is gone only once the request has been read.
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
		<-r.Context().Done()
		return 0
	case Redirect:
		w.Header().Set("Location", fault.To)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return http.StatusTemporaryRedirect
	case Garbage:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>please log in</html>")
	case Status:
		write(w, fault.Code, redfishError("Base.1.15.0.GeneralError", "A general error has occurred, and here is the secret of the BMC."))
		return fault.Code
	case Cut:
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte(`{"SerialNumber":`))
		panic(http.ErrAbortHandler)
	case Drip, Huge:
		pour(w, r, fault.Kind)
	}
	return http.StatusOK
}

// pour writes the beginning of an answer that never ends, slowly or fast.
func pour(w http.ResponseWriter, r *http.Request, kind Kind) {
	_, _ = io.WriteString(w, `{"SerialNumber":"`)
	for r.Context().Err() == nil {
		if kind == Huge {
			if _, err := io.WriteString(w, strings.Repeat("x", maxBody)); err != nil {
				return
			}
			continue
		}
		_, _ = io.WriteString(w, "x")
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		timer := time.NewTimer(dripPause)
		select {
		case <-r.Context().Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
