// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// The questions a fleet counts.
const (
	askEvents = "events"
	askByID   = "by ID"
	askOne    = "one"
	askTokens = "tokens"
	askOwned  = "owned"
	askWho    = "who"
)

var errRefused = errors.New("refused")

// fleet is a MAAS with machines and events that counts what it is asked. It fails and hangs by question.
type fleet struct {
	MAAS
	mu       sync.Mutex
	machines map[string]maas.Machine
	// claimed are the machines by the token they were allocated under.
	claimed map[string]string
	events  []maas.Event
	calls   map[string]int
	// last are the arguments of the last question, read the machines read in all.
	last map[string][]string
	read int

	fails map[string]error
	// hangs holds up the answers of a question until it is closed, or the asker gives up.
	hangs map[string]chan struct{}
	// before happens when a question was taken, before it is answered; once.
	before map[string]func()
}

func newFleet(machines int) *fleet {
	f := &fleet{
		machines: map[string]maas.Machine{}, claimed: map[string]string{}, calls: map[string]int{}, last: map[string][]string{},
		fails: map[string]error{}, hangs: map[string]chan struct{}{}, before: map[string]func(){},
	}
	for i := range machines {
		id := machineID(i)
		f.machines[id] = maas.Machine{SystemID: id, Owner: "capi", Status: maas.StatusDeployed}
	}
	return f
}

func machineID(i int) string { return fmt.Sprintf("m%d", i) }

// asked counts a question, and waits and fails as told.
func (f *fleet) asked(ctx context.Context, question string, arguments ...string) error {
	f.mu.Lock()
	f.calls[question]++
	f.last[question] = slices.Clone(arguments)
	hangs, before := f.hangs[question], f.before[question]
	delete(f.before, question)
	f.mu.Unlock()
	if before != nil {
		before()
	}
	if hangs != nil {
		select {
		case <-hangs:
		case <-ctx.Done():
			return &maas.UnavailableError{Err: ctx.Err()}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fails[question]
}

func (f *fleet) count(question string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[question]
}

// forget starts counting anew.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.read = map[string]int{}, 0
}

func (f *fleet) arguments(question string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.last[question]))
}

func (f *fleet) fail(question string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[question] = err
}

// hang holds up the answers until the function it returns is called.
func (f *fleet) hang(question string) (release func()) {
	held := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangs[question] = held
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.hangs, question)
		close(held)
	}
}

// hangNoMore lets further questions through; those that hang go on hanging.
func (f *fleet) hangNoMore(question string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.hangs, question)
}

func (f *fleet) onAsked(question string, do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before[question] = do
}

// silently changes a machine; become also records an event.
func (f *fleet) silently(id string, status maas.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.machines[id]
	m.SystemID, m.Owner, m.Status = id, "capi", status
	f.machines[id] = m
}

func (f *fleet) become(id string, status maas.Status) {
	f.silently(id, status)
	f.record(id)
}

func (f *fleet) record(ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.events = append(f.events, maas.Event{ID: int64(len(f.events) + 1), SystemID: id})
	}
}

func (f *fleet) remove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.machines, id)
}

func (f *fleet) WhoAmI(ctx context.Context) (maas.Account, error) {
	return maas.Account{Username: "capi"}, f.asked(ctx, askWho)
}

func (f *fleet) Events(ctx context.Context, after int64, query maas.EventQuery) ([]maas.Event, error) {
	if err := f.asked(ctx, askEvents); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := query.Limit
	if limit == 0 {
		limit = maas.MaxEvents
	}
	if after < 0 {
		return slices.Clone(f.events[max(0, len(f.events)-limit):]), nil
	}
	from := min(int(after), len(f.events))
	return slices.Clone(f.events[from:min(from+limit, len(f.events))]), nil
}

func (f *fleet) MachinesByID(ctx context.Context, ids ...string) ([]maas.Machine, error) {
	answer := f.pick(ids) // What the answer says is of the time of the question.
	err := f.asked(ctx, askByID, ids...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read += len(ids)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (f *fleet) pick(ids []string) []maas.Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []maas.Machine
	for _, id := range ids {
		if m, ok := f.machines[id]; ok {
			found = append(found, m)
		}
	}
	return found
}

func (f *fleet) Machine(ctx context.Context, id string) (maas.Machine, error) {
	if err := f.asked(ctx, askOne, id); err != nil {
		return maas.Machine{}, err
	}
	if found := f.pick([]string{id}); len(found) == 1 {
		return found[0], nil
	}
	return maas.Machine{}, &maas.NotFoundError{}
}

func (f *fleet) MachinesByTokens(ctx context.Context, tokens ...string) ([]maas.Machine, error) {
	if err := f.asked(ctx, askTokens, tokens...); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []maas.Machine
	for _, token := range tokens {
		if id, ok := f.claimed[token]; ok {
			found = append(found, f.machines[id])
		}
	}
	return found, nil
}

func (f *fleet) MachinesOwnedBy(ctx context.Context, account string) ([]maas.Machine, error) {
	if err := f.asked(ctx, askOwned, account); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(f.machines)), func(m maas.Machine) bool { return m.Owner != account }), nil
}
