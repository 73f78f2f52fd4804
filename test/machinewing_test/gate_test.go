// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// operation is a call of MAAS as the matrix tells them apart.
type operation string

const (
	opWhoAmI     operation = "whoami"
	opZones      operation = "list zones"
	opByToken    operation = "list by token"
	opByID       operation = "list by ID"
	opByOwner    operation = "list by owner"
	opMatching   operation = "list matching"
	opRead       operation = "read machine"
	opDevices    operation = "list devices"
	opEvents     operation = "query events"
	opAllocate   operation = "allocate"
	opAnnotate   operation = "annotate"
	opDeploy     operation = "deploy"
	opPowerOff   operation = "power off"
	opRelease    operation = "release"
	opUnexpected operation = "unexpected"
)

// mutating are the calls that change a machine.
var mutating = []operation{opAllocate, opAnnotate, opDeploy, opPowerOff, opRelease}

// call is one call of a process, and how it ended.
type call struct {
	operation operation
	// process is who called; "" for anybody but the machine wing.
	process string
	// systemID is the machine in the path, token the only agent_name.
	systemID, token string
	at              time.Time
	// code is the status the caller got, 0 if no answer reached it.
	code int
	// fault is what was done to the call.
	fault string
	// erase and scripts are those of a release.
	erase, scripts string
}

// fault is something that happens to calls of the machine wing on their way to MAAS and back.
type fault struct {
	name string
	// hits says which calls; count is how many of them, 0 for all until it is lifted. skip lets the first ones pass.
	hits  func(call) bool
	count int
	skip  int
	// happen does it. It answers by itself, or by the exchange.
	happen func(*exchange)

	hit int
}

// on hits an operation.
func on(operations ...operation) func(call) bool {
	return func(c call) bool { return slices.Contains(operations, c.operation) }
}

// exchange is one call on its way: what was asked, and the means to let MAAS do it.
type exchange struct {
	gate    *gate
	writer  http.ResponseWriter
	request *http.Request
	body    []byte
	call    *call
	process *process
}

// gate stands between the machine wing and a MAAS region: it notes every call, knows the dead, and does faults.
type gate struct {
	region http.Handler
	ctx    context.Context //nolint:containedctx // late commits outlive their request

	mu        sync.Mutex
	processes map[string]*process
	calls     []call
	faults    []*fault
	late      sync.WaitGroup
}

func newGate(ctx context.Context, region http.Handler) *gate {
	return &gate{ctx: ctx, region: region, processes: map[string]*process{}}
}

// add starts a fault; the function returned ends it.
func (g *gate) add(f *fault) (lift func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, f)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.faults = slices.DeleteFunc(g.faults, func(other *fault) bool { return other == f })
	}
}

// again lets a fault that passes hit once more.
func (g *gate) again(f *fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.count > 0 && f.hit > 0 {
		f.count = f.hit + 1
	}
}

// hitCount is how often a fault has happened.
func (g *gate) hitCount(f *fault) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f.hit
}

// history is every call so far.
func (g *gate) history() []call {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.calls)
}

// ServeHTTP implements http.Handler. A process calls below /<its name>/MAAS, everybody else below /MAAS.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	path, name := r.URL.Path, ""
	if !strings.HasPrefix(path, "/MAAS/") {
		name, path, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
		path = "/" + path
	}
	forwarded := r.Clone(r.Context())
	forwarded.URL.Path, forwarded.RequestURI = path, ""
	c := newCall(forwarded, body)
	c.process = name
	x := &exchange{gate: g, writer: w, request: forwarded, body: body, call: &c}
	happen := g.admit(x)
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.calls = append(g.calls, c)
	}()
	happen(x)
}

// admit finds what happens to a call: nothing from a dead process arrives any more.
func (g *gate) admit(x *exchange) func(*exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.call.process == "" {
		return (*exchange).pass
	}
	x.process = g.processes[x.call.process]
	if x.process == nil || x.process.dead() {
		return (*exchange).cut
	}
	for _, f := range g.faults {
		if !f.hits(*x.call) {
			continue
		}
		if f.skip > 0 {
			f.skip--
			continue
		}
		if f.count == 0 || f.hit < f.count {
			f.hit++
			x.call.fault = f.name
			return f.happen
		}
	}
	return (*exchange).pass
}

