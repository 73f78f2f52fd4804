// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package provisioningv1alpha1 describes the part of provisioning.dpu.nvidia.com/v1alpha1 that says which DPU is in which
// server, what state it is in and which labels its Node carries. Fields and rules are those of DPF v26.4, and of v26.8 where
// marked.
//
// The types hold the fields this project reads or writes, no more: an object that DPF owns is changed by JSON patch only,
// so that fields unknown here survive. They import apimachinery alone.
//
// +kubebuilder:object:generate=true
// +groupName=provisioning.dpu.nvidia.com
// +versionName=v1alpha1
package provisioningv1alpha1
