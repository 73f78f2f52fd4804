// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1beta1 holds the API of cluster-api-provider-maas-dpu. It fulfils contract v1beta2 of Cluster API.
//
// +kubebuilder:object:generate=true
// +groupName=infrastructure.cluster.x-k8s.io
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion identifies the API group and version of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "infrastructure.cluster.x-k8s.io", Version: "v1beta1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the kinds of this package to a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&MaasCluster{}, &MaasClusterList{},
		&MaasClusterTemplate{}, &MaasClusterTemplateList{},
		&MaasMachine{}, &MaasMachineList{},
		&MaasMachineTemplate{}, &MaasMachineTemplateList{},
		&MaasClusterIdentity{}, &MaasClusterIdentityList{},
		&MaasRemediation{}, &MaasRemediationList{},
		&MaasRemediationTemplate{}, &MaasRemediationTemplateList{},
		&TenantVPC{}, &TenantVPCList{},
		&DPUAttachment{}, &DPUAttachmentList{},
		&DPUServer{}, &DPUServerList{},
		&DPUFabric{}, &DPUFabricList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
