// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vpc is the model of a tenant's network on a DPU fabric: what its objects are called, what they look like, which
// step brings a port onto it or off it, and what counts as proof. Everything here is a pure function of what was read.
package vpc
