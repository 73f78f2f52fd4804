// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// forgetServers deletes the DPUServers of a fabric that goes, as they were when nobody held them.
func (r *Reconciler) forgetServers(ctx context.Context, servers []infrav1.DPUServer) error {
	var errs []error
	for i := range servers {
		server := &servers[i]
		if !server.DeletionTimestamp.IsZero() {
			continue
		}
		err := r.Client.Delete(ctx, server, client.Preconditions{
			UID: ptr.To(server.UID), ResourceVersion: ptr.To(server.ResourceVersion),
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete DPUServer %s: %w", server.Name, err))
		}
	}
	return kerrors.NewAggregate(errs)
}

// withdrawCredentials takes back our accounts in the DPU clusters. A fabric whose DPF is gone for good goes without.
func (r *Reconciler) withdrawCredentials(ctx context.Context, object *infrav1.DPUFabric) {
	fabric, err := r.Fabrics.Get(ctx, object.Name)
	if err == nil {
		err = scope.DeleteCredentialRequests(ctx, fabric, r.Installation)
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Unable to delete the DPUServiceCredentialRequests of a deleted fabric")
		r.Recorder.Eventf(object, nil, corev1.EventTypeWarning, "CredentialsLeft", "Delete",
			"the DPUServiceCredentialRequests of this installation are left in DPF, which could not be asked to delete them")
	}
}
