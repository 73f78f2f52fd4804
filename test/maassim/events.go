// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Python's logging levels, as MAAS stores them.
const (
	levelDebug = 10
	levelInfo  = 20
	levelWarn  = 30
	levelError = 40
)

var levelNames = map[string]int{
	"AUDIT": 0, "DEBUG": levelDebug, "INFO": levelInfo, "WARNING": levelWarn, "ERROR": levelError, "CRITICAL": 50,
}

const maxEvents = 1000

type event struct {
	id          int
	at          time.Time
	machine     *machine
	level       int
	kind        string
	description string
	user        string
}

// addEvent appends to the feed. An INFO event is also the machine's status_message.
func (r *Region) addEvent(m *machine, level int, kind, description, user string) {
	r.events = append(r.events, event{
		id: len(r.events) + 1, at: r.clock.Now(), machine: m, level: level, kind: kind, description: description, user: user,
	})
	if level == levelInfo {
		m.statusMessage = kind
		if description != "" {
			m.statusMessage += " - " + description
		}
	}
	m.changed()
}

// request notes that a user asked for something.
// unsure: the descriptions' wording "(user) - comment".
func (r *Region) request(m *machine, c *call, kind string) {
	description := "(" + c.user.name + ")"
	if comment := c.form.Get("comment"); comment != "" {
		description += " - " + comment
	}
	r.addEvent(m, levelInfo, kind, description, c.user.name)
}

// eventWindow is the part of a query that is about positions.
type eventWindow struct {
	before, after, limit, level int
	hasBefore, hasAfter         bool
}

func parseEventWindow(form url.Values) (eventWindow, *reply) {
	w := eventWindow{limit: 100, level: levelInfo}
	number := func(key string, into *int) (bool, *reply) {
		text := form.Get(key)
		if text == "" {
			return false, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			// unsure: the exact text for a value that is no number.
			return false, text400(fmt.Sprintf("Invalid %s: Please enter an integer value", key))
		}
		*into = n
		return true, nil
	}
	var refusal *reply
	if w.hasBefore, refusal = number("before", &w.before); refusal != nil {
		return w, refusal
	}
	if w.hasAfter, refusal = number("after", &w.after); refusal != nil {
		return w, refusal
	}
	if _, refusal = number("limit", &w.limit); refusal != nil {
		return w, refusal
	}
	if w.hasBefore && w.hasAfter {
		// unsure: the exact text.
		return w, text400("There is undetermined behaviour when both ``after`` and ``before`` are specified.")
	}
	w.limit = max(w.limit, 1)
	if w.limit > maxEvents {
		return w, text400(fmt.Sprintf("Requested number of events %d is greater than limit: %d", w.limit, maxEvents))
	}
	if name := form.Get("level"); name != "" {
		level, ok := levelNames[name]
		if !ok {
			return w, text400("Unrecognised log level: " + name)
		}
		w.level = level
	}
	return w, nil
}

// queryEvents is events/?op=query. Whose events one sees follows from the machines' current owners; the filter owner, on
// the other hand, is about the account that caused the event, so that it hides what MAAS and machines did by themselves.
func queryEvents(r *Region, c *call) reply {
	w, refusal := parseEventWindow(c.form)
	if refusal != nil {
		return *refusal
	}
	match := r.eventFilter(c)
	picked := []event{}
	consider := func(e event) bool {
		inWindow := (!w.hasBefore || e.id < w.before) && (!w.hasAfter || e.id > w.after)
		if inWindow && e.level >= w.level && match(e.machine) && any1(c.form["owner"], e.user) {
			picked = append(picked, e)
		}
		return len(picked) < w.limit
	}
	// An event's id is its index plus one, so that a follower's query does not walk what it has seen.
	if w.hasAfter {
		// The oldest ones above the mark, so that a follower misses none; the answer still lists newest first.
		for i := max(w.after, 0); i < len(r.events) && consider(r.events[i]); i++ {
			continue
		}
		slices.Reverse(picked)
	} else {
		for i := len(r.events) - 1; i >= 0 && consider(r.events[i]); i-- {
			continue
		}
	}
	return json200(eventsObject(c.form, w, picked))
}

func (r *Region) eventFilter(c *call) func(*machine) bool {
	chosen := map[*machine]bool{}
	for _, m := range r.order {
		chosen[m] = c.user.sees(m) &&
			any1(c.form["id"], m.id()) && any1(c.form["hostname"], m.spec.Hostname) &&
			any1(c.form["zone"], m.spec.Zone) && any1(c.form["pool"], m.spec.Pool) &&
			any1(c.form["domain"], "maas") && any1(c.form["agent_name"], m.agentName) &&
			(len(c.form["mac_address"]) == 0 || slices.ContainsFunc(c.form["mac_address"], m.hasMAC))
	}
	return func(m *machine) bool { return chosen[m] }
}

// any1 is the rule of most filters: no value given, or one of them.
func any1(given []string, value string) bool {
	return len(given) == 0 || slices.Contains(given, value)
}

func eventsObject(form url.Values, w eventWindow, picked []event) map[string]any {
	list := make([]any, 0, len(picked))
	for _, e := range picked {
		list = append(list, map[string]any{
			"id": e.id, "node": e.machine.id(), "hostname": e.machine.spec.Hostname, "username": e.user,
			"level": levelName(e.level), "created": e.at.UTC().Format("Mon, 02 Jan. 2006 15:04:05"),
			"type": e.kind, "description": e.description,
		})
	}
	newest, oldest := w.after, w.before
	if len(picked) > 0 {
		newest, oldest = picked[0].id, picked[len(picked)-1].id
	}
	return map[string]any{
		"count": len(picked), "events": list,
		"next_uri": eventsURI(form, "after", newest), "prev_uri": eventsURI(form, "before", oldest),
	}
}

func eventsURI(form url.Values, key string, id int) string {
	query := url.Values{}
	for name, values := range form {
		if name != "before" && name != "after" {
			query[name] = values
		}
	}
	query.Set("op", "query")
	query.Set(key, strconv.Itoa(id))
	return apiRoot + "events/?" + query.Encode()
}

func levelName(level int) string {
	for name, number := range levelNames {
		if number == level {
			return name
		}
	}
	return strconv.Itoa(level)
}
