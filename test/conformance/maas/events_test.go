// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// eventTime is how MAAS writes an event's time.
const eventTime = "Mon, 02 Jan. 2006 15:04:05"

type event struct {
	ID          int    `json:"id"`
	Node        string `json:"node"`
	Hostname    string `json:"hostname"`
	User        string `json:"username"`
	Level       string `json:"level"`
	Created     string `json:"created"`
	Type        string `json:"type"`
	Description string `json:"description"`
}

func (c *check) feed(a *account, query url.Values) []event {
	c.Helper()
	var page struct {
		Count  int     `json:"count"`
		Events []event `json:"events"`
		Next   *string `json:"next_uri"`
	}
	query.Set("op", "query")
	c.decode(c.get(a, "events/", query), &page)
	c.Expect(page.Count).To(Equal(len(page.Events)))
	c.Expect(page.Events).NotTo(BeNil())
	c.Expect(page.Next).NotTo(BeNil())
	newestFirst := slices.IsSortedFunc(page.Events, func(a, b event) int { return b.ID - a.ID })
	c.Expect(newestFirst).To(BeTrue(), "newest first")
	return page.Events
}

// newest is the highest event ID about a machine, 0 for none.
func (c *check) newest(id string) int {
	c.Helper()
	found := c.feed(c.user, url.Values{"id": {id}, "level": {"DEBUG"}, "limit": {"1"}})
	if len(found) == 0 {
		return 0
	}
	return found[0].ID
}

func types(list []event) []string {
	names := []string{}
	for _, e := range list {
		names = append(names, e.Type)
	}
	return names
}

// since is a query for what happened to a machine after an event.
func since(id string, after int, more url.Values) url.Values {
	query := url.Values{"id": {id}, "after": {strconv.Itoa(after)}, "limit": {"1000"}}
	for key, values := range more {
		query[key] = values
	}
	return query
}

func events(s *suite, t *testing.T) {
	s.run(t, "a claim and its release leave events, newest first", func(c *check) {
		id := c.oneMachine()
		mark := c.newest(id)
		c.allocated(c.user, id)
		c.release(c.user, id)
		c.free(id)
		info := c.feed(c.user, since(id, mark, nil))
		c.Expect(info).NotTo(BeEmpty())
		for _, e := range info {
			c.Expect(e.Node).To(Equal(id))
			c.Expect(e.ID).To(BeNumerically(">", mark))
			c.Expect(e.Level).NotTo(Equal("DEBUG"), "the default level is INFO")
			created, err := time.Parse(eventTime, e.Created)
			c.Expect(err).NotTo(HaveOccurred())
			c.Expect(created).To(BeTemporally("~", time.Now(), time.Hour), "UTC, within an hour of this machine's clock")
		}
		c.Expect(types(info)).To(ContainElements("Releasing", "Released"))
		debug := c.feed(c.user, since(id, mark, url.Values{"level": {"DEBUG"}}))
		c.Expect(types(debug)).To(ContainElement("Node changed status"))
		c.Expect(len(debug)).To(BeNumerically(">", len(info)))
	})
	s.run(t, "a deployment is in the feed", func(c *check) {
		id := c.oneMachine()
		mark := c.newest(id)
		c.deploying(c.user, id)
		c.Eventually(func() []string { return types(c.feed(c.user, since(id, mark, nil))) }).WithContext(c.ctx).
			WithTimeout(c.settings.wait).WithPolling(c.poll).Should(ContainElement("Deploying"))
	})
	s.run(t, "after returns the oldest above it, before the newest below it", window)
	s.run(t, "agent_name finds the events of the machine that has it now", func(c *check) {
		id := c.oneMachine()
		token := c.allocated(c.user, id)
		found := c.feed(c.user, url.Values{"agent_name": {token}, "level": {"DEBUG"}})
		c.Expect(found).NotTo(BeEmpty())
		for _, e := range found {
			c.Expect(e.Node).To(Equal(id))
		}
		c.Expect(c.feed(c.user, url.Values{"agent_name": {c.token()}, "level": {"DEBUG"}})).To(BeEmpty())
	})
	s.run(t, "owner finds what the account did", func(c *check) {
		// The facts say "the machine's owner", the API's documentation "events owned by": what follows is true of both.
		id := c.oneMachine()
		c.allocated(c.user, id)
		found := c.feed(c.user, url.Values{"id": {id}, "owner": {c.user.name}})
		c.Expect(found).NotTo(BeEmpty())
		for _, e := range found {
			c.wording(answer{code: 200, body: []byte(e.User)}, c.user.name)
		}
	})
	s.run(t, "another account's machine has no events for us", func(c *check) {
		id, other := c.oneMachine(), c.needOther()
		c.allocated(other, id)
		c.Expect(c.feed(c.user, url.Values{"id": {id}, "level": {"DEBUG"}})).To(BeEmpty())
		c.Expect(c.feed(other, url.Values{"id": {id}, "level": {"DEBUG"}})).NotTo(BeEmpty())
	})
	refusals := []struct {
		name  string
		query url.Values
		body  string
	}{
		{"more than 1000 events", url.Values{"limit": {"2000"}}, "Requested number of events 2000 is greater than limit: 1000"},
		{"before and after", url.Values{"before": {"9"}, "after": {"1"}}, ".+"},
		{"an unknown level", url.Values{"level": {"nope"}}, "Unrecognised log level: nope"},
	}
	for _, r := range refusals {
		s.run(t, r.name+" is refused", func(c *check) {
			r.query.Set("op", "query")
			c.wording(c.expect(c.get(c.user, "events/", r.query), 400), r.body)
		})
	}
}

// window follows the feed of a machine in steps of two events.
func window(c *check) {
	id := c.oneMachine()
	mark := c.newest(id)
	c.allocated(c.user, id)
	c.release(c.user, id)
	c.free(id)
	all := c.feed(c.user, since(id, mark, url.Values{"level": {"DEBUG"}}))
	c.Expect(len(all)).To(BeNumerically(">=", 2))
	followed := []event{}
	for after := mark; ; {
		page := c.feed(c.user, since(id, after, url.Values{"level": {"DEBUG"}, "limit": {"2"}}))
		if len(page) == 0 {
			break
		}
		c.Expect(len(page)).To(BeNumerically("<=", 2))
		after = page[0].ID
		followed = append(page, followed...)
	}
	c.Expect(followed[len(followed)-len(all):]).To(Equal(all), "a follower misses nothing")
	before := url.Values{"id": {id}, "before": {strconv.Itoa(all[0].ID)}, "level": {"DEBUG"}, "limit": {"1"}}
	c.Expect(c.feed(c.user, before)).To(Equal(all[1:2]))
}
