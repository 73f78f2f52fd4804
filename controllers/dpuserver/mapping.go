// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"context"
	"maps"
	"slices"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// macsMaxAge is for how long MAAS' word is used on whose MAC addresses those of unlabelled DPUNodes are: servers are racked rarely.
const macsMaxAge = 10 * time.Minute

// macReading is what one source's MAAS said of MAC addresses.
type macReading struct {
	at    time.Time
	asked []string
	// owners are the system IDs, by MAC address.
	owners map[string]string
}

// observeMACs finds the servers of DPUNodes without a label by the MAC addresses of their cards, where the fabric allows that. Those
// pinned already are known; of the others MAAS is asked once for all of a source.
func (r *Reconciler) observeMACs(ctx context.Context, fabric *scope.Fabric, o *observation, inventory *dpfzt.Inventory) {
	if fabric.Object.Spec.ServerMapping != infrav1.ServerMappingExplicitOrMAC {
		return
	}
	unknown := inventory.UnlabelledMACs(fabric.Object.Spec.ServerLabelKey)
	for i := range o.servers {
		pinned := o.servers[i].pinnedMACs()
		unknown = slices.DeleteFunc(unknown, func(mac string) bool { return slices.Contains(pinned, mac) })
	}
	if len(unknown) == 0 {
		return
	}
	sources := map[string][]string{}
	found := map[string][]string{}
	for _, source := range fabric.Object.Spec.ClaimSources {
		reading, err := r.readMACs(ctx, fabric, source.Name, unknown, o.now)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "MAAS did not say whose MAC addresses those of unlabelled DPUNodes are", "source", source.Name)
			o.ignored = append(o.ignored, "source "+source.Name+" did not answer whose PF0 MAC addresses are")
			continue
		}
		for _, mac := range unknown {
			if id := reading.owners[mac]; id != "" {
				sources[mac] = append(sources[mac], source.Name)
				name := infrav1.DPUServerName(source.Name, id)
				found[name] = append(found[name], mac)
			}
		}
		for _, id := range slices.Sorted(maps.Values(reading.owners)) {
			o.addServer(source.Name, id, found[infrav1.DPUServerName(source.Name, id)])
		}
	}
	for _, mac := range slices.Sorted(maps.Keys(sources)) {
		if len(sources[mac]) > 1 {
			o.dropMAC(mac)
			o.ignored = append(o.ignored, "PF0 MAC address "+mac+" is in several sources")
		}
	}
}

// addServer adds a server that was not known, or the MAC addresses by which a known one may be found.
func (o *observation) addServer(source, systemID string, macs []string) {
	if len(macs) == 0 {
		return
	}
	i := slices.IndexFunc(o.servers, func(s server) bool { return s.source == source && s.systemID == systemID })
	if i < 0 {
		o.servers = append(o.servers, server{source: source, systemID: systemID})
		i = len(o.servers) - 1
	}
	o.servers[i].macs = macs
}

// dropMAC has a MAC address lead to no server; one that only it led to is not known at all.
func (o *observation) dropMAC(mac string) {
	for i := range o.servers {
		o.servers[i].macs = slices.DeleteFunc(o.servers[i].macs, func(m string) bool { return m == mac })
	}
	o.servers = slices.DeleteFunc(o.servers, func(s server) bool { return s.object == nil && s.macs != nil && len(s.macs) == 0 })
}

// pinnedMACs are those the server's binding was pinned with.
func (s *server) pinnedMACs() []string {
	var macs []string
	if s.object == nil {
		return nil
	}
	for i := range s.object.Status.DPUs {
		for _, port := range s.object.Status.DPUs[i].Ports {
			if port.MAC != "" {
				macs = append(macs, port.MAC)
			}
		}
	}
	return macs
}

// find resolves a server: by its label, else by its MAC addresses where the fabric allows that.
func (s *server) find(fabric *infrav1.DPUFabric, inventory *dpfzt.Inventory) (dpfzt.Server, error) {
	found, err := inventory.Server(fabric.Spec.ServerLabelKey, dpfzt.LabelValues(fabric, s.source, s.systemID))
	finding := resolveFinding(err)
	macs := append(s.pinnedMACs(), s.macs...)
	if fabric.Spec.ServerMapping != infrav1.ServerMappingExplicitOrMAC || finding.Reason != infrav1.ServerNotMappedReason || len(macs) == 0 {
		return found, err
	}
	return inventory.ServerByMAC(fabric.Spec.ServerLabelKey, macs)
}

func (r *Reconciler) readMACs(ctx context.Context, fabric *scope.Fabric, source string, macs []string, now time.Time) (macReading, error) {
	key := powerKey{fabric: fabric.Object.Name, source: source}
	r.mu.Lock()
	known := r.macs[key]
	r.mu.Unlock()
	isNew := func(mac string) bool { return !slices.Contains(known.asked, mac) }
	if now.Sub(known.at) < macsMaxAge && !slices.ContainsFunc(macs, isNew) {
		return known, nil
	}
	verifier, err := fabric.Verifier(ctx, source)
	if err != nil {
		return macReading{}, err
	}
	machines, err := verifier.MachinesByMAC(ctx, macs...)
	if err != nil {
		return macReading{}, err
	}
	reading := macReading{at: now, asked: macs, owners: owners(machines, macs)}
	r.mu.Lock()
	r.macs[key] = reading
	r.mu.Unlock()
	return reading, nil
}

// owners are the machines that have one of the MAC addresses. A DPU that MAAS enlisted by itself is no server.
func owners(machines []maas.Machine, macs []string) map[string]string {
	found := map[string]string{}
	for i := range machines {
		if machines[i].IsDPU {
			continue
		}
		for _, nic := range machines[i].Interfaces {
			if mac := vpc.NormalizeMAC(nic.MAC); slices.Contains(macs, mac) {
				found[mac] = machines[i].SystemID
			}
		}
	}
	return found
}
