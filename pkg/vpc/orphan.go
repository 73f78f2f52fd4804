// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

// Labelled reports whether a carrier or the Node has labels of ours.
func (e Evidence) Labelled() bool { return len(e.keys()) > 0 }

// OnNetwork reports whether a port of the DPU is on a virtual network, whoever put it there. It is false, too, where the DPU
// cluster could not be read.
func (e Evidence) OnNetwork() bool { return e.ClusterError == nil && len(e.tenantInterfaces()) > 0 }
