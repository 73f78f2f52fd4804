// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maas speaks of one MAAS, as one account, in domain terms: claims, deploy,
// release, power, inventory. It never retries, never sleeps and keeps no state but
// connections; every failure is a type that says what is known afterwards.
package maas
