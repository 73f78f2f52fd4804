// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const account = "capi"

// region is a MAAS that does at once what it is told, unless a test says otherwise.
type region struct {
	scope.MAAS // What no test asks for.

	servers map[string]*maas.Machine
	tokens  map[string]string
	devices map[string][]maas.Device
	// calls are the operations asked for, reads included.
	calls []string
	// refuse answers an operation with an error and does nothing; lose does it and loses the answer.
	refuse, lose map[string]error
	// stay keeps a release from coming to its end.
	stay maas.Status
	// during is called while an operation is under way.
	during map[string]func()
}

func newRegion(ids ...string) *region {
	r := &region{
		servers: map[string]*maas.Machine{}, tokens: map[string]string{}, devices: map[string][]maas.Device{},
		refuse: map[string]error{}, lose: map[string]error{}, during: map[string]func(){},
	}
	for _, id := range ids {
		r.servers[id] = &maas.Machine{
			SystemID: id, Hostname: id, Status: maas.StatusReady, PowerType: "ipmi", PowerState: maas.PowerOff, Annotations: map[string]string{},
		}
	}
	return r
}

// call counts an operation and says what is wrong with it.
func (r *region) call(operation string) error {
	r.calls = append(r.calls, operation)
	if during := r.during[operation]; during != nil {
		during()
	}
	return r.refuse[operation]
}

// count is how often one of the operations was asked for.
func (r *region) count(operations ...string) int {
	n := 0
	for _, call := range r.calls {
		if slices.Contains(operations, call) {
			n++
		}
	}
	return n
}

func (r *region) read(id string) maas.Machine {
	m := *r.servers[id]
	m.Annotations = maps.Clone(m.Annotations)
	return m
}

func (r *region) list(operation string, wanted func(*maas.Machine) bool) ([]maas.Machine, error) {
	if err := r.call(operation); err != nil {
		return nil, err
	}
	var found []maas.Machine
	for _, id := range slices.Sorted(maps.Keys(r.servers)) {
		if wanted(r.servers[id]) {
			found = append(found, r.read(id))
		}
	}
	return found, nil
}

func (r *region) Machine(_ context.Context, id string) (maas.Machine, error) {
	if err := r.call("read"); err != nil {
		return maas.Machine{}, err
	}
	m, ok := r.servers[id]
	switch {
	case !ok:
		return maas.Machine{}, &maas.NotFoundError{Call: maas.Call{Operation: "read", Object: "machine " + id}}
	case m.Owner != "" && m.Owner != account:
		return maas.Machine{}, &maas.ForbiddenError{Call: maas.Call{Operation: "read", Object: "machine " + id}}
	}
	return r.read(id), nil
}

func (r *region) MachinesByID(_ context.Context, ids ...string) ([]maas.Machine, error) {
	return r.list("list by ID", func(m *maas.Machine) bool {
		return slices.Contains(ids, m.SystemID) && (m.Owner == "" || m.Owner == account)
	})
}

func (r *region) MachinesByToken(_ context.Context, token string) ([]maas.Machine, error) {
	return r.list("list by token", func(m *maas.Machine) bool { return r.tokens[m.SystemID] == token && m.Owner == account })
}

func (r *region) MachinesByTokens(_ context.Context, tokens ...string) ([]maas.Machine, error) {
	return r.list("list by tokens", func(m *maas.Machine) bool { return slices.Contains(tokens, r.tokens[m.SystemID]) && m.Owner == account })
}

func (r *region) MachinesOwnedBy(_ context.Context, owner string) ([]maas.Machine, error) {
	return r.list("list by owner", func(m *maas.Machine) bool { return m.Owner == owner })
}

func (r *region) MachinesMatching(_ context.Context, c maas.Constraints, _ ...maas.Status) ([]maas.Machine, error) {
	return r.list("list matching", func(m *maas.Machine) bool { return r.matches(m, c) })
}

func (r *region) matches(m *maas.Machine, c maas.Constraints) bool {
	return m.Status == maas.StatusReady && (len(c.SystemIDs) == 0 || slices.Contains(c.SystemIDs, m.SystemID)) &&
		!slices.Contains(c.NotSystemIDs, m.SystemID)
}

func (r *region) Devices(_ context.Context, id string) ([]maas.Device, error) {
	found, special := r.devices[id]
	if !special {
		found = []maas.Device{{VendorID: "8086", ProductID: "1563"}} // What every server has.
	}
	return found, r.call("devices")
}

func (r *region) ConfirmClaim(ctx context.Context, owner, token, id string) (maas.Machine, maas.Ownership, error) {
	m, err := r.Machine(ctx, id)
	return m, m.ClaimedBy(owner, token), err
}

func (r *region) Allocate(_ context.Context, token string, c maas.Constraints, _ string) (maas.Machine, error) {
	if err := r.call("allocate"); err != nil {
		return maas.Machine{}, err
	}
	var free []string
	for id, m := range r.servers {
		if r.matches(m, c) {
			free = append(free, id)
		}
	}
	if len(free) == 0 {
		return maas.Machine{}, &maas.NoMatchError{}
	}
	id := slices.Min(free)
	r.give(id, token)
	return r.read(id), r.lose["allocate"]
}

// give allocates a server under a token.
func (r *region) give(id, token string) {
	m := r.servers[id]
	m.Status, m.Owner, r.tokens[id] = maas.StatusAllocated, account, token
}

func (r *region) Annotate(_ context.Context, id string, annotations map[string]string) (maas.Machine, error) {
	if err := r.call("annotate"); err != nil {
		return maas.Machine{}, err
	}
	maps.Copy(r.servers[id].Annotations, annotations)
	return r.read(id), r.lose["annotate"]
}

func (r *region) Deploy(_ context.Context, id string, _ maas.DeployRequest) (maas.Machine, error) {
	if err := r.call("deploy"); err != nil {
		return maas.Machine{}, err
	}
	m := r.servers[id]
	m.Status, m.PowerState, m.OSystem = maas.StatusDeploying, maas.PowerOn, "ubuntu"
	return r.read(id), r.lose["deploy"]
}

func (r *region) PowerOff(_ context.Context, id, _ string) error {
	if err := r.call("power off"); err != nil {
		return err
	}
	r.servers[id].PowerState = maas.PowerOff
	return r.lose["power off"]
}

func (r *region) Release(_ context.Context, id string, request maas.ReleaseRequest) error {
	if err := r.call(cmp.Or("release " + string(request.Erase))); err != nil {
		return err
	}
	if err := r.call("release"); err != nil {
		return err
	}
	m := r.servers[id]
	m.Status, r.tokens[id], m.OSystem = r.stay, "", ""
	if r.stay == 0 {
		m.Status, m.Owner, m.Annotations = maas.StatusReady, "", map[string]string{}
	}
	return r.lose["release"]
}
