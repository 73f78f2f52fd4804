// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
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
