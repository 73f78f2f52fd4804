// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// sampleSize is how many eligible servers are offered to MAAS, which takes one: enough to find a free one, and few
	// enough that machines that ask at once do not all ask for the same.
	sampleSize = 64
	// deviceChecks is how many servers without ports are looked into in one pass.
	deviceChecks = 8
	// provenMaxAge is how old the fabric's word may be that a server's DPUs are on no VPC: longer than a fabric that lives leaves
	// it, whatever its proofMaxAge.
	provenMaxAge = 30 * time.Minute
)

// constraints are what MAAS is asked for, without system IDs.
func (p *pass) constraints() maas.Constraints {
	return p.placement().Constraints()
}

func (p *pass) placement() scope.Placement {
	return scope.Placement{
		Spec: &p.machine.Spec.MachineConstraints, FailureDomain: p.owner.Spec.FailureDomain, Cluster: p.maasCluster, Identity: p.identity.Object,
	}
}

// choose adds the servers that may be taken to the constraints, in offers of which the first is to be tried first. Servers on
// which a deployment failed are offered once nothing else is free. There are no system IDs in an offer where the fabric does not
// say which servers are eligible: then the fabric wing refuses what does not fit, which costs a try.
func (p *pass) choose(ctx context.Context, constraints maas.Constraints) ([]maas.Constraints, error) {
	if len(p.machine.Spec.Ports) == 0 {
		free, err := p.plainServers(ctx, constraints)
		return p.offers(listed(constraints), free), orNone(err, free, "no free machine that is known to have no DPUs, or none on a VPC")
	}
	known, err := p.servers(ctx)
	if err != nil {
		return nil, err
	}
	avoided := p.avoided()
	if known == nil {
		if len(avoided) == 0 && len(p.identity.Object.Status.Suspects) == 0 {
			return []maas.Constraints{constraints}, nil
		}
		free, err := p.freeServers(ctx, constraints)
		return p.offers(listed(constraints), free), orNone(err, free, "no free machine besides those avoided")
	}
	var eligible []string
	for i := range known {
		if p.fits(&known[i]) && !slices.Contains(avoided, known[i].Spec.SystemID) {
			eligible = append(eligible, known[i].Spec.SystemID)
		}
	}
	rand.Shuffle(len(eligible), func(i, j int) { eligible[i], eligible[j] = eligible[j], eligible[i] })
	return p.offers(constraints, eligible), orNone(nil, eligible, fmt.Sprintf("none of the fabric's %d servers is eligible", len(known)))
}

// listed are the constraints for servers that MAAS listed by them: it cannot be asked for several zones and pools at once.
func listed(constraints maas.Constraints) maas.Constraints {
	constraints.Zones, constraints.Pools = nil, nil
	return constraints
}

// orNone is err, or that there is nothing to offer.
func orNone(err error, ids []string, message string) error {
	if err == nil && len(ids) == 0 {
		return &maas.NoMatchError{Message: message}
	}
	return err
}

// offers splits servers into those without and those with suspicion, and leaves empty offers out.
func (p *pass) offers(constraints maas.Constraints, ids []string) []maas.Constraints {
	var good, bad []string
	for _, id := range ids {
		if p.suspected(id) {
			bad = append(bad, id)
		} else {
			good = append(good, id)
		}
	}
	var offers []maas.Constraints
	for _, some := range [][]string{good, bad} {
		if len(some) > 0 {
			constraints.SystemIDs = some[:min(len(some), sampleSize)]
			offers = append(offers, constraints)
		}
	}
	return offers
}

func (p *pass) suspected(id string) bool {
	return slices.ContainsFunc(p.identity.Object.Status.Suspects, func(s infrav1.SuspectServer) bool { return s.SystemID == id })
}

// avoided are the servers that are not tried again.
func (p *pass) avoided() []string {
	ids := make([]string, 0, len(p.machine.Status.AvoidedServers))
	for _, server := range p.machine.Status.AvoidedServers {
		ids = append(ids, server.SystemID)
	}
	return ids
}

