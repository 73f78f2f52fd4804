// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	capi  = "capi"
	rackA = "rack-a"
)

// token is a token that fits the machine red/name.
func token(name string) string {
	made, err := maas.NewToken(strings.NewReader("0123456789abcdef"), "red", name)
	if err != nil {
		panic(err)
	}
	return made
}

// machine is the MaasMachine red/name with a claim under rack-a, its server, and what it says of its release.
func machine(name, server string, change ...func(*infrav1.MaasMachine)) infrav1.MaasMachine {
	m := infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name}}
	m.Spec.Claim = &infrav1.MachineClaim{Token: token(name), IdentityName: rackA}
	m.Status.SystemID = server
	conditions.Set(&m, metav1.Condition{Type: infrav1.ServerClaimedCondition, Status: metav1.ConditionTrue, Reason: infrav1.ClaimedReason})
	for _, f := range change {
		f(&m)
	}
	return m
}

func released(reason string) func(*infrav1.MaasMachine) {
	return func(m *infrav1.MaasMachine) {
		conditions.Set(m, metav1.Condition{Type: infrav1.ReleasedCondition, Status: metav1.ConditionFalse, Reason: reason})
	}
}

func avoiding(server, reason string, since metav1.Time) func(*infrav1.MaasMachine) {
	return func(m *infrav1.MaasMachine) {
		m.Status.AvoidedServers = append(m.Status.AvoidedServers, infrav1.AvoidedServer{SystemID: server, Reason: reason, Since: since})
	}
}

func provisioned(m *infrav1.MaasMachine) { m.Status.Initialization.Provisioned = ptr.To(true) }

func deleting(m *infrav1.MaasMachine) { m.DeletionTimestamp = ptr.To(metav1.Now()) }

func lostServer(m *infrav1.MaasMachine) {
	conditions.Set(m, metav1.Condition{Type: infrav1.ServerClaimedCondition, Status: metav1.ConditionFalse, Reason: infrav1.ServerLostReason})
}

