// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func TestDecide(t *testing.T) {
	unreachable := &Problem{Reason: infrav1.MaasUnreachableReason, Message: "no answer"}
	refused := &Problem{Reason: infrav1.CredentialsRefusedReason, Message: "no"}
	cases := map[string]struct {
		o           Observation
		credentials metav1.ConditionStatus
		reason      string
		drop        bool
	}{
		"good":                   {Observation{Zones: []string{"a"}}, metav1.ConditionTrue, infrav1.ReadyReason, false},
		"refused":                {Observation{Unusable: refused}, metav1.ConditionFalse, infrav1.CredentialsRefusedReason, false},
		"unreachable":            {Observation{Unusable: unreachable}, metav1.ConditionUnknown, infrav1.MaasUnreachableReason, false},
		"no zone":                {Observation{Unknown: []string{"x"}}, metav1.ConditionTrue, infrav1.NoZoneReason, false},
		"deleting, machines":     {Observation{Deleting: true, Machines: 1, Zones: []string{"a"}}, metav1.ConditionTrue, infrav1.InUseReason, false},
		"deleting, clusters":     {Observation{Deleting: true, Clusters: 1, Unusable: refused}, metav1.ConditionFalse, infrav1.InUseReason, false},
		"deleting, free":         {Observation{Deleting: true, Zones: []string{"a"}}, "", "", true},
		"deleting, free, broken": {Observation{Deleting: true, Unusable: unreachable}, "", "", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			step := decide(&infrav1.MaasClusterIdentity{}, c.o)
			if step.Credentials.Status != c.credentials || step.Ready.Reason != c.reason || step.DropFinalizer != c.drop {
				t.Errorf("got %+v", step)
			}
		})
	}
}

// TestAccountIsPinned: as long as a server is held under the account, a key of another one does not replace it.
func TestAccountIsPinned(t *testing.T) {
	changed := &Problem{Reason: infrav1.AccountChangedReason, Message: "another account's key"}
	for name, c := range map[string]struct {
		o    Observation
		want string
	}{
		"no machine uses it": {Observation{Unusable: changed}, ""},
		"a machine uses it":  {Observation{Unusable: changed, Machines: 1}, "capi"},
		"a server is held":   {Observation{Unusable: changed, Held: []infrav1.HeldServer{{SystemID: "abc"}}}, "capi"},
		"MAAS is away":       {Observation{Unusable: &Problem{Reason: infrav1.MaasUnreachableReason}}, "capi"},
	} {
		t.Run(name, func(t *testing.T) {
			object := &infrav1.MaasClusterIdentity{Status: infrav1.MaasClusterIdentityStatus{Account: "capi"}}
			report(object, c.o, decide(object, c.o))
			if object.Status.Account != c.want {
				t.Errorf("account %q, want %q", object.Status.Account, c.want)
			}
		})
	}
}

// heldFor makes servers held since so long.
func heldFor(now time.Time, ages ...time.Duration) []infrav1.HeldServer {
	held := make([]infrav1.HeldServer, 0, len(ages))
	for i, age := range ages {
		held = append(held, infrav1.HeldServer{SystemID: string(rune('a' + i)), Since: metav1.NewTime(now.Add(-age))})
	}
	return held
}

func TestBreaker(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	m := time.Minute
	for name, c := range map[string]struct {
		policy  infrav1.CircuitBreaker
		held    []infrav1.HeldServer
		servers int
		unheard bool
		was     bool
		want    bool
	}{
		"nothing held":                        {servers: 10},
		"two of the default three":            {servers: 10, held: heldFor(now, m, m)},
		"the default three":                   {servers: 10, held: heldFor(now, m, m, m), want: true},
		"one is too long ago":                 {servers: 10, held: heldFor(now, m, m, 60*m)},
		"one is almost too long ago":          {servers: 10, held: heldFor(now, m, m, 60*m-time.Second), want: true},
		"five per cent are more":              {servers: 61, held: heldFor(now, m, m, m)},
		"five per cent, rounded up":           {servers: 61, held: heldFor(now, m, m, m, m), want: true},
		"sixty servers, three are five":       {servers: 60, held: heldFor(now, m, m, m), want: true},
		"one is enough":                       {policy: infrav1.CircuitBreaker{Servers: ptr.To[int32](1)}, servers: 10, held: heldFor(now, m), want: true},
		"half of ten":                         {policy: infrav1.CircuitBreaker{Percent: ptr.To[int32](50)}, servers: 10, held: heldFor(now, m, m, m, m)},
		"a short window":                      {policy: infrav1.CircuitBreaker{WindowSeconds: ptr.To[int32](60)}, servers: 10, held: heldFor(now, m, m, m)},
		"closes when servers are released":    {servers: 10, held: heldFor(now, m), was: true},
		"stays open":                          {servers: 10, held: heldFor(now, m, m, m), was: true, want: true},
		"opens not without MAAS' word":        {unheard: true, held: heldFor(now, m, m, m)},
		"closes not without MAAS' word":       {unheard: true, was: true, want: true},
		"many held long ago do not matter":    {servers: 10, held: heldFor(now, 61*m, 61*m, 90*m, 90*m)},
		"the account has nothing but is held": {servers: 3, held: heldFor(now, m, m, m), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			object := &infrav1.MaasClusterIdentity{Spec: infrav1.MaasClusterIdentitySpec{CircuitBreaker: c.policy}}
			since := metav1.NewTime(now.Add(-10 * m))
			if c.was {
				object.Status.Breaker = &infrav1.BreakerStatus{Open: ptr.To(true), Since: &since}
			}
			o := Observation{Now: now, Audited: !c.unheard, Servers: c.servers, Held: c.held, Zones: []string{"a"}}
			report(object, o, decide(object, o))
			said := conditions.Get(object, infrav1.ClaimsAdmittedCondition)
			switch {
			case isOpen(object.Status.Breaker) != c.want:
				t.Fatalf("breaker %+v, want open: %v", object.Status.Breaker, c.want)
			case c.want && (said.Status != metav1.ConditionFalse || said.Reason != infrav1.CircuitBreakerOpenReason || !strings.Contains(said.Message, "release them with erase")):
				t.Errorf("condition %+v", said)
			case c.want && !c.unheard && !strings.Contains(said.Message, "a"):
				t.Errorf("the servers are not named: %s", said.Message)
			case !c.want && (said.Status != metav1.ConditionTrue || said.Reason != infrav1.ClaimsAdmittedReason):
				t.Errorf("condition %+v", said)
			case c.was == c.want && c.was && !object.Status.Breaker.Since.Equal(&since):
				t.Errorf("since %v although nothing changed", object.Status.Breaker.Since)
			case c.was != c.want && !object.Status.Breaker.Since.Equal(ptr.To(metav1.NewTime(now))):
				t.Errorf("since %v, want now", object.Status.Breaker.Since)
			}
		})
	}
}

