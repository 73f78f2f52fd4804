// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Fabrics turns DPUFabrics into clients. Errors are UnusableErrors where people can do something about them.
type Fabrics interface {
	// Get returns the named fabric.
	Get(ctx context.Context, name string) (*Fabric, error)

	// ForSource returns the fabric that has a claim source of that name, which is unique over all fabrics.
	ForSource(ctx context.Context, source string) (*Fabric, error)
}

// Fabric is one fabric, ready to be asked. It is valid for one reconcile: credentials rotate.
type Fabric struct {
	// Object is the DPUFabric as read from the cache. Not to be changed.
	Object *infrav1.DPUFabric

	// DPF reads and writes the DPF management cluster, uncached: what it answers is evidence.
	DPF client.Client

	// DPUCluster returns an uncached, read-only client of the DPU cluster behind a DPUCluster object.
	DPUCluster func(ctx context.Context, dpuCluster types.NamespacedName) (client.Reader, error)

	// Verifier returns the GET-only client of a claim source's MAAS, with its account's name.
	Verifier func(ctx context.Context, source string) (Verifier, error)
}

// Verifier asks one claim source's MAAS who holds a server.
type Verifier struct {
	maas.Verifier

	// Account is the MAAS user that owns the claims of the source.
	Account string
}

// Namespace returns DPF's namespace in the DPF management cluster.
func (f *Fabric) Namespace() string { return f.Object.Spec.Backend.OVNVPC.Namespace }
