// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// check is one case: the test, its assertions and the run it belongs to.
type check struct {
	*testing.T
	Gomega
	*suite
	// stop fails and ends the case.
	stop func(format string, args ...any)
}

// run runs a case of its own name and leaves every machine idle after it.
func (s *suite) run(t *testing.T, name string, body func(*check)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		if s.ctx.Err() != nil {
			t.Fatal("the run was interrupted, or its time is over")
		}
		s.cases.Add(1)
		t.Cleanup(func() { s.sweep(t) })
		body(&check{T: t, Gomega: NewWithT(t), suite: s, stop: t.Fatalf})
	})
}

// mismatch is a failure inside [check.while].
type mismatch string

// while is for what holds only as long as a machine is in a state. Where hardware moves the machine on meanwhile, what
// fails then says nothing about MAAS, and the case is skipped.
func (c *check) while(id string, status int, body func(*check)) {
	c.Helper()
	said := len(c.wordings)
	inner := *c
	inner.stop = func(format string, args ...any) { panic(mismatch(fmt.Sprintf(format, args...))) }
	inner.Gomega = NewGomega(func(message string, _ ...int) { panic(mismatch(message)) })
	defer func() {
		caught := recover()
		if caught == nil {
			return
		}
		message, ours := caught.(mismatch)
		if !ours {
			panic(caught)
		}
		seen, err := c.see(c.ctx, id)
		if now := seen[id]; err == nil && now.Status != status {
			c.wordings = c.wordings[:said]
			c.skip("the machine became %s by itself meanwhile", now.StatusName)
		}
		c.stop("%s", string(message))
	}()
	body(&inner)
}

// skip ends a case that cannot be run here and says why at the end.
func (c *check) skip(format string, args ...any) {
	c.Helper()
	reason := fmt.Sprintf(format, args...)
	_, name, _ := strings.Cut(c.Name(), "/")
	c.mu.Lock()
	c.skipped = append(c.skipped, name+": "+reason)
	c.mu.Unlock()
	if c.strict {
		c.Fatal("must not be skipped here: " + reason)
	}
	c.Skip(reason)
}

func (c *check) needOther() *account {
	c.Helper()
	if c.other == nil {
		c.skip("needs a second ordinary account (MAAS_OTHER_KEY, or an administrator who may create one)")
	}
	return c.other
}

func (c *check) needAdmin() *account {
	c.Helper()
	if c.admin == nil {
		c.skip("needs an administrator's key (MAAS_ADMIN_KEY)")
	}
	return c.admin
}

func (c *check) needDriver() {
	c.Helper()
	if c.driver == "" {
		c.skip("needs a driver (MAAS_DRIVER)")
	}
}

// machinesToUse are n system IDs of the fleet.
func (c *check) machinesToUse(n int) []string {
	c.Helper()
	if len(c.fleet) < n {
		c.skip("needs %d machines, there are %d", n, len(c.fleet))
	}
	return c.all()[:n]
}

func (c *check) oneMachine() string {
	c.Helper()
	return c.machinesToUse(1)[0]
}

// send is a call whose answer the case looks at.
func (c *check) send(a *account, r request) answer {
	c.Helper()
	got, err := c.do(c.ctx, a, r)
	if err != nil {
		c.stop("%s %s op=%s: %v", r.method, r.path, r.op, err)
	}
	return got
}

func (c *check) get(a *account, path string, query url.Values) answer {
	c.Helper()
	return c.send(a, request{method: get, path: path, query: query})
}

func (c *check) post(a *account, path, op string, form url.Values) answer {
	c.Helper()
	return c.send(a, request{method: post, path: path, op: op, form: form})
}

// on is an operation on one machine.
func (c *check) on(a *account, id, op string, form url.Values) answer {
	c.Helper()
	return c.post(a, "machines/"+id+"/", op, form)
}

func (c *check) allocate(a *account, form url.Values) answer {
	c.Helper()
	return c.post(a, "machines/", "allocate", form)
}