// server is a machine of the account in MAAS, annotated with the claim of red/claimant if one is named.
func server(id, claimant string, status maas.Status, change ...func(*maas.Machine)) maas.Machine {
	s := maas.Machine{SystemID: id, Owner: capi, Status: status, Annotations: map[string]string{}}
	if claimant != "" {
		s.Annotations = map[string]string{
			maas.AnnotationToken: maas.TokenHash(token(claimant)), maas.AnnotationNamespace: "red", maas.AnnotationName: claimant,
		}
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func annotated(key, value string) func(*maas.Machine) {
	return func(s *maas.Machine) { s.Annotations[key] = value }
}

func hold(reason string) func(*maas.Machine) { return annotated(maas.AnnotationHold, reason) }

func list(servers ...maas.Machine) map[string]maas.Machine {
	listed := map[string]maas.Machine{}
	for _, s := range servers {
		listed[s.SystemID] = s
	}
	return listed
}

func looks(servers ...maas.Machine) map[string]look {
	found := map[string]look{}
	for _, s := range servers {
		found[s.SystemID] = look{machine: s, found: true}
	}
	return found
}

func fleetOf(machines ...infrav1.MaasMachine) *fleet {
	return newFleet(machines, rackA, map[string]bool{rackA: true})
}

func TestHeldServers(t *testing.T) {
	before, now := metav1.NewTime(time.Now().Add(-time.Hour)), metav1.Now()
	known := func(id, name, reason string) infrav1.HeldServer {
		return infrav1.HeldServer{SystemID: id, Machine: "red/" + name, Reason: reason, Since: before}
	}
	deployed, releasing := maas.StatusDeployed, maas.StatusReleasing
	gone := map[string]look{"x": {}}
	for name, c := range map[string]struct {
		known    []infrav1.HeldServer
		machines []infrav1.MaasMachine
		listed   map[string]maas.Machine
		looks    map[string]look
		want     string // system ID, machine and reason of the one that is held, and "since" if it was before
		freed    bool
	}{
		"nothing": {},
		"its machine says so": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.HeldReason))},
			want:     "x red/m Held",
		},
		"its machine says so, MAAS knows why": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.HeldReason))},
			listed:   list(server("x", "m", deployed, hold(infrav1.EraseFailedReason))), want: "x red/m EraseFailed",
		},
		"its machine says so, the list knows an older claim": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.HeldReason))},
			listed:   list(server("x", "older", deployed, hold(infrav1.EraseFailedReason))), want: "x red/m Held",
		},
		"its machine says why": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.ServerSuspectReason))},
			want:     "x red/m ServerSuspect",
		},
		"its machine is being abandoned": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.AbandonedReason))},
			want:     "x red/m Abandoned",
		},
		"why it is held is not forgotten": {
			known:    []infrav1.HeldServer{known("x", "m", infrav1.EraseFailedReason)},
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.HeldReason))}, want: "x red/m EraseFailed since",
		},
		"its machine is fine":          {machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.NotReleasedReason))}},
		"a copied claim holds nothing": {machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.HeldReason), func(m *infrav1.MaasMachine) { m.Spec.Claim.Token = token("other") })}},
		"its machine tries to release it": {
			known:    []infrav1.HeldServer{known("x", "m", infrav1.EraseFailedReason)},
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.ReleasingReason))},
			looks:    looks(server("x", "m", releasing, hold(infrav1.EraseFailedReason))), want: "x red/m EraseFailed since",
		},
		"its machine tries to release it, nobody looked": {
			known:    []infrav1.HeldServer{known("x", "m", infrav1.EraseFailedReason)},
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.ReleasingReason))},
			listed:   list(server("x", "m", deployed)), want: "x red/m EraseFailed since",
		},
		"its machine released it": {
			known:    []infrav1.HeldServer{known("x", "m", infrav1.EraseFailedReason)},
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.ReleasingReason))},
			listed:   list(server("x", "m", deployed, hold(infrav1.EraseFailedReason))),
			looks:    looks(server("x", "", maas.StatusReady, func(s *maas.Machine) { s.Owner = "" })),
		},
		"its machine goes on, and never was held in MAAS": {
			known:    []infrav1.HeldServer{known("x", "m", infrav1.HeldReason)},
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.ReleasingReason))},
			looks:    looks(server("x", "m", deployed)),
		},
		"its machine releases one that was never listed": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.ReleasingReason))},
			looks:    looks(server("x", "m", deployed, hold(infrav1.DetachUnprovenReason))),
		},
		"its machine lost it": {
			machines: []infrav1.MaasMachine{machine("m", "x", released(infrav1.HeldReason), lostServer)},
		},
		"abandoned": {
			listed: list(server("x", "gone", deployed, hold("Abandoned"))),
			looks:  looks(server("x", "gone", deployed, hold("Abandoned"))), want: "x red/gone Abandoned",
		},
		"abandoned, says a list that may be old": {
			listed: list(server("x", "gone", deployed, hold("Abandoned"))),
		},
		"abandoned, said an old list": {
			listed: list(server("x", "gone", deployed, hold("Abandoned"))), looks: looks(server("x", "", maas.StatusReady, func(s *maas.Machine) { s.Owner = "" })),
		},
		"known, the list is older": {
			known: []infrav1.HeldServer{known("x", "gone", "Abandoned")}, listed: list(server("x", "gone", deployed)),
			want: "x red/gone Abandoned since",
		},
		"known, MAAS does not answer": {
			known: []infrav1.HeldServer{known("x", "gone", "Abandoned")}, want: "x red/gone Abandoned since",
		},
		"known, and still so": {
			known: []infrav1.HeldServer{known("x", "gone", "Abandoned")}, looks: looks(server("x", "gone", deployed, hold("Abandoned"))),
			want: "x red/gone Abandoned since",
		},
		"known, an operator releases it": {
			known: []infrav1.HeldServer{known("x", "gone", "Abandoned")}, looks: looks(server("x", "gone", releasing, hold("Abandoned"))),
			want: "x red/gone Abandoned since",
		},
		"a release goes on that was never held here": {
			listed: list(server("x", "gone", releasing, hold("Abandoned"))), looks: looks(server("x", "gone", releasing, hold("Abandoned"))),
		},
		"known, free again": {
			known: []infrav1.HeldServer{known("x", "gone", "Abandoned")},
			looks: looks(server("x", "", maas.StatusReady, func(s *maas.Machine) { s.Owner = "" })), freed: true,
		},
		"known, somebody else's now": {known: []infrav1.HeldServer{known("x", "gone", "Abandoned")}, looks: gone, freed: true},
		"known, another machine's now": {
			known: []infrav1.HeldServer{known("x", "gone", "ServerSuspect")}, machines: []infrav1.MaasMachine{machine("m", "x")},
			listed: list(server("x", "gone", deployed, hold("ServerSuspect"))), looks: looks(server("x", "m", deployed)), freed: true,
		},
		"known, somebody removed the hold": {
			known: []infrav1.HeldServer{known("x", "gone", "Abandoned")}, looks: looks(server("x", "gone", deployed)),
		},
		"let go by a machine that has another": {
			known: []infrav1.HeldServer{known("x", "m", "ServerSuspect")}, machines: []infrav1.MaasMachine{machine("m", "y")},
			listed: list(server("x", "m", maas.StatusFailedDeployment)), looks: looks(server("x", "m", maas.StatusFailedDeployment, hold("ServerSuspect"))),
			want: "x red/m ServerSuspect since",
		},
		"held under another claim than that of who records it": {
			machines: []infrav1.MaasMachine{machine("m", "x", lostServer, provisioned)},
			looks:    looks(server("x", "gone", deployed, hold("Abandoned"))), want: "x red/gone Abandoned",
		},
		"held under another claim, which the one that records it has not seen": {
			machines: []infrav1.MaasMachine{machine("m", "x", provisioned)},
			looks:    looks(server("x", "gone", deployed, hold("Abandoned"))), want: "x red/gone Abandoned",
		},
		"a hold without a claim is nobody's": {looks: looks(server("x", "", deployed, hold("x")))},
		"words nobody foresaw": {
			looks: looks(server("x", "gone", deployed, hold("see ticket #7"), annotated(maas.AnnotationName, ""))), want: "x  Held",
		},
		"another account's": {looks: looks(server("x", "gone", deployed, hold("Abandoned"), func(s *maas.Machine) { s.Owner = "other" }))},
	} {
		t.Run(name, func(t *testing.T) {
			v := &view{account: capi, listed: c.listed, looks: c.looks}
			held, freed := heldServers(c.known, fleetOf(c.machines...), v, now)
			var got []string
			for _, s := range held {
				text := fmt.Sprintf("%s %s %s", s.SystemID, s.Machine, s.Reason)
				if s.Since.Equal(&before) {
					text += " since"
				} else if !s.Since.Equal(&now) {
					t.Errorf("since %v", s.Since)
				}
				got = append(got, text)
			}
			if strings.Join(got, "; ") != c.want {
				t.Errorf("held %q, want %q", got, c.want)
			}
			if freed["x"] != c.freed {
				t.Errorf("freed %v, want %v", freed["x"], c.freed)
			}
		})
	}
}

