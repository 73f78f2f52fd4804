// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ovnlab runs a real OVN for the lab: the two databases, northd, and for every DPU a chassis of its own
// (ovsdb-server, ovs-vswitchd, ovn-controller) whose host ports tests send frames into and read frames from. Everything is a
// child of this process, on loopback, unix sockets and network namespaces of its own, and gone after Close. It installs
// nothing: Best says which level this machine can do and what the next one lacks.
package ovnlab
