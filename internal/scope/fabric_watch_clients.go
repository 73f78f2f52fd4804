// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// WatchClient watches one API server. Version changes with the credentials it was made from.
type WatchClient struct {
	client.WithWatch
	Version string
}

// dpfWatch returns the client that watches the DPF management cluster.
func (f *fabrics) dpfWatch(ctx context.Context, object *infrav1.DPUFabric, memory *fabricMemory) (WatchClient, error) {
	name := object.Spec.Backend.OVNVPC.KubeconfigSecretRef.Name
	secret, kubeconfig, err := f.secret(ctx, name, KubeconfigKey, "DPUFabric "+object.Name)
	if err != nil {
		return WatchClient{}, err
	}
	watching, err := f.rememberWatch(memory, types.NamespacedName{}, versionOf(secret), kubeconfig, object.Name, TargetDPF)
	if err != nil {
		return WatchClient{}, dpfSecretInvalid(secret, err)
	}
	return watching, nil
}

// dpuClusterWatch returns the client that watches a DPU cluster.
func (f *fabrics) dpuClusterWatch(ctx context.Context, fabric *Fabric, memory *fabricMemory, key types.NamespacedName) (WatchClient, error) {
	secret, dataKey, err := f.dpuClusterSecret(ctx, fabric, key)
	if err != nil {
		return WatchClient{}, err
	}
	watching, err := f.rememberWatch(memory, key, versionOf(secret), secret.Data[dataKey], fabric.Object.Name, TargetDPUCluster)
	if err != nil {
		return WatchClient{}, dpuClusterSecretInvalid(secret, dataKey, key, err)
	}
	return watching, nil
}

// rememberWatch returns the client made of that version of the credentials. The DPF management cluster has the zero key.
func (f *fabrics) rememberWatch(memory *fabricMemory, key types.NamespacedName, version string, kubeconfig []byte, fabric, target string) (WatchClient, error) {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if known, ok := memory.watches[key]; ok && known.Version == version {
		return known, nil
	}
	c, err := f.newWatchClient(kubeconfig, fabric, target)
	if err != nil {
		return WatchClient{}, err
	}
	memory.watches[key] = WatchClient{WithWatch: c, Version: version}
	return memory.watches[key], nil
}
