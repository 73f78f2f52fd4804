// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

const (
	// DPUClusterReaderServiceAccount is the account in the DPU cluster, in DPF's namespace there, that config/dpf/dpucluster
	// lets read Nodes, leases and ServiceInterfaces.
	DPUClusterReaderServiceAccount = "maas-dpu-fabric-reader"
	// CredentialNamespace is where DPF writes the Secrets for credential requests; config/dpf/management makes it and lets the
	// account read Secrets there and nowhere else.
	CredentialNamespace = "maas-dpu-credentials"
	// CredentialSecretKey is the data key under which DPF writes a kubeconfig it was asked for.
	CredentialSecretKey = "kubeconfig"

	// credentialDuration is how long a token lives; DPF renews it in time.
	credentialDuration = 12 * time.Hour
)

// CredentialRequestName is the name, in DPF's namespace, of the DPUServiceCredentialRequest of an installation for a DPUCluster,
// and, in CredentialNamespace, of the Secret DPF writes for it: maas-dpu-<hash of installation and the DPUCluster's namespace>-<name of the DPUCluster>.
func CredentialRequestName(installation string, dpuCluster types.NamespacedName) string {
	const maxName = 63
	name := "maas-dpu-" + shortHash(installation+"/"+dpuCluster.Namespace) + "-" + dpuCluster.Name
	if len(name) <= maxName {
		return name
	}
	return name[:maxName-9] + "-" + shortHash(dpuCluster.Name)
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// dpuClusterSecret reads the Secret with a DPU cluster's kubeconfig, which is under dataKey.
func (f *fabrics) dpuClusterSecret(ctx context.Context, fabric *Fabric, key types.NamespacedName) (secret *corev1.Secret, dataKey string, err error) {
	switch mode := fabric.Object.Spec.Backend.OVNVPC.DPUClusterAccess; mode {
	case infrav1.DPUClusterAccessAdminKubeconfig:
		dataKey = provisioningv1alpha1.AdminKubeconfigKey
		secret, err = f.adminSecret(ctx, fabric, key)
	case infrav1.DPUClusterAccessCredentialRequest, "":
		dataKey = CredentialSecretKey
		secret, err = f.requestedSecret(ctx, fabric, key)
	default:
		err = &UnusableError{Reason: infrav1.FabricNotReadyReason, Message: fmt.Sprintf("DPUFabric %s has an unknown dpuClusterAccess %s", fabric.Object.Name, mode)}
	}
	return secret, dataKey, err
}

func dpuClusterSecretInvalid(secret *corev1.Secret, dataKey string, key types.NamespacedName, err error) error {
	return &UnusableError{
		Reason:  infrav1.SecretInvalidReason,
		Message: fmt.Sprintf("key %s of DPF's Secret %s/%s for DPUCluster %s is not usable", dataKey, secret.Namespace, secret.Name, key), Err: err,
	}
}

// dpuClusterReader returns the read-only client of a DPU cluster.
func (f *fabrics) dpuClusterReader(ctx context.Context, fabric *Fabric, memory *fabricMemory, key types.NamespacedName) (client.Reader, error) {
	secret, dataKey, err := f.dpuClusterSecret(ctx, fabric, key)
	if err != nil {
		return nil, err
	}

	memory.mu.Lock()
	defer memory.mu.Unlock()
	version := versionOf(secret)
	if remembered, ok := memory.dpuClusters[key]; ok && remembered.version == version {
		return readOnly{remembered.client}, nil
	}
	c, err := f.newClient(secret.Data[dataKey], fabric.Object.Name, TargetDPUCluster)
	if err != nil {
		return nil, dpuClusterSecretInvalid(secret, dataKey, key, err)
	}
	memory.dpuClusters[key] = rememberedClient{version: version, client: c}
	return readOnly{c}, nil
}

// readOnly hides a client's other methods.
type readOnly struct{ client.Reader }

func (f *fabrics) adminSecret(ctx context.Context, fabric *Fabric, key types.NamespacedName) (*corev1.Secret, error) {
	dpuCluster := &provisioningv1alpha1.DPUCluster{}
	if err := fabric.DPF.Get(ctx, key, dpuCluster); err != nil {
		return nil, FabricError(fabric.Object.Name, "get DPUCluster "+key.String(), err)
	}
	if dpuCluster.Spec.Kubeconfig == "" {
		return nil, &UnusableError{
			Reason:  infrav1.FabricNotReadyReason,
			Message: fmt.Sprintf("DPUCluster %s has no kubeconfig yet: DPF is still making it (phase %s)", key, dpuCluster.Status.Phase),
		}
	}
	return dpfSecret(ctx, fabric, types.NamespacedName{Namespace: key.Namespace, Name: dpuCluster.Spec.Kubeconfig})
}

// requestedSecret reads the Secret DPF writes for our credential request, every time, because it rotates. Only where it is not
// there is the request looked at, and made.
func (f *fabrics) requestedSecret(ctx context.Context, fabric *Fabric, key types.NamespacedName) (*corev1.Secret, error) {
	name := types.NamespacedName{Namespace: fabric.Namespace(), Name: CredentialRequestName(f.options.Installation, key)}
	secret, err := dpfSecret(ctx, fabric, types.NamespacedName{Namespace: CredentialNamespace, Name: name.Name})
	if err == nil && len(secret.Data[CredentialSecretKey]) > 0 {
		return secret, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}

	request := &svcv1alpha1.DPUServiceCredentialRequest{}
	err = fabric.DPF.Get(ctx, name, request)
	if apierrors.IsNotFound(err) {
		wanted := f.credentialRequest(fabric, name, key)
		if err := fabric.DPF.Create(ctx, wanted); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, FabricError(fabric.Object.Name, "create DPUServiceCredentialRequest "+name.String(), err)
		}
		return nil, credentialPending(key, name, "was made")
	}
	if err != nil {
		return nil, FabricError(fabric.Object.Name, "get DPUServiceCredentialRequest "+name.String(), err)
	}
	if credentialOwner(f.options.Installation).OwnershipOf(request.Annotations) != vpc.Mine || !targets(request, key) {
		return nil, &UnusableError{
			Reason:  infrav1.FabricNotReadyReason,
			Message: fmt.Sprintf("DPUServiceCredentialRequest %s was made by somebody else or for another DPUCluster; it is not touched: remove it, or give this installation another --installation", name),
		}
	}
	for _, name := range []string{svcv1alpha1.ServiceAccountReconciledCondition, svcv1alpha1.SecretReconciledCondition} {
		if c := apimeta.FindStatusCondition(request.Status.Conditions, name); c != nil && c.Status != metav1.ConditionTrue {
			return nil, credentialPending(key, client.ObjectKeyFromObject(request), fmt.Sprintf("has %s %s (%s: %s)", name, c.Status, c.Reason, c.Message))
		}
	}
	return nil, credentialPending(key, name, "is not Ready")
}

