// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/event"
)

// MaxEvents is how many events MAAS returns at most.
const MaxEvents = 1000

// EventQuery narrows the event feed. Machines are matched by their present owner and
// token: events of a machine disappear once it belongs to somebody else.
type EventQuery struct {
	SystemID string
	Owner    string
	Token    string
	// Debug includes debug events, among them "Node changed status"; otherwise INFO and up.
	Debug bool
	// Limit is at most MaxEvents; zero means MaxEvents.
	Limit int
}

// Event is something that MAAS recorded about a machine.
type Event struct {
	ID       int64
	SystemID string
	Hostname string
	Username string
	Level    string
	// Type such as "Deployed" or "Released".
	Type        string
	Description string
	// Created in UTC; zero if MAAS wrote something else than a date.
	Created time.Time
}

// Events returns the oldest events after the given ID, in ascending order. With a
// negative ID it returns the newest instead, to find where to begin.
func (c *Client) Events(ctx context.Context, after int64, query EventQuery) ([]Event, error) {
	call := Call{Operation: "list events"}
	limit := cmp.Or(query.Limit, MaxEvents)
	if limit < 0 || limit > MaxEvents {
		return nil, &ArgumentError{Call: call, Problem: "the limit is not between 1 and " + strconv.Itoa(MaxEvents)}
	}
	params := &entity.EventParams{
		ID: query.SystemID, Owner: query.Owner, AgentName: query.Token,
		Limit: strconv.Itoa(limit), Level: event.INFO,
	}
	if query.Debug {
		params.Level = event.DEBUG
	}
	if after >= 0 {
		params.After = strconv.FormatInt(after, 10)
	}
	var events []Event
	err := c.do(ctx, request{Call: call, secrets: []string{query.Token}}, func(w wire) error {
		answer, err := w.maas.Events.Get(params)
		if err != nil {
			return err
		}
		if answer.Events == nil {
			return errNotAList
		}
		events = make([]Event, 0, len(answer.Events))
		for i := range answer.Events {
			events = append(events, newEvent(&answer.Events[i]))
		}
		slices.SortFunc(events, func(a, b Event) int { return cmp.Compare(a.ID, b.ID) })
		return nil
	})
	return events, err
}

// eventTime is how MAAS writes an event's time, in UTC without saying so.
const eventTime = "Mon, 02 Jan. 2006 15:04:05"

func newEvent(e *entity.Event) Event {
	created, err := time.Parse(eventTime, e.Created)
	if err != nil {
		created = time.Time{}
	}
	return Event{
		ID: int64(e.ID), SystemID: e.Node, Hostname: e.Hostname, Username: e.UserName,
		Level: string(e.Level), Type: e.Type, Description: e.Description, Created: created,
	}
}
