// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// What a circuit breaker is where the identity does not say.
const (
	defaultBreakerServers = 3
	defaultBreakerPercent = 5
	defaultBreakerWindow  = 3600
)

// breakerLimit is how many servers held within the window stop new claims of an account that has so many.
func breakerLimit(policy infrav1.CircuitBreaker, servers int) int {
	percent := int(ptr.Deref(policy.Percent, defaultBreakerPercent))
	return max(int(ptr.Deref(policy.Servers, defaultBreakerServers)), (servers*percent+99)/100)
}

func breakerWindow(policy infrav1.CircuitBreaker) time.Duration {
	return time.Duration(ptr.Deref(policy.WindowSeconds, defaultBreakerWindow)) * time.Second
}

// heldLately are the servers held within the window, and when the first of them leaves it; zero if there are none.
func heldLately(policy infrav1.CircuitBreaker, held []infrav1.HeldServer, now time.Time) (servers []string, leaves time.Time) {
	for _, server := range held {
		until := server.Since.Add(breakerWindow(policy))
		if !until.After(now) {
			continue
		}
		servers = append(servers, server.SystemID)
		if leaves.IsZero() || until.Before(leaves) {
			leaves = until
		}
	}
	return servers, leaves
}

// breaker is the state of the circuit breaker after was. Without MAAS' word on how many servers the account has nothing changes.
func breaker(was *infrav1.BreakerStatus, policy infrav1.CircuitBreaker, o Observation) *infrav1.BreakerStatus {
	if !o.Audited {
		return was
	}
	lately, _ := heldLately(policy, o.Held, o.Now)
	open := len(lately) >= breakerLimit(policy, o.Servers)
	if open == isOpen(was) {
		return was
	}
	return &infrav1.BreakerStatus{Open: ptr.To(open), Since: ptr.To(metav1.NewTime(o.Now))}
}

func isOpen(breaker *infrav1.BreakerStatus) bool {
	return breaker != nil && ptr.Deref(breaker.Open, false)
}
