// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"cmp"
	"maps"
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// heldReasons are what a machine whose server is held says of its release.
var heldReasons = []string{infrav1.HeldReason, infrav1.ServerSuspectReason, infrav1.AbandonedReason}

// heldBy is why a machine's server is held, in the machine's words; empty if it is not.
func heldBy(machine *infrav1.MaasMachine) string {
	if reason := conditions.GetReason(machine, infrav1.ReleasedCondition); slices.Contains(heldReasons, reason) {
		return reason
	}
	return ""
}

// heldIn says that MAAS has the server as held under a claim.
func heldIn(server maas.Machine) bool {
	return server.Annotations[maas.AnnotationHold] != "" && server.Annotations[maas.AnnotationToken] != ""
}

// heldDoubts are the servers to be asked for one by one, because the list may be from before they were held, or from before they
// were released: those without a machine that are held, by the status or by the list, and those known whose machine no longer
// says so.
func heldDoubts(known []infrav1.HeldServer, f *fleet, v *view) []string {
	doubtful := map[string]bool{} // Whether it is known.
	for id := range v.listed {
		if server, ours := v.server(id); ours && heldIn(server) {
			doubtful[id] = false
		}
	}
	for _, server := range known {
		doubtful[server.SystemID] = true
	}
	var ids []string
	for id, wasHeld := range doubtful {
		server, _ := v.server(id)
		machine := f.holder(id, server)
		if _, looked := v.looks[id]; !looked && (machine == nil || wasHeld && heldBy(machine) == "") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// heldServers are those of machines that say so, and those that MAAS' annotations say so of, whose machine is gone or has
// another server. A server whose machine let it go is neither added nor dropped but by a look at that very server. One that was
// held stays until it is free, also while its release is tried: until then nobody knows that it ends well. Freed are those known
// that somebody else than their machine gave back.
func heldServers(known []infrav1.HeldServer, f *fleet, v *view, now metav1.Time) (held []infrav1.HeldServer, freed map[string]bool) {
	before := map[string]infrav1.HeldServer{}
	for _, server := range known {
		before[server.SystemID] = server
	}
	found := map[string]infrav1.HeldServer{}
	freed = map[string]bool{}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(append(v.ids(), slices.Collect(maps.Keys(before))...)))) {
		server, ours := v.server(id)
		was, wasHeld := before[id]
		_, looked := v.looks[id]
		machine := f.holder(id, server)
		switch {
		case machine != nil && !wasHeld: // The machine knows better.
		case machine != nil && was.Machine != key(machine):
			freed[id] = was.Machine != ""
		case !looked && wasHeld:
			found[id] = was
		case !looked:
		case !ours || server.Status.Free():
			freed[id] = wasHeld && machine == nil
		case heldIn(server) && (wasHeld || !server.Status.ReleaseUnderWay()):
			found[id] = infrav1.HeldServer{SystemID: id, Reason: word(server.Annotations[maas.AnnotationHold]), Machine: named(server)}
		}
	}
	for _, machine := range f.own {
		id := machine.Status.SystemID
		if reason := heldBy(machine); id != "" && reason != "" && !lostIts(machine) {
			server, _ := v.server(id)
			found[id] = infrav1.HeldServer{SystemID: id, Reason: machinesReason(reason, machine, server, before[id]), Machine: key(machine)}
		}
	}
	held = make([]infrav1.HeldServer, 0, len(found))
	for id, server := range found {
		server.Since = now
		if was, ok := before[id]; ok {
			server.Since = was.Since
		}
		held = append(held, server)
	}
	slices.SortFunc(held, func(a, b infrav1.HeldServer) int { return cmp.Compare(a.SystemID, b.SystemID) })
	return held, freed
}

// machinesReason makes the machine's word as exact as MAAS' annotation, once that is read.
func machinesReason(said string, machine *infrav1.MaasMachine, server maas.Machine, was infrav1.HeldServer) string {
	switch {
	case said != infrav1.HeldReason:
		return said
	case heldIn(server) && server.Annotations[maas.AnnotationToken] == maas.TokenHash(machine.Spec.Claim.Token):
		return word(server.Annotations[maas.AnnotationHold])
	case was.Machine == key(machine):
		return was.Reason
	}
	return said
}

var oneWord = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)

// word keeps what somebody wrote into MAAS from being refused by the API server.
func word(reason string) string {
	if oneWord.MatchString(reason) {
		return reason
	}
	return infrav1.HeldReason
}

// maxMachine is how long namespace/name may be in the status.
const maxMachine = 320

// named is the machine that the server's annotations name; empty if they do not.
func named(server maas.Machine) string {
	namespace, name := server.Annotations[maas.AnnotationNamespace], server.Annotations[maas.AnnotationName]
	if namespace == "" || name == "" || len(namespace)+1+len(name) > maxMachine {
		return ""
	}
	return namespace + "/" + name
}
