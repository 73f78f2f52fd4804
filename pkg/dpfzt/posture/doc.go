// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package posture reads from the BMCs of DPUs whether the hosts they sit in are kept out of them, and decides what follows.
//
// Every question has three answers. What a BMC does not say, says to be unavailable, or does not say in time is Unknown.
package posture
