// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

// Names of what a World is made of, for tests that change it.
const (
	// Identity is the one MaasClusterIdentity and Fabric the one DPUFabric.
	Identity = source
	Fabric   = fabricName
	// MachineWing and FabricWing are the processes of the two wings, MachineNamespace and FabricNamespace their namespaces.
	MachineWing      = "maas-dpu-machine-controller-manager"
	FabricWing       = "maas-dpu-fabric-controller-manager"
	MachineNamespace = machineNamespace
	FabricNamespace  = fabricNamespace
	// MaasSecret exists in both namespaces with the key of Account, KubeconfigSecret in that of the fabric wing.
	MaasSecret       = "maas-rack-servers"
	KubeconfigSecret = "dpf-kubeconfig"
	Account          = account
	// DPFNamespace is DPF's own, and ForeignVPC "namespace/name" somebody else's DPUVPC there.
	DPFNamespace = dpfNamespace
	ForeignVPC   = dpfNamespace + "/" + foreignVPC
	// TenantPool is where tenants' subnets lie.
	TenantPool = tenantPool
	// PlainPool is the MAAS resource pool of the servers without DPUs that Options asks for.
	PlainPool = "plain"
)
