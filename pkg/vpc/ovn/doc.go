// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ovn reads what OVN's southbound database says of host ports and chassis, and raises NB_Global.nb_cfg in the northbound
// database, which is the one thing it ever writes. Every answer is asked for when it is needed: nothing is cached.
//
// The words of the protocol are libovsdb's. Its client is not used: it dials by itself, so that nothing bounds an answer, it does
// not tell a question that was sent from one that was not, and its codec panics at a reply that has no id.
package ovn
