// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	apiRoot    = "/MAAS/api/2.0/"
	driverRoot = "/driver/"
	// maxForm bounds what a request body may hold in memory.
	maxForm = 64 << 20
)

// call is one request on its way through the region.
type call struct {
	user *user
	// operation is the name calls are counted and faults matched by.
	operation string
	endpoint  *endpoint
	args      []string
	form      url.Values
	// machine is the one in the path, or the one allocated.
	machine *machine
	// systemID and claim are what the call is attributed to.
	systemID, claim string
	// fault is what the call was chosen for; hardware faults take effect in the operation.
	fault *Fault
	// after is post-commit work: done once the answer is rendered, before it is sent.
	after []func()
}

// endpoint is one signature of a resource: verb and op.
type endpoint struct {
	verb, op string
	// name of the operation; empty means the op's.
	name string
	// admin refuses others before anything is looked up.
	admin bool
	// kind, if set, resolves the first path argument to a machine the caller may see; it is the kind a 404 names.
	kind string
	// edit wants permission to change that machine too.
	edit bool
	// open endpoints need no account.
	open bool
	run  func(*Region, *call) reply
}

// resource is a URL pattern ("*" is an argument) with its endpoints.
type resource struct {
	pattern   string
	endpoints []endpoint
}

// Handler serves the API below /MAAS/api/2.0/, /MAAS/accounts/authenticate/ and the driver below /driver/. The driver
// needs no credentials: serve it on loopback only.
func (r *Region) Handler() http.Handler {
	resources := r.resources()
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.URL.Path, driverRoot) {
			r.serveDriver(w, request)
			return
		}
		if request.URL.Path == authenticatePath {
			r.exchange(w, request)
			return
		}
		answer := r.serve(resources, request)
		if answer.dropped {
			// net/http's own way to cut a connection without an answer; the server recovers it silently.
			panic(http.ErrAbortHandler)
		}
		r.send(w, answer)
	})
}

func (r *Region) send(w http.ResponseWriter, answer reply) {
	header := w.Header()
	header.Set("Vary", "Authorization, Cookie")
	header.Set("X-Maas-Api-Hash", "simulated")
	for key, values := range answer.header {
		header[http.CanonicalHeaderKey(key)] = values
	}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", answer.contentType)
	}
	w.WriteHeader(answer.code)
	// A client that is gone is no news here: the work is done either way.
	_, _ = w.Write(answer.body)
}

// serve takes a request from URL to answer: resource, account, signature, faults, latency, work.
func (r *Region) serve(resources []resource, request *http.Request) reply {
	found, args := match(resources, request.URL.Path)
	if found == nil {
		return text(http.StatusNotFound, "Unknown API endpoint: "+request.URL.Path+".")
	}
	c := &call{args: args, operation: strings.ToLower(request.Method) + " " + found.pattern}
	account, refusal := r.authenticate(request.Header.Get("Authorization"))
	if refusal != nil {
		r.count(c, refusal.code)
		return *refusal
	}
	c.user = account
	if refusal := c.parse(found, request); refusal != nil {
		r.count(c, refusal.code)
		return *refusal
	}
	answer := r.perform(c, request)
	if answer.dropped {
		answer.code = 0
	}
	r.count(c, answer.code)
	return answer
}