// freeServers are those that MAAS would give out and that are worth trying, those without suspicion first.
func (p *pass) freeServers(ctx context.Context, constraints maas.Constraints) ([]string, error) {
	free, err := p.identity.MAAS.MachinesMatching(ctx, constraints, maas.StatusReady)
	if err != nil {
		return nil, err
	}
	avoided := p.avoided()
	var ids []string
	for i := range free {
		if m := &free[i]; !m.IsDPU && !m.Locked && !slices.Contains(avoided, m.SystemID) {
			ids = append(ids, m.SystemID)
		}
	}
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(rank(p.suspected(a)), rank(p.suspected(b))) })
	return ids, nil
}

func rank(last bool) int {
	if last {
		return 1
	}
	return 0
}

// servers returns the DPUServers of our source; nil if this wing may not read them.
func (p *pass) servers(ctx context.Context) ([]infrav1.DPUServer, error) {
	if problem := p.connectFabric(ctx); problem != nil {
		return nil, &fabricError{*problem}
	}
	servers, err := p.fabric.Servers(ctx, p.identity.Object.Spec.Source)
	if err != nil {
		return nil, &fabricError{*fabricProblem(err)}
	}
	return servers, nil
}

// fits reports whether the fabric calls a server eligible and its DPUs can have the ports asked for. Selectors are matched by
// the fabric wing, which knows the labels.
func (p *pass) fits(server *infrav1.DPUServer) bool {
	return server.Status.Eligibility == infrav1.Eligible && server.Status.Holder == nil && server.DeletionTimestamp.IsZero() &&
		scope.PortsFit(p.machine.Spec.Ports, server)
}

// plainServers are free servers without DPUs: a DPU of a machine without ports would be guarded by nobody. A server with DPUs is
// among them only where the fabric says that none of them is on a VPC.
func (p *pass) plainServers(ctx context.Context, constraints maas.Constraints) ([]string, error) {
	free, err := p.freeServers(ctx, constraints)
	if err != nil {
		return nil, err
	}
	var plain []string
	checks := 0
	for _, id := range free {
		has, known := p.r.memory.dpus(p.identity.Object.UID, id, p.r.Clock.Now())
		if !known {
			if checks == deviceChecks {
				continue
			}
			checks++
			if has, err = p.lookForDPUs(ctx, id); err != nil {
				return nil, err
			}
		}
		if !has || p.provenFree(ctx, id) {
			plain = append(plain, id)
		}
		if len(plain) > 0 && checks > 0 {
			break // One is enough; what is known already costs nothing.
		}
	}
	return plain, nil
}

// lookForDPUs reports whether a server has DPUs, or may have.
func (p *pass) lookForDPUs(ctx context.Context, systemID string) (bool, error) {
	devices, err := p.identity.MAAS.Devices(ctx, systemID)
	if err != nil {
		return false, err
	}
	// Every server has PCI devices: where MAAS lists none, it does not know them.
	has := len(devices) == 0 || slices.ContainsFunc(devices, maas.Device.BlueField)
	p.r.memory.setDPUs(p.identity.Object.UID, systemID, has, p.r.Clock.Now())
	return has, nil
}

// provenFree reports whether the fabric says that the server's DPUs are on no VPC.
func (p *pass) provenFree(ctx context.Context, systemID string) bool {
	source := p.identity.Object.Spec.Source
	if source == "" || p.connectFabric(ctx) != nil {
		return false
	}
	server := &infrav1.DPUServer{}
	if err := p.fabric.Client.Get(ctx, client.ObjectKey{Name: infrav1.DPUServerName(source, systemID)}, server); err != nil {
		return false
	}
	observed := server.Status.ObservedAt
	return server.Status.Eligibility == infrav1.Eligible && server.Status.Holder == nil && server.DeletionTimestamp.IsZero() &&
		observed != nil && p.r.Clock.Now().Sub(observed.Time) < provenMaxAge
}