func credentialPending(dpuCluster, request types.NamespacedName, how string) error {
	return &UnusableError{
		Reason:  infrav1.FabricNotReadyReason,
		Message: fmt.Sprintf("waiting for DPF to give access to DPUCluster %s: DPUServiceCredentialRequest %s %s; config/dpf must be applied there", dpuCluster, request, how),
	}
}

func targets(request *svcv1alpha1.DPUServiceCredentialRequest, key types.NamespacedName) bool {
	target := request.Spec.TargetCluster
	return target != nil && target.Name == key.Name && ptr.Deref(target.Namespace, "") == key.Namespace
}

func (f *fabrics) credentialRequest(fabric *Fabric, name, dpuCluster types.NamespacedName) *svcv1alpha1.DPUServiceCredentialRequest {
	owner := credentialOwner(f.options.Installation)
	return &svcv1alpha1.DPUServiceCredentialRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: name.Namespace, Name: name.Name,
			Labels:      map[string]string{vpc.InstallationLabel: owner.InstallationHash()},
			Annotations: map[string]string{vpc.OwnerAnnotation: owner.String()},
		},
		Spec: svcv1alpha1.DPUServiceCredentialRequestSpec{
			ServiceAccount: svcv1alpha1.NamespacedName{Name: DPUClusterReaderServiceAccount, Namespace: ptr.To(fabric.Namespace())},
			TargetCluster:  &svcv1alpha1.NamespacedName{Name: dpuCluster.Name, Namespace: ptr.To(dpuCluster.Namespace)},
			Type:           svcv1alpha1.CredentialTypeKubeconfig,
			Duration:       &metav1.Duration{Duration: credentialDuration},
			Secret:         svcv1alpha1.NamespacedName{Name: name.Name, Namespace: ptr.To(CredentialNamespace)},
		},
	}
}

// credentialOwner marks credential requests. They belong to the installation: fabrics on one DPF share them.
func credentialOwner(installation string) vpc.Owner {
	return vpc.Owner{Installation: installation, Name: "dpucluster-credentials"}
}

// dpfSecret reads a Secret of the DPF management cluster. Rights to Secrets are given sparingly there, so the error names it.
func dpfSecret(ctx context.Context, fabric *Fabric, key types.NamespacedName) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := fabric.DPF.Get(ctx, key, secret)
	if apierrors.IsForbidden(err) {
		return nil, &UnusableError{
			Reason:  infrav1.CredentialsRefusedReason,
			Message: fmt.Sprintf("the account on fabric %s may not read Secret %s there: apply config/dpf/management or, for dpuClusterAccess AdminKubeconfig, config/dpf/admin-kubeconfig with that name", fabric.Object.Name, key),
		}
	}
	return secret, FabricError(fabric.Object.Name, "get Secret "+key.String(), err)
}
