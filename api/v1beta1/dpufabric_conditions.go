// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

// OVNReachableCondition of a DPUFabric that names OVN's databases: they answer. It is absent from one that names none.
const OVNReachableCondition = "OVNReachable"

// OVNUnreachableReason says that an OVN database does not answer as it should; no port is proven attached or detached until it does.
const OVNUnreachableReason = "OVNUnreachable"
