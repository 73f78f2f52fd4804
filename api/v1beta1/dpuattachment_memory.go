// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

// DPUAttachmentMemoryAnnotation is what the fabric wing remembers of a DPUAttachment: which DPUs it wrote to, and since when it
// detaches. The fabric wing alone writes it, before it writes to a DPU; without it, detachment is proven by what stands on
// the DPUs.
const DPUAttachmentMemoryAnnotation = "dpuattachment.infrastructure.cluster.x-k8s.io/memory"
