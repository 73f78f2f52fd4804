// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// auditGrace is how much older the list of all machines may be for those who accept a minute or more, while another makes it
// anew: that takes MAAS a quarter of a minute for a thousand machines.
const auditGrace = time.Minute

// Owned returns the account's own machines by system ID, as they were at most maxAge ago, or a minute more while they are read
// anew and maxAge is a minute or more. What it finds counts as readings of the machines. Not to be changed.
func (r *Readings) Owned(ctx context.Context, account string, maxAge time.Duration) (map[string]maas.Machine, error) {
	if owned, ok := r.ownedSince(maxAge); ok {
		return owned, nil
	}
	if len(r.auditing.slot) > 0 && maxAge >= auditGrace {
		if owned, ok := r.ownedSince(maxAge + auditGrace); ok {
			return owned, nil
		}
	}
	if err := r.auditing.enter(ctx, maas.Call{Operation: "list by owner"}); err != nil {
		return nil, err
	}
	if owned, ok := r.ownedSince(maxAge); ok {
		r.auditing.pass()
		return owned, nil
	}
	owned, err := r.listOwned(ctx, account)
	r.auditing.leave(ctx, err)
	return owned, err
}

func (r *Readings) ownedSince(maxAge time.Duration) (map[string]maas.Machine, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owned, r.owned != nil && r.clock.Now().Sub(r.ownedAt) < maxAge
}

func (r *Readings) listOwned(ctx context.Context, account string) (map[string]maas.Machine, error) {
	client, epoch := r.source()
	sent := r.clock.Now()
	found, err := client.MachinesOwnedBy(ctx, account)
	r.hear(ctx, sent, err)
	if err != nil {
		return nil, err
	}
	owned := make(map[string]maas.Machine, len(found))
	for i := range found {
		owned[found[i].SystemID] = found[i]
	}
	r.tell(r.recordOwned(epoch, sent, account, owned))
	return owned, nil
}

// recordOwned keeps the list, and returns whom to wake: who watches a machine that changed or is no longer the account's.
func (r *Readings) recordOwned(epoch int, sent time.Time, account string, owned map[string]maas.Machine) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != r.epoch {
		return nil
	}
	r.owned, r.ownedAt = owned, sent
	var woken []types.NamespacedName
	for id, reading := range r.machines {
		if sent.Before(reading.changed) || sent.Before(reading.at) {
			continue
		}
		told := false
		if machine, ok := owned[id]; ok {
			told = reading.known && r.differs(reading, &machine)
			reading.keep(&machine, sent)
		} else if reading.known && reading.listed && reading.machine.Owner == account {
			// It may be somebody else's or nobody's now: only a question of its own tells.
			told, reading.at = true, time.Time{}
		}
		if told {
			for object := range reading.watchers {
				woken = append(woken, object)
			}
		}
	}
	return woken
}
