// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import "context"

// labelPlace is that of the release that runs.
func (f *Fabric) labelPlace() LabelPlace {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.place
}

// Upgrade turns DPF into another release while it runs, as an upgrade of its chart does: first its CRDs, then its controllers.
// DPUs stay as they are, with the labels they have. A release with labels on DPUDevices gets that field also in CRDs of
// Options.CRDDir that lack it, in the shape this project's CRD gives it.
func (f *Fabric) Upgrade(ctx context.Context, to LabelPlace) error {
	if err := f.installCRDs(ctx, to, true); err != nil {
		return err
	}
	f.mu.Lock()
	f.place = to
	f.mu.Unlock()
	f.journal.add(Effect{Kind: EffectFault, Change: "upgrade: labels for Nodes are on " + string(to)})
	f.Restart()
	return nil
}
