// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package svcv1alpha1 describes the part of svc.dpu.nvidia.com/v1alpha1 that connects a host port behind a DPU to a virtual
// network, and the request for credentials of a DPU cluster. Fields and rules are those of DPF v26.4.
//
// The types hold the fields this project reads or writes, no more: an object that DPF owns is changed by JSON patch only,
// so that fields unknown here survive. They import apimachinery alone.
//
// +kubebuilder:object:generate=true
// +groupName=svc.dpu.nvidia.com
// +versionName=v1alpha1
package svcv1alpha1