// expect holds an answer's code against the one wanted.
func (c *check) expect(got answer, code int) answer {
	c.Helper()
	if got.code != code {
		c.stop("want %d, got %s", code, got.text())
	}
	return got
}

// refused holds that a state forbids a call: 409, and nothing that asks to repeat it.
func (c *check) refused(got answer) answer {
	c.Helper()
	c.expect(got, 409)
	c.Expect(got.header).NotTo(HaveKey("Retry-After"), "a fact about state must not look like a conflict to repeat")
	return got
}

// invalid holds that a form was refused for a field: 400 and {"field": ["message"]}.
func (c *check) invalid(got answer, field string) []string {
	c.Helper()
	c.expect(got, 400)
	fields := got.formErrors()
	c.Expect(fields).To(HaveKey(field), got.text())
	c.Expect(fields[field]).NotTo(BeEmpty(), got.text())
	return fields[field]
}

// wording holds a text against the one MAAS 3.7.3 gives, as a regular expression. Another text is no failure, except on
// the simulator, but it is said at the end. A 401's text is compared without being shown.
func (c *check) wording(got answer, want string) {
	c.Helper()
	if regexp.MustCompile("^(?:" + want + ")$").Match(got.body) {
		return
	}
	_, name, _ := strings.Cut(c.Name(), "/")
	line := fmt.Sprintf("%s: want %q, got %s", name, want, got.text())
	c.mu.Lock()
	c.wordings = append(c.wordings, line)
	c.mu.Unlock()
	if c.strict {
		c.Error(line)
	}
}

func (c *check) decode(got answer, into any) {
	c.Helper()
	c.expect(got, 200)
	if !got.isJSON() {
		c.stop("no JSON (%s): %s", got.header.Get("Content-Type"), got.text())
	}
	if err := json.Unmarshal(got.body, into); err != nil {
		c.stop("%v in %s", err, got.text())
	}
}

func (c *check) machine(got answer) machine {
	c.Helper()
	var m machine
	c.decode(got, &m)
	c.Expect(m.SystemID).NotTo(BeEmpty(), got.text())
	return m
}

// read is the machine as an account sees it now.
func (c *check) read(a *account, id string) machine {
	c.Helper()
	return c.machine(c.get(a, "machines/"+id+"/", nil))
}

// list is what a query finds among all machines.
func (c *check) list(a *account, query url.Values) []machine {
	c.Helper()
	var found []machine
	c.decode(c.get(a, "machines/", query), &found)
	return found
}

// claimed are the system IDs a token finds.
func (c *check) claimed(a *account, tokens ...string) []string {
	c.Helper()
	return ids(c.list(a, url.Values{"agent_name": tokens}))
}

// await polls until a machine has one of the statuses.
func (c *check) await(a *account, id string, statuses ...int) machine {
	c.Helper()
	var last machine
	c.Eventually(func(g Gomega) {
		got, err := c.do(c.ctx, a, request{method: get, path: "machines/" + id + "/"})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(got.code).To(Equal(200), got.text())
		last = machine{}
		g.Expect(json.Unmarshal(got.body, &last)).To(Succeed())
		g.Expect(slices.Contains(statuses, last.Status)).To(BeTrue(), "the machine is %s", last.StatusName)
	}).WithContext(c.ctx).WithTimeout(c.settings.wait).WithPolling(c.poll).Should(Succeed())
	return last
}

// move asks the driver for something the case depends on.
func (c *check) move(action, id, state string) {
	c.Helper()
	c.needDriver()
	fields := url.Values{}
	if state != "" {
		fields.Set("state", state)
	}
	code, err := c.drive(c.ctx, action, id, fields)
	if err != nil {
		c.stop("driver %s: %v", action, err)
	}
	if code/100 != 2 {
		c.skip("the driver answers %d to %s of a machine that is %s", code, action, c.status(id))
	}
}

func (c *check) status(id string) string {
	seen, err := c.see(c.ctx, id)
	if err != nil {
		return err.Error()
	}
	return seen[id].StatusName
}
