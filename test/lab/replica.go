// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"slices"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// StartReplica starts one more process of a wing that InstallProvider has started with the same options, as a Deployment with
// more replicas would, and returns when it is ready. It has the wing's rights and waits for the wing's lease. Its webhooks serve;
// API servers call them once RouteWebhooks says so. Whoever starts it stops it.
func (l *Lab) StartReplica(ctx context.Context, name, process string, options ProviderOptions) (*proc.Process, error) {
	options = l.complete(options)
	manifests, err := l.loadProvider(options)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(manifests.wings, func(w *wing) bool { return w.name() == name })
	if i < 0 {
		return nil, fmt.Errorf("the provider has no Deployment %s", name)
	}
	replica := manifests.wings[i]
	replica.process = process
	if replica.ports, err = freeManagerPorts(); err != nil {
		return nil, err
	}
	if err := l.startWing(ctx, replica, options); err != nil {
		return nil, err
	}
	for _, p := range l.Processes() {
		if p.Name() == process {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s has ended already", process)
}

// RouteWebhooks lets API servers call the webhooks of a wing in the process named, as a Service does that has only that Pod left.
func (l *Lab) RouteWebhooks(ctx context.Context, name, process string, options ProviderOptions) error {
	manifests, err := l.loadProvider(l.complete(options))
	if err != nil {
		return err
	}
	for _, w := range manifests.wings {
		if w.name() == name {
			w.process = process
		}
		started := false
		if w.ports, started = l.portsOf(w.process); !started {
			return fmt.Errorf("%s was never started", w.process)
		}
	}
	return l.registerWebhooks(ctx, l.Management(), manifests.hooks, "", manifests.webhookPort)
}
