// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dpfzt reads and writes a DPF control plane in zero-trust mode in domain terms: the server behind a MAAS system ID,
// the labels of a DPU, the evidence of what its ports are on. It decides nothing: that is package vpc.
package dpfzt
