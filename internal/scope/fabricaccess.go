// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// FabricAccessSecretKey is the key of a fabricAccess Secret that holds the kubeconfig.
const FabricAccessSecretKey = "kubeconfig"

// remoteTimeout bounds each call to a remote fabric's API server.
const remoteTimeout = 10 * time.Second

// FabricAccess is the way of the machine wing to the fabric wing's objects: its own cluster, or the one a kubeconfig names.
type FabricAccess struct {
	// Client reads, possibly from a cache, and writes.
	Client client.Client

	// Live reads past any cache.
	Live client.Reader

	// Remote says that changes there wake nobody here.
	Remote bool

	namespace string
}

// Namespace returns the namespace there that stands for a namespace here.
func (f *FabricAccess) Namespace(local string) string { return cmp.Or(f.namespace, local) }

// NewLocalFabricAccess returns the access to a fabric in the own cluster.
func NewLocalFabricAccess(c client.Client, live client.Reader) *FabricAccess {
	return &FabricAccess{Client: c, Live: live}
}

// remoteFabric is what is kept of one remote access.
type remoteFabric struct {
	mu            sync.Mutex
	secretName    string
	secretVersion string
	secretRead    time.Time
	client        client.Client
}

// FabricAccess implements Identities.
func (i *identities) FabricAccess(ctx context.Context, identity *infrav1.MaasClusterIdentity) (*FabricAccess, error) {
	access := identity.Spec.FabricAccess
	if access == nil {
		return NewLocalFabricAccess(i.Client, i.APIReader), nil
	}
	kept := i.keepFabric(identity.UID)
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if err := i.connectFabric(ctx, access.SecretRef.Name, kept); err != nil {
		return nil, err
	}
	return &FabricAccess{Client: kept.client, Live: kept.client, Remote: true, namespace: access.Namespace}, nil
}

func (i *identities) keepFabric(uid types.UID) *remoteFabric {
	i.mu.Lock()
	defer i.mu.Unlock()
	kept, ok := i.fabrics[uid]
	if !ok {
		kept = &remoteFabric{}
		i.fabrics[uid] = kept
	}
	return kept
}

func (i *identities) connectFabric(ctx context.Context, secretName string, kept *remoteFabric) error {
	now := i.Clock.Now()
	if kept.client != nil && kept.secretName == secretName && now.Sub(kept.secretRead) < credentialsMaxAge {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	if err := i.APIReader.Get(ctx, client.ObjectKey{Namespace: i.Namespace, Name: secretName}, secret); err != nil {
		kept.client = nil
		if apierrors.IsNotFound(err) {
			return &UnusableError{Reason: infrav1.SecretNotFoundReason, Message: fmt.Sprintf(
				"Secret %s of fabricAccess does not exist in the machine wing's namespace: create it there with the key %s", secretName, FabricAccessSecretKey)}
		}
		return fmt.Errorf("read Secret %s of the machine wing's namespace: %w", secretName, err)
	}
	kept.secretRead = now
	if kept.client != nil && kept.secretName == secretName && kept.secretVersion == secret.ResourceVersion {
		return nil
	}
	config, err := RESTConfigFromKubeconfig(secret.Data[FabricAccessSecretKey])
	if err != nil {
		return &UnusableError{Reason: infrav1.SecretInvalidReason, Err: err, Message: fmt.Sprintf(
			"Secret %s of fabricAccess cannot be used (key %s)", secretName, FabricAccessSecretKey)}
	}
	config.Timeout = remoteTimeout
	made, err := client.New(config, client.Options{Scheme: i.Client.Scheme()})
	if err != nil {
		return &UnusableError{Reason: infrav1.FabricUnreachableReason, Err: err, Message: fmt.Sprintf(
			"the API server of the fabric named by Secret %s does not answer", secretName)}
	}
	kept.client, kept.secretName, kept.secretVersion = made, secretName, secret.ResourceVersion
	return nil
}
