// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vpcv1alpha1 describes the part of vpc.dpu.nvidia.com/v1alpha1 that isolates tenants: isolation classes, VPCs and
// their virtual networks. Fields and rules are those of DPF v26.4.
//
// The types hold the fields this project reads or writes, no more: an object that DPF owns is changed by JSON patch only,
// so that fields unknown here survive. They import apimachinery alone.
//
// +kubebuilder:object:generate=true
// +groupName=vpc.dpu.nvidia.com
// +versionName=v1alpha1
package vpcv1alpha1
