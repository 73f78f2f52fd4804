// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"

	"k8s.io/apimachinery/pkg/util/wait"
)

// again is after how many polls a step is repeated that led nowhere.
const again = 20

// see reads the fleet with every account there is, so that whoever of them owns a machine, it is seen.
func (s *suite) see(ctx context.Context, systemIDs ...string) (map[string]machine, error) {
	seen := map[string]machine{}
	for _, a := range []*account{s.user, s.other, s.admin} {
		if a == nil || len(seen) == len(systemIDs) {
			continue
		}
		got, err := s.do(ctx, a, request{method: get, path: "machines/", query: url.Values{"id": systemIDs}})
		if err != nil {
			return nil, err
		}
		var list []machine
		if err := json.Unmarshal(got.body, &list); got.code != 200 || err != nil {
			return nil, fmt.Errorf("list machines as %s: %s", a.name, got.text())
		}
		for i := range list {
			seen[list[i].SystemID] = list[i]
		}
	}
	return seen, nil
}

// sweep leaves every machine of the fleet idle, whatever a case did with it.
func (s *suite) sweep(t *testing.T) {
	t.Helper()
	if !s.touched.Swap(false) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.wait)
	defer cancel()
	seen, err := s.see(ctx, s.all()...)
	if err != nil {
		s.touched.Store(true)
		t.Errorf("look at the machines: %v", err)
		return
	}
	for _, id := range s.all() {
		if m, ok := seen[id]; !ok || !m.idle() {
			s.restore(ctx, t, id)
		}
	}
}

// restore brings one machine back to Ready, step by step, and fails the test if it cannot.
func (s *suite) restore(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	last, steps := "it was never seen", map[int]int{}
	err := wait.PollUntilContextTimeout(ctx, s.poll, s.wait, true, func(ctx context.Context) (bool, error) {
		seen, err := s.see(ctx, id)
		if err != nil {
			last = err.Error()
			return false, nil //nolint:nilerr // MAAS may answer the next time
		}
		m, ok := seen[id]
		if !ok {
			last = "none of the accounts sees it"
			return false, nil
		}
		last = fmt.Sprintf("%s, owner %q, locked %v", m.StatusName, m.owner(), m.Locked)
		if steps[m.Status]++; steps[m.Status]%again == 1 && !m.idle() {
			s.step(ctx, m)
		}
		return m.idle(), nil
	})
	if err != nil {
		s.touched.Store(true)
		t.Errorf("machine %s is not Ready again (%v): %s", id, err, last)
	}
}

// step does what leads a machine towards Ready. Answers are ignored: the next look tells. What belongs to an account that
// is not the suite's is left alone.
func (s *suite) step(ctx context.Context, m machine) {
	actor := s.user
	for _, a := range []*account{s.user, s.other, s.admin} {
		if a != nil && a.name == m.owner() {
			actor = a
		}
	}
	if m.Owner != nil && actor.name != m.owner() {
		return
	}
	operate := func(a *account, op string) {
		_, _ = s.do(ctx, a, request{method: post, path: "machines/" + m.SystemID + "/", op: op, form: url.Values{"comment": {s.prefix}}})
	}
	if m.Locked {
		operate(actor, "unlock")
	}
	switch m.Status {
	case statusDeploying:
		operate(actor, "abort")
	case statusDiskErasing:
		if code, err := s.drive(ctx, "failed", m.SystemID, nil); err != nil || code/100 != 2 {
			operate(actor, "abort")
		}
	case statusReleasing:
		_, _ = s.drive(ctx, "power", m.SystemID, url.Values{"state": {"off"}})
	case statusBroken:
		if s.admin != nil {
			operate(s.admin, "mark_fixed")
		}
	case statusReady:
	default:
		if m.PowerState == "on" {
			_, _ = s.drive(ctx, "power", m.SystemID, url.Values{"state": {"off"}})
		}
		operate(actor, "release")
	}
}

// drive asks the driver to move a machine; without one it answers 0.
func (s *suite) drive(ctx context.Context, action, id string, fields url.Values) (int, error) {
	if s.driver == "" {
		return 0, nil
	}
	form := url.Values{"system_id": {id}, "comment": {s.prefix}}
	for key, values := range fields {
		form[key] = values
	}
	w := &wire{http: s.wire.http, root: s.driver + "/", timeout: s.callTimeout}
	got, err := w.once(ctx, request{method: post, path: action, form: form})
	return got.code, err
}

// inspect fails the test unless every machine is as it was found.
func (s *suite) inspect(t *testing.T) {
	t.Helper()
	s.sweep(t)
	ctx, cancel := context.WithTimeout(context.Background(), s.callTimeout)
	defer cancel()
	seen, err := s.see(ctx, s.all()...)
	if err != nil {
		t.Errorf("look at the machines at the end: %v", err)
		return
	}
	for _, id := range s.all() {
		m, ok := seen[id]
		before := s.asFound(id)
		if !ok || !m.idle() || m.Pool != before.Pool || m.Zone != before.Zone || fmt.Sprint(m.Tags) != fmt.Sprint(before.Tags) {
			t.Errorf("machine %s is not as it was found: seen %v, %s, owner %q, annotations %v, pool %s, zone %s, tags %v",
				id, ok, m.StatusName, m.owner(), m.Annotations, m.Pool.Name, m.Zone.Name, m.Tags)
		}
	}
}
