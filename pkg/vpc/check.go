// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// Objects are those of a TenantVPC as they are on the fabric, by name.
type Objects struct {
	VPC        *vpcv1alpha1.DPUVPC
	Networks   map[string]*vpcv1alpha1.DPUVirtualNetwork
	Interfaces map[string]*svcv1alpha1.DPUServiceInterface
}

// CheckObjects says whether a TenantVPC can take those ports now: its objects exist, are its own or adopted with a grant, and say
// exactly what they were made to say. An edited selector would take other tenants' DPUs, or none.
func CheckObjects(place Place, tenant *infrav1.TenantVPC, ports []WantedInterface, objects Objects) Finding {
	owner := place.OwnerOf(tenant)
	if finding := checkVPC(place, tenant, owner, objects.VPC); finding.Answer != Yes {
		return finding
	}
	for _, port := range ports {
		if finding := checkNetwork(place, tenant, owner, port.Subnet, objects); finding.Answer != Yes {
			return finding
		}
		if finding := checkInterface(place, tenant, owner, port, objects); finding.Answer != Yes {
			return finding
		}
	}
	return Finding{Answer: Yes}
}

func checkVPC(place Place, tenant *infrav1.TenantVPC, owner Owner, found *vpcv1alpha1.DPUVPC) Finding {
	if tenant.Spec.Adopt != nil {
		return checkAdopted(place, tenant, owner, found)
	}
	desired := DesiredVPC(place, tenant)
	switch {
	case found == nil:
		return notReady("the VPC of TenantVPC %s is not made yet", tenant.Name)
	case owner.OwnershipOf(found.Annotations) != Mine:
		return notReady("the VPC of TenantVPC %s has a name that is taken on the fabric", tenant.Name)
	case !found.DeletionTimestamp.IsZero():
		return notReady("the VPC of TenantVPC %s is being deleted", tenant.Name)
	case !equality.Semantic.DeepEqual(found.Spec.NodeSelector, desired.Spec.NodeSelector):
		return notReady("the VPC of TenantVPC %s does not select the DPUs it was made for", tenant.Name)
	}
	return Finding{Answer: Yes}
}

func checkAdopted(place Place, tenant *infrav1.TenantVPC, owner Owner, found *vpcv1alpha1.DPUVPC) Finding {
	if answer, message := DecideAdoption(owner, found, place.AdoptionKeyPrefixes); answer != AdoptionGranted {
		return notReady("TenantVPC %s: %s", tenant.Name, message)
	}
	if !found.DeletionTimestamp.IsZero() {
		return notReady("the adopted VPC of TenantVPC %s is being deleted", tenant.Name)
	}
	if err := CheckMark(place.Namespace, found.Name); err != nil {
		return notReady("the adopted VPC of TenantVPC %s cannot be used: %v", tenant.Name, err)
	}
	return Finding{Answer: Yes}
}

func checkNetwork(place Place, tenant *infrav1.TenantVPC, owner Owner, subnet string, objects Objects) Finding {
	found := objects.Networks[place.NetworkName(tenant, subnet)]
	switch {
	case found == nil:
		return notReady("subnet %s of TenantVPC %s is not made yet", subnet, tenant.Name)
	case owner.OwnershipOf(found.Annotations) != networkOwnership(tenant):
		return notReady("subnet %s of TenantVPC %s has a name that is taken on the fabric", subnet, tenant.Name)
	case !found.DeletionTimestamp.IsZero():
		return notReady("subnet %s of TenantVPC %s is being deleted", subnet, tenant.Name)
	case found.Spec.VPCName != place.VPCName(tenant):
		return notReady("subnet %s of TenantVPC %s lies in another VPC", subnet, tenant.Name)
	case !meta.IsStatusConditionTrue(found.Status.Conditions, vpcv1alpha1.ReadyCondition):
		return notReady("subnet %s of TenantVPC %s is not Ready on the fabric", subnet, tenant.Name)
	}
	return Finding{Answer: Yes}
}

// networkOwnership is whose the networks of a TenantVPC are: an adopted VPC's were made by its operator.
func networkOwnership(tenant *infrav1.TenantVPC) Ownership {
	if tenant.Spec.Adopt != nil {
		return Nobodys
	}
	return Mine
}

func checkInterface(place Place, tenant *infrav1.TenantVPC, owner Owner, port WantedInterface, objects Objects) Finding {
	found := objects.Interfaces[place.InterfaceName(tenant, port.Subnet, port.PF)]
	what := fmt.Sprintf("the interface for PF %d in subnet %s of TenantVPC %s", port.PF, port.Subnet, tenant.Name)
	switch {
	case found == nil:
		return notReady("%s is not made yet", what)
	case owner.OwnershipOf(found.Annotations) != Mine:
		return notReady("%s has a name that is taken on the fabric", what)
	case !found.DeletionTimestamp.IsZero():
		return notReady("%s is being deleted", what)
	case !SameInterface(found, DesiredInterface(place, tenant, port.Subnet, port.PF)):
		return notReady("%s was changed by somebody else", what)
	}
	return Finding{Answer: Yes}
}

// SameInterface reports whether an interface does what was desired: same DPUs, same function, same network, evidence in
// ServiceInterface objects. What DPF adds to it makes no difference.
func SameInterface(found, desired *svcv1alpha1.DPUServiceInterface) bool {
	foundSet, desiredSet := found.Spec.Template, desired.Spec.Template
	mode := svcv1alpha1.InterfaceModeAnnotation
	return equality.Semantic.DeepEqual(found.Spec.DPUClusterSelector, desired.Spec.DPUClusterSelector) &&
		sameSelector(foundSet.Spec.NodeSelector, desiredSet.Spec.NodeSelector) &&
		equality.Semantic.DeepEqual(foundSet.Spec.Template.Spec, desiredSet.Spec.Template.Spec) &&
		foundSet.ObjectMeta.Annotations[mode] == desiredSet.ObjectMeta.Annotations[mode] &&
		foundSet.Spec.Template.ObjectMeta.Annotations[vpcv1alpha1.PortUnknownMACAnnotation] == ""
}

func sameSelector(a, b *metav1.LabelSelector) bool {
	return a != nil && b != nil && len(a.MatchExpressions) == 0 && len(b.MatchExpressions) == 0 && maps.Equal(a.MatchLabels, b.MatchLabels)
}

func notReady(format string, args ...any) Finding {
	return Finding{No, infrav1.VPCNotReadyReason, fmt.Sprintf(format, args...)}
}