// TestHeldDoubts: a server without a machine is looked at whichever of status and list says that it is held, once; one that is
// known also when its machine no longer says so.
func TestHeldDoubts(t *testing.T) {
	v := &view{
		account: capi,
		listed: list(
			server("listed", "gone", maas.StatusDeployed, hold("Abandoned")), server("mine", "m", maas.StatusDeployed, hold("EraseFailed")),
			server("looked", "gone", maas.StatusDeployed, hold("Abandoned")), server("fine", "gone", maas.StatusDeployed),
		),
		looks: looks(server("looked", "gone", maas.StatusDeployed, hold("Abandoned"))),
	}
	known := []infrav1.HeldServer{{SystemID: "known"}, {SystemID: "trying"}, {SystemID: "said"}}
	machines := fleetOf(machine("m", "mine"), machine("n", "trying", released(infrav1.ReleasingReason)), machine("o", "said", released(infrav1.HeldReason)))
	if got := heldDoubts(known, machines, v); !slices.Equal(got, []string{"known", "listed", "trying"}) {
		t.Errorf("doubts %v", got)
	}
}

func TestSuspects(t *testing.T) {
	early, late := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second)), metav1.NewTime(time.Now().Truncate(time.Second))
	known := func(since metav1.Time, machines ...string) []infrav1.SuspectServer {
		return []infrav1.SuspectServer{{SystemID: "x", Machines: machines, Since: since}}
	}
	failed, timedOut := avoiding("x", infrav1.DeployFailedReason, late), avoiding("x", infrav1.DeployTimedOutReason, late)
	many := make([]string, 0, maxMachines)
	for i := range maxMachines {
		many = append(many, fmt.Sprintf("red/m%02d", i))
	}
	other := func(m *infrav1.MaasMachine) { m.Spec.Claim.IdentityName = "rack-b" }
	for name, c := range map[string]struct {
		known    []infrav1.SuspectServer
		machines []infrav1.MaasMachine
		freed    bool
		want     []infrav1.SuspectServer
	}{
		"nothing":                       {},
		"failed":                        {machines: []infrav1.MaasMachine{machine("m", "x", failed)}, want: known(late, "red/m")},
		"timed out":                     {machines: []infrav1.MaasMachine{machine("m", "x", timedOut)}, want: known(late, "red/m")},
		"failed, being deleted":         {machines: []infrav1.MaasMachine{machine("m", "x", failed, deleting)}, want: known(late, "red/m")},
		"refused":                       {machines: []infrav1.MaasMachine{machine("m", "x", avoiding("x", infrav1.AttachmentRefusedReason, late))}},
		"another identity's":            {machines: []infrav1.MaasMachine{machine("m", "x", failed, other)}},
		"remembered, the machine went":  {known: known(early, "red/gone"), want: known(early, "red/gone")},
		"a second machine":              {known: known(early, "red/gone"), machines: []infrav1.MaasMachine{machine("m", "x", failed)}, want: known(early, "red/gone", "red/m")},
		"the same machine again":        {known: known(early, "red/m"), machines: []infrav1.MaasMachine{machine("m", "x", failed)}, want: known(early, "red/m")},
		"recorded too late":             {known: known(late, "red/gone"), machines: []infrav1.MaasMachine{machine("m", "x", avoiding("x", infrav1.DeployFailedReason, early))}, want: known(early, "red/gone", "red/m")},
		"remembered, the machine tries": {known: known(early, "red/m"), machines: []infrav1.MaasMachine{machine("m", "y", failed)}, want: known(early, "red/m")},
		"cleared, the machine tries":    {machines: []infrav1.MaasMachine{machine("m", "y", failed)}},
		"an operator released it":       {known: known(early, "red/gone"), freed: true},
		"a machine works on it":         {known: known(early, "red/gone"), machines: []infrav1.MaasMachine{machine("m", "x", provisioned)}},
		"a machine is not done with it": {known: known(early, "red/gone"), machines: []infrav1.MaasMachine{machine("m", "x")}, want: known(early, "red/gone")},
		"a machine that worked on it lost it": {
			known: known(early, "red/gone"), machines: []infrav1.MaasMachine{machine("m", "x", provisioned, lostServer)}, want: known(early, "red/gone"),
		},
		"one that lost it does not hide a failure": {
			machines: []infrav1.MaasMachine{machine("a", "x", provisioned), machine("m", "x", failed)}, want: known(late, "red/m"),
		},
		"the newest is among sixteen": {
			known: known(early, many...), machines: []infrav1.MaasMachine{machine("z", "x", failed)}, want: known(early, append(slices.Clone(many[1:]), "red/z")...),
		},
	} {
		t.Run(name, func(t *testing.T) {
			remembered := infrav1.MaasClusterIdentityStatus{Suspects: c.known}
			untouched := remembered.DeepCopy()
			got := suspectServers(remembered.Suspects, fleetOf(c.machines...), map[string]bool{"x": c.freed})
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
			if fmt.Sprint(remembered.Suspects) != fmt.Sprint(untouched.Suspects) {
				t.Errorf("the status was changed in place: %v", remembered.Suspects)
			}
		})
	}
}

