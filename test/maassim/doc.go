// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maassim simulates one MAAS 3.7 region over HTTP: the API 2.0 that machines are claimed, deployed and
// released through, with its OAuth, visibility, state table, error bodies and delays, and the hardware behind it as
// callbacks. It knows the protocol and nothing of the provider under test.
//
// A Region is strict where clients are tempted to rely on luck: an allocate is not idempotent, agent_name is never
// shown, it is forgotten when a release starts, annotations and owner survive until the machine is Ready, an answer
// shows the state before post-commit work, and a lost answer may still commit.
//
// Every state change and every accepted mutating call is kept in a journal ([Region.Journal]) that is rich enough for
// an invariant checker; every call is counted ([Region.Calls]); [Region.Inject] makes things go wrong on purpose.
//
// Behaviour that could not be confirmed against a real region is marked "unsure:" in the source.
//
// Not simulated: ipaddresses, dnsresources, domains, pods, rescue mode, hardware tests, interface changes, op=details,
// HMAC-SHA1 signatures. Known operations and constraints that are not simulated answer 501 rather than pretend.
package maassim
