// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

// SubnetsRemovedCondition of a TenantVPC is False while the fabric still has subnets that are no longer in the spec, and says
// who uses them.
const SubnetsRemovedCondition = "SubnetsRemoved"

// AddressesAvailableCondition of a TenantVPC is False while a subnet has no address left for another machine, and names it; it is
// Unknown while the ports on the fabric cannot be counted. It does not make the TenantVPC unready.
const AddressesAvailableCondition = "AddressesAvailable"

// Reasons of a TenantVPC.
const (
	// CreatingReason waits for the fabric to make what was asked for.
	CreatingReason = "Creating"
	// NameTakenReason says that an object of the fabric has the name needed and belongs to somebody else; it is not touched.
	NameTakenReason = "NameTaken"
	// DriftedReason says that an object of ours on the fabric is not as it was made, or is being deleted by somebody else, and that
	// nothing here may or can set that right.
	DriftedReason = "Drifted"
	// CIDROutsidePoolsReason says that a subnet lies outside the fabric's tenant pools.
	CIDROutsidePoolsReason = "CIDROutsidePools"
	// SubnetInvalidReason says that a subnet cannot be made as it is written.
	SubnetInvalidReason = "SubnetInvalid"
	// AdoptionNotGrantedReason says that the fabric has no DPUVPC of that name that was granted to the TenantVPC.
	AdoptionNotGrantedReason = "AdoptionNotGranted"
	// AdoptionUnsuitableReason says that the granted DPUVPC cannot be adopted as it is.
	AdoptionUnsuitableReason = "AdoptionUnsuitable"
	// SubnetFullReason says that a subnet has no address left for another machine.
	SubnetFullReason = "SubnetFull"
)

// Reasons of a DPUFabric.
const (
	// SourceNameTakenReason says that an older DPUFabric has a claim source of the same name.
	SourceNameTakenReason = "SourceNameTaken"
	// DPUClusterUnreachableReason says that a DPU cluster does not answer or may not be read yet.
	DPUClusterUnreachableReason = "DPUClusterUnreachable"
)