// TestBreakerWakes: nobody says when the window has passed.
func TestBreakerWakes(t *testing.T) {
	r := &Reconciler{}
	r.complete()
	now := time.Now().Truncate(time.Second)
	object := &infrav1.MaasClusterIdentity{}
	o := Observation{Now: now, Audited: true, Servers: 3, Held: heldFor(now, 20*time.Minute, 60*time.Minute-7*time.Second, 2*time.Hour), Zones: []string{"a"}}
	for i := range o.Held {
		o.Held[i].Reason = infrav1.EraseFailedReason
	}
	if after := r.after(object, o, decide(object, o)); after < 7*time.Second || after > 8*time.Second {
		t.Errorf("looks again after %s, want when the oldest leaves the window", after)
	}
}

func TestAccounted(t *testing.T) {
	orphans := []infrav1.OrphanServer{{SystemID: "abc", Reason: infrav1.OrphanUnclaimed}}
	yes := &metav1.Condition{Type: infrav1.AccountedCondition, Status: metav1.ConditionTrue, Reason: infrav1.AccountedReason}
	no := &metav1.Condition{Type: infrav1.AccountedCondition, Status: metav1.ConditionFalse, Reason: infrav1.OrphansFoundReason, Message: "x"}
	for name, c := range map[string]struct {
		was    *metav1.Condition
		o      Observation
		status metav1.ConditionStatus
		reason string
	}{
		"not audited yet":                  {nil, Observation{}, metav1.ConditionUnknown, infrav1.AuditPendingReason},
		"no answer, accounted before":      {yes, Observation{}, metav1.ConditionTrue, infrav1.AccountedReason},
		"no answer, orphans before":        {no, Observation{}, metav1.ConditionFalse, infrav1.OrphansFoundReason},
		"all accounted for":                {nil, Observation{Audited: true}, metav1.ConditionTrue, infrav1.AccountedReason},
		"orphans":                          {yes, Observation{Audited: true, Orphans: orphans}, metav1.ConditionFalse, infrav1.OrphansFoundReason},
		"in doubt, never said":             {nil, Observation{Audited: true, Doubtful: true}, metav1.ConditionUnknown, infrav1.AuditPendingReason},
		"in doubt, accounted before":       {yes, Observation{Audited: true, Doubtful: true}, metav1.ConditionTrue, infrav1.AccountedReason},
		"in doubt, orphans before":         {no, Observation{Audited: true, Doubtful: true}, metav1.ConditionUnknown, infrav1.AuditPendingReason},
		"the orphans are gone":             {no, Observation{Audited: true}, metav1.ConditionTrue, infrav1.AccountedReason},
		"orphans and others are in doubt":  {yes, Observation{Audited: true, Doubtful: true, Orphans: orphans}, metav1.ConditionFalse, infrav1.OrphansFoundReason},
		"orphans known, MAAS does not say": {no, Observation{Orphans: nil}, metav1.ConditionFalse, infrav1.OrphansFoundReason},
	} {
		t.Run(name, func(t *testing.T) {
			object := &infrav1.MaasClusterIdentity{}
			object.Status.Orphans = orphans
			if c.was != nil {
				conditions.Set(object, *c.was)
			}
			report(object, c.o, decide(object, c.o))
			said := conditions.Get(object, infrav1.AccountedCondition)
			if said.Status != c.status || said.Reason != c.reason {
				t.Errorf("got %+v", said)
			}
			if !c.o.Audited && len(object.Status.Orphans) != 1 {
				t.Errorf("without MAAS' word the orphans became %v", object.Status.Orphans)
			}
		})
	}
}

func TestSeveral(t *testing.T) {
	if got := several([]string{"a", "b"}); got != "a, b" {
		t.Error(got)
	}
	if got := several(strings.Split("a b c d e f g h i j k l", " ")); got != "a, b, c, d, e, f, g, h, i, j and 2 more" {
		t.Error(got)
	}
}