func TestDisagreements(t *testing.T) {
	deployed, allocated := maas.StatusDeployed, maas.StatusAllocated
	second := func(m *infrav1.MaasMachine) { m.Spec.Claim.IdentityName = "rack-a-too" }
	stranger := func(m *infrav1.MaasMachine) { m.Spec.Claim.IdentityName = "rack-b" }
	noStatus := func(m *infrav1.MaasMachine) { m.Status = infrav1.MaasMachineStatus{} }
	asking := func(m *infrav1.MaasMachine) { m.Status.LastAllocateTime = ptr.To(metav1.Now()) }
	releasing := func(m *infrav1.MaasMachine) { m.Status.Release = &infrav1.MachineReleaseStatus{SystemID: "x"} }
	avoided := avoiding("x", infrav1.DeployFailedReason, metav1.Now())
	for name, c := range map[string]struct {
		machines []infrav1.MaasMachine
		listed   map[string]maas.Machine
		recent   map[string]maas.Machine
		looks    map[string]look
		want     string
	}{
		"no answer":                        {machines: []infrav1.MaasMachine{machine("m", "x")}},
		"agreed":                           {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "m", deployed))},
		"agreed, of another identity":      {machines: []infrav1.MaasMachine{machine("m", "x", second)}, listed: list(server("x", "m", deployed))},
		"agreed, the status was lost":      {machines: []infrav1.MaasMachine{machine("m", "", func(m *infrav1.MaasMachine) { m.Spec.ProviderID = "maas:///zone/x" })}, listed: list(server("x", "m", deployed))},
		"a claim nobody has":               {listed: list(server("x", "gone", deployed)), want: "x NoMaasMachine red/gone"},
		"a claim of another account":       {machines: []infrav1.MaasMachine{machine("m", "x", stranger)}, listed: list(server("x", "m", deployed)), want: "x NoMaasMachine red/m"},
		"a claim nobody has, unnamed":      {listed: list(server("x", "gone", deployed, annotated(maas.AnnotationName, ""))), want: "x NoMaasMachine "},
		"a claim nobody has, failed erase": {listed: list(server("x", "gone", maas.StatusFailedDiskErasing)), want: "x NoMaasMachine red/gone"},
		"a copied claim":                   {machines: []infrav1.MaasMachine{machine("copy", "x", func(m *infrav1.MaasMachine) { m.Spec.Claim.Token = token("m") })}, listed: list(server("x", "m", deployed)), want: "x NoMaasMachine red/m"},
		"held":                             {listed: list(server("x", "gone", deployed, hold("Abandoned")))},
		"being released":                   {listed: list(server("x", "gone", maas.StatusReleasing))},
		"being erased":                     {listed: list(server("x", "gone", maas.StatusDiskErasing))},
		"of another account":               {listed: list(server("x", "gone", deployed)), looks: looks(server("x", "gone", deployed, func(s *maas.Machine) { s.Owner = "other" }))},
		"no longer seen":                   {listed: list(server("x", "gone", deployed)), looks: map[string]look{"x": {}}},
		"by hand":                          {listed: list(server("x", "", deployed)), want: "x Unclaimed "},
		"by hand, with other annotations":  {listed: list(server("x", "", deployed, annotated("note", "mine"))), want: "x Unclaimed "},
		"not annotated, recorded":          {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "", allocated)), want: "x Unclaimed red/m"},
		"not annotated, given back":        {machines: []infrav1.MaasMachine{machine("m", "x", avoided)}, listed: list(server("x", "", allocated))},
		"the claim removed":                {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "m", deployed, annotated(maas.AnnotationToken, ""))), want: "x AnnotationsDisagree red/m"},
		"the claim removed, nobody's":      {listed: list(server("x", "m", deployed, annotated(maas.AnnotationToken, ""))), want: "x AnnotationsDisagree red/m"},
		"a hold without a claim":           {listed: list(server("x", "", deployed, hold("x"))), want: "x AnnotationsDisagree "},
		"another name":                     {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "m", deployed, annotated(maas.AnnotationName, "n"))), want: "x AnnotationsDisagree red/m"},
		"another namespace":                {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "m", deployed, annotated(maas.AnnotationNamespace, "blue"))), want: "x AnnotationsDisagree red/m"},
		"the name removed":                 {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "m", deployed, annotated(maas.AnnotationName, ""))), want: "x AnnotationsDisagree red/m"},
		"another server under the claim":   {machines: []infrav1.MaasMachine{machine("m", "y")}, listed: list(server("x", "m", allocated), server("y", "m", deployed)), want: "x AnnotationsDisagree red/m"},
		"given back, another is tried":     {machines: []infrav1.MaasMachine{machine("m", "y", avoided)}, listed: list(server("x", "m", allocated), server("y", "m", deployed))},
		"its machine goes":                 {machines: []infrav1.MaasMachine{machine("m", "y", deleting)}, listed: list(server("x", "m", allocated))},
		"its machine has no server":        {machines: []infrav1.MaasMachine{machine("m", "")}, listed: list(server("x", "m", allocated)), want: "x AnnotationsDisagree red/m"},
		"its machine looks for it":         {machines: []infrav1.MaasMachine{machine("m", "", asking)}, listed: list(server("x", "m", allocated))},
		"its machine was moved":            {machines: []infrav1.MaasMachine{machine("m", "", noStatus)}, listed: list(server("x", "m", allocated))},
		"gone":                             {machines: []infrav1.MaasMachine{machine("m", "x", provisioned)}, listed: list(), want: "x ServerGone red/m"},
		"gone, says a provider ID":         {machines: []infrav1.MaasMachine{machine("m", "", func(m *infrav1.MaasMachine) { m.Spec.ProviderID = "maas:///x" })}, listed: list()},
		"gone, of another identity":        {machines: []infrav1.MaasMachine{machine("m", "x", second)}, listed: list()},
		"gone, being deleted":              {machines: []infrav1.MaasMachine{machine("m", "x", deleting)}, listed: list()},
		"gone, released by us":             {machines: []infrav1.MaasMachine{machine("m", "x", releasing)}, listed: list()},
		"gone, given back":                 {machines: []infrav1.MaasMachine{machine("m", "x", avoided)}, listed: list()},
		"newer than the list":              {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(), recent: list(server("x", "m", allocated))},
		"gone, says a look":                {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(server("x", "m", deployed)), looks: map[string]look{"x": {}}, want: "x ServerGone red/m"},
		"there, says a look":               {machines: []infrav1.MaasMachine{machine("m", "x")}, listed: list(), looks: looks(server("x", "m", deployed))},
		"claimed anew by another machine": {
			machines: []infrav1.MaasMachine{machine("m", "x", provisioned), machine("n", "x")},
			listed:   list(server("x", "n", deployed)), want: "x ServerGone red/m",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(c.machines, rackA, map[string]bool{rackA: true, "rack-a-too": true})
			found := disagreements(&view{account: capi, listed: c.listed, recent: c.recent, looks: c.looks}, f)
			got := ""
			for _, o := range found {
				got += fmt.Sprintf("%s %s %s", o.SystemID, o.Reason, o.Machine)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestRecorded: a provider ID that names no server counts as none.
func TestRecorded(t *testing.T) {
	for id, want := range map[string]string{
		"": "", "maas:///abc123": "abc123", "maas:///zone/abc123": "abc123", "maas:///" + strings.Repeat("a", 400): "",
	} {
		m := machine("m", "", func(m *infrav1.MaasMachine) { m.Spec.ProviderID = id })
		if got := recorded(&m); got != want {
			t.Errorf("%s: recorded %q, want %q", id, got, want)
		}
	}
}

func TestSharing(t *testing.T) {
	identity := func(name, endpoint, account string) infrav1.MaasClusterIdentity {
		return infrav1.MaasClusterIdentity{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: infrav1.MaasClusterIdentitySpec{Endpoint: endpoint},
			Status: infrav1.MaasClusterIdentityStatus{Account: account},
		}
	}
	object := identity(rackA, "https://a/MAAS", capi)
	all := []infrav1.MaasClusterIdentity{
		object, identity("same", "https://a/MAAS", capi), identity("elsewhere", "https://b/MAAS", capi),
		identity("another-account", "https://a/MAAS", "other"), identity("not-known", "https://a/MAAS", ""),
	}
	got := sharing(all, &object, capi)
	if len(got) != 3 || !got[rackA] || !got["same"] || !got["not-known"] {
		t.Errorf("sharing: %v", got)
	}
}
