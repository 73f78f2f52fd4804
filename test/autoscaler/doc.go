// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package autoscaler does to Cluster API what cluster-autoscaler with its provider clusterapi does, call by call, so that tests can
// have it on a clock of their own and without a scheduler: it finds node groups by their annotations, reads Machines, Nodes and
// templates from caches, sets sizes by the scale subresource, and names the Machine to go by an annotation.
//
// It follows cluster-autoscaler as it was developed in 2026 (the repository kubernetes-sigs/cluster-autoscaler). What released versions
// do otherwise and matters here is an option. What it could not be sure of is marked "unsure". Left out are: the check of a group's
// and the cluster's health (more than three unready Nodes and 45 %), Pods' affinities, balancing of similar groups, the
// soft taints, and everything about GPUs and devices.
package autoscaler