// match finds the resource of a path. Double slashes collapse; a missing trailing slash is no resource.
func match(resources []resource, requested string) (*resource, []string) {
	cleaned := path.Clean(requested)
	rest, ok := strings.CutPrefix(cleaned+"/", apiRoot)
	if !ok || !strings.HasSuffix(requested, "/") {
		return nil, nil
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	for i := range resources {
		pattern := strings.Split(resources[i].pattern, "/")
		if args, ok := matchParts(pattern, parts); ok {
			return &resources[i], args
		}
	}
	return nil, nil
}

func matchParts(pattern, parts []string) ([]string, bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	args := []string{}
	for i, want := range pattern {
		switch {
		case want == "*" && parts[i] != "":
			args = append(args, parts[i])
		case want != parts[i]:
			return nil, false
		}
	}
	return args, true
}

// parse reads the form and picks the endpoint by verb and op.
func (c *call) parse(found *resource, request *http.Request) *reply {
	if !allows(found, request.Method) {
		return &reply{code: http.StatusMethodNotAllowed, contentType: contentText}
	}
	request.Body = http.MaxBytesReader(nil, request.Body, maxForm)
	var err error
	if strings.HasPrefix(request.Header.Get("Content-Type"), "multipart/") {
		err = request.ParseMultipartForm(maxForm) //nolint:gosec // the body is bounded above
	} else {
		err = request.ParseForm()
	}
	if err != nil {
		return text400("The request's form cannot be read")
	}
	c.form = url.Values{}
	for key, values := range request.Form {
		c.form[key] = values
	}
	op := c.form.Get("op")
	delete(c.form, "op")
	for i := range found.endpoints {
		e := &found.endpoints[i]
		if e.verb != request.Method || e.op != op || (c.user == nil && !e.open) {
			continue
		}
		c.endpoint = e
		c.operation = e.name
		setDefault(&c.operation, e.op)
		c.attribute()
		return nil
	}
	setDefault(&op, "None")
	return text400("Unrecognised signature: method=" + request.Method + " op=" + op)
}

func allows(found *resource, verb string) bool {
	for _, e := range found.endpoints {
		if e.verb == verb {
			return true
		}
	}
	return false
}

// attribute notes what the request itself says about machine and claim; the work may know more.
func (c *call) attribute() {
	if c.endpoint.kind != "" {
		c.systemID = c.args[0]
		return
	}
	for _, key := range []string{"system_id", "id", "machines"} {
		if values := c.form[key]; len(values) == 1 {
			c.systemID = values[0]
		}
	}
	if values := c.form["agent_name"]; len(values) == 1 {
		c.claim = values[0]
	}
}

// perform applies injected faults around the work. It runs without the lock.
func (r *Region) perform(c *call, request *http.Request) reply {
	r.takeFault(c)
	switch c.hardwareFault() {
	case FaultStatus:
		return r.work(c, func() reply { return c.fault.answer() })
	case FaultConflict:
		return r.work(c, databaseConflict)
	case FaultHang:
		select {
		case <-request.Context().Done():
		case <-r.done:
		}
		return reply{dropped: true}
	case FaultLateCommit:
		r.commitLater(c, c.fault.Delay)
		return reply{dropped: true}
	case FaultDelay:
		r.pause(c.fault.Delay)
	}
	answer := r.locked(c)
	if c.hardwareFault() == FaultDropReply {
		answer.dropped = true
	}
	return answer
}

// locked serializes allocations; one that waits its turn takes up no worker.
func (r *Region) locked(c *call) reply {
	if c.operation != opAllocate {
		return r.work(c, func() reply { return r.execute(c) })
	}
	r.allocating <- struct{}{}
	defer func() { <-r.allocating }()
	return r.work(c, func() reply {
		r.pause(r.timing.Allocate)
		return r.execute(c)
	})
}

// work holds one of the region's workers for the time the call takes. What is read is read at once and rendered after
// that, from the transaction's snapshot.
func (r *Region) work(c *call, do func() reply) reply {
	if r.workers != nil {
		r.workers <- struct{}{}
		defer func() { <-r.workers }()
	}
	latency, known := r.timing.Operations[c.operation]
	if !known {
		latency = r.timing.Call
	}
	r.pause(latency)
	answer := do()
	r.pause(r.timing.PerMachineList * time.Duration(answer.listed))
	return answer
}

// execute does the work. It takes the lock.
func (r *Region) execute(c *call) reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.transact(c)
}

// transact is one transaction: permission, operation, then post-commit work.
func (r *Region) transact(c *call) reply {
	if c.endpoint.admin && !c.user.admin {
		return adminOnly()
	}
	if c.endpoint.kind != "" {
		c.machine = r.machines[c.args[0]]
		if c.machine == nil {
			return noSuch(c.endpoint.kind)
		}
		c.claim = c.machine.claim
		if !c.user.sees(c.machine) || (c.endpoint.edit && !c.user.edits(c.machine)) {
			return forbidden()
		}
	}
	if c.endpoint.verb != http.MethodGet && c.machine != nil {
		c.machine.changed()
	}
	answer := c.endpoint.run(r, c)
	for _, work := range c.after {
		work()
	}
	c.after = nil
	if c.endpoint.verb != http.MethodGet && c.machine != nil {
		c.machine.changed()
		c.systemID = c.machine.id()
		setDefault(&c.claim, c.machine.claim)
	}
	return answer
}
