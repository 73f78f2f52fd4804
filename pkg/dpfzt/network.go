// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
)

// NetworkOf is the DPUVirtualNetwork an interface is on, or empty.
func NetworkOf(spec *svcv1alpha1.InterfaceSpec) string {
	switch {
	case spec.PF != nil && spec.PF.VirtualNetwork != nil:
		return *spec.PF.VirtualNetwork
	case spec.VF != nil && spec.VF.VirtualNetwork != nil:
		return *spec.VF.VirtualNetwork
	case spec.Service != nil && spec.Service.VirtualNetwork != nil:
		return *spec.Service.VirtualNetwork
	}
	return ""
}
