// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpfsim plays NVIDIA DPF in zero-trust mode over two real API servers: the controllers of the DPF management
// cluster, the controllers of the OVN VPC service, and everything that runs on the DPUs (kubelet, OVN VPC agent, OVN
// controller), down to which host port can talk to which other.
//
// Objects live in the API servers; what hardware and OVN remember (power, ports plugged, leases) lives in the Fabric. What
// the real controllers refuse, delay, forget or report wrongly, these do too: a DPUServiceInterface is Ready with no Node, a
// set without a selector takes every DPU, one bad Node stops a VPC, a dead DPU keeps its finalizer.
//
// OVN is played, too, or driven: with Options.OVN the same controllers write its northbound database and plug its switches, and
// hosts get the addresses that it chooses.
//
// The package knows DPF's protocol and none of the provider's packages, so that it cannot share their mistakes.
package dpfsim