// newCall says what a request is.
func newCall(r *http.Request, body []byte) call {
	clone := r.Clone(context.Background())
	clone.Body = io.NopCloser(bytes.NewReader(body))
	_ = clone.ParseForm() // What cannot be read is refused by MAAS itself.
	form := clone.Form
	parts := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/MAAS/api/2.0/"), "/"), "/")
	c := call{at: time.Now(), operation: opUnexpected}
	if tokens := form["agent_name"]; len(tokens) == 1 {
		c.token = tokens[0]
	}
	op := form.Get("op")
	switch {
	case parts[0] == "users" && op == "whoami":
		c.operation = opWhoAmI
	case parts[0] == "zones":
		c.operation = opZones
	case parts[0] == "events":
		c.operation = opEvents
	case parts[0] == "nodes" && len(parts) == 3:
		c.operation, c.systemID = opDevices, parts[1]
	case parts[0] != "machines":
	case len(parts) == 1 && op == "allocate":
		c.operation = opAllocate
	case len(parts) == 1 && op == "":
		c.operation = listing(form)
	case len(parts) == 2:
		c.systemID = parts[1]
		c.operation = onMachine(op)
		if c.operation == opRelease {
			c.scripts = form.Get("scripts")
			c.erase = erasing(form)
		}
	}
	return c
}

func listing(form map[string][]string) operation {
	for key, kind := range map[string]operation{"agent_name": opByToken, "id": opByID, "owner": opByOwner} {
		if len(form[key]) > 0 {
			return kind
		}
	}
	return opMatching
}

func onMachine(op string) operation {
	switch op {
	case "":
		return opRead
	case "set_workload_annotations", "set_owner_data":
		return opAnnotate
	case "deploy":
		return opDeploy
	case "power_off":
		return opPowerOff
	case "release":
		return opRelease
	}
	return opUnexpected
}

// erasing joins the flags of a release that erase, as the simulator's journal does.
func erasing(form map[string][]string) string {
	var flags []string
	for _, flag := range []string{"erase", "secure_erase", "quick_erase"} {
		if len(form[flag]) > 0 && form[flag][0] == "true" {
			flags = append(flags, flag)
		}
	}
	return strings.Join(flags, "+")
}

// work lets MAAS do what was asked, whoever still waits for it.
func (x *exchange) work(ctx context.Context) *httptest.ResponseRecorder {
	request := x.request.Clone(ctx)
	request.Body = io.NopCloser(bytes.NewReader(x.body))
	answer := httptest.NewRecorder()
	func() {
		defer func() {
			// The simulator cuts connections this way.
			if cut := recover(); cut != nil {
				answer = nil
			}
		}()
		x.gate.region.ServeHTTP(answer, request)
	}()
	return answer
}

// answer sends what MAAS said; nil cuts the connection.
func (x *exchange) answer(said *httptest.ResponseRecorder) {
	if said == nil {
		x.cut()
		return
	}
	x.call.code = said.Code
	for key, values := range said.Header() {
		x.writer.Header()[key] = values
	}
	x.writer.WriteHeader(said.Code)
	_, _ = x.writer.Write(said.Body.Bytes()) // Who is gone is no news here.
}

func (x *exchange) pass() {
	said := x.work(x.request.Context())
	if x.process != nil {
		// A process that died meanwhile gets no answer.
		if slices.Contains(mutating, x.call.operation) {
			x.process.effected(string(x.call.operation))
		}
	}
	x.answer(said)
}

// cut ends the connection without an answer.
func (x *exchange) cut() { panic(http.ErrAbortHandler) }

// refuse answers without doing anything.
func (x *exchange) refuse(code int, contentType, body, retryAfter string) {
	said := httptest.NewRecorder()
	said.Code = code
	said.Header().Set("Content-Type", contentType)
	if retryAfter != "" {
		said.Header().Set("Retry-After", retryAfter)
	}
	_, _ = said.Body.WriteString(body)
	x.answer(said)
}

// later lets MAAS do it after a while, when nobody waits for the answer any more.
func (x *exchange) later(after time.Duration) {
	x.gate.late.Go(func() {
		select {
		case <-x.gate.ctx.Done():
		case <-time.After(after):
			x.work(x.gate.ctx)
		}
	})
}

// gone waits until the caller has given up.
func (x *exchange) gone() {
	select {
	case <-x.gate.ctx.Done():
	case <-x.request.Context().Done():
	}
}
