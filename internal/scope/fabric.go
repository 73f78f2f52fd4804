// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// Fabrics turns DPUFabrics into clients. Errors are UnusableErrors where people can do something about them.
type Fabrics interface {
	// Get returns the named fabric.
	Get(ctx context.Context, name string) (*Fabric, error)

	// ForSource returns the fabric that has a claim source of that name, which is unique over all fabrics.
	ForSource(ctx context.Context, source string) (*Fabric, error)

	// Wakes are DPUAttachments to be reconciled now, of which only namespace and name are set. It has one reader.
	Wakes() <-chan event.GenericEvent

	// Poller follows the claims that Verifiers watch and fills Wakes, as part of a manager. Without it each question is asked by
	// itself and nothing is watched.
	Poller() manager.Runnable
}

// Fabric is one fabric, ready to be asked. It is valid for one reconcile: credentials rotate.
type Fabric struct {
	// Object is the DPUFabric as read from the cache. Not to be changed.
	Object *infrav1.DPUFabric

	// DPF reads and writes the DPF management cluster, uncached: what it answers is evidence.
	DPF client.Client

	// DPUCluster returns an uncached, read-only client of the DPU cluster behind a DPUCluster object.
	DPUCluster func(ctx context.Context, dpuCluster types.NamespacedName) (client.Reader, error)

	// Watch and WatchDPUCluster return clients of the same API servers, with the same credentials, whose watches last. What they
	// say wakes; it is never evidence.
	Watch           func(ctx context.Context) (WatchClient, error)
	WatchDPUCluster func(ctx context.Context, dpuCluster types.NamespacedName) (WatchClient, error)

	// Verifier returns the GET-only client of a claim source's MAAS, with its account's name.
	Verifier func(ctx context.Context, source string) (Verifier, error)

	// Posture says what the BMCs of DPUs answered.
	Posture Postures

	// OVN are the OVN databases evidence is read from besides; nil where the fabric names none.
	OVN OVNDatabases

	// ProbeOVN asks OVN's databases whether they answer, and returns by name what failed, nil for one that answers; nil where the
	// fabric names none. The northbound one is asked where it is named.
	ProbeOVN func(ctx context.Context) map[string]error
}

// Namespace returns DPF's namespace in the DPF management cluster.
func (f *Fabric) Namespace() string { return f.Object.Spec.Backend.OVNVPC.Namespace }
