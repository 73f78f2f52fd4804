// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"slices"
	"strings"
)

// noDouble: a server belongs to at most one MaasMachine; a DPU port to at most one attachment not proven Detached, and to at
// most one network at any time.
func (r *run) noDouble() {
	holders := map[string][]string{}
	for _, server := range r.machines {
		// What is listed as held waits for an operator and serves nobody.
		if server.AgentName != "" && r.ours(server.Owner) && !r.held[server.SystemID] {
			r.observe("I2")
			holders[server.AgentName] = append(holders[server.AgentName], server.SystemID)
		}
	}
	for token, servers := range holders {
		if _, known := r.owner(token); known && len(servers) > 1 {
			// Two servers under one token are a lost allocation being cleaned up; we must never have used it twice.
			deployed := slices.DeleteFunc(slices.Clone(servers), func(id string) bool {
				return !slices.ContainsFunc(r.effects, func(e Effect) bool { return r.ours(e.User) && e.deploys(id, token) })
			})
			if len(deployed) > 1 {
				r.breaks("I2", "servers %s were deployed under one token", strings.Join(deployed, ", "))
			}
		}
	}
	r.annotatedForOne()
	open := map[string]string{}
	for _, a := range r.latestAttachments() {
		if a.Deleted || a.Proven == "Detached" || !a.everProven(r.snapshot) {
			continue
		}
		r.observe("I2")
		key := a.Source + "/" + a.SystemID
		if other, taken := open[key]; taken {
			r.breaks("I2", "attachments %s and %s/%s both hold server %s", other, a.Namespace, a.Name, a.SystemID)
		}
		open[key] = a.Namespace + "/" + a.Name
	}
	for i, p := range r.plugs {
		r.observe("I2")
		for _, q := range r.plugs[i+1:] {
			if p.MAC == q.MAC && q.at(q.From) && p.at(q.From) {
				r.breaks("I2", "port %s was plugged into %s/%s while it was on %s/%s", p.MAC, q.VPC, q.Network, p.VPC, p.Network)
			}
		}
	}
}

// annotatedForOne: what a server's annotations say of the machine it is held for is what the claim says.
func (r *run) annotatedForOne() {
	for _, e := range r.effects {
		m, claimed := r.owner(e.Token)
		name := e.Annotations[annotatedName]
		if e.Operation != "set_workload_annotations" || !r.ours(e.User) || !claimed || name == "" {
			continue
		}
		r.observe("I2")
		if e.Annotations[annotatedNamespace] != m.Namespace || name != m.Name {
			r.breaks("I2", "server %s, held for %s/%s, was annotated at %s for %s/%s",
				e.SystemID, m.Namespace, m.Name, clock(e.Time), e.Annotations[annotatedNamespace], name)
		}
	}
}

func (r *run) deployedUnder(systemID, token string) bool {
	return slices.ContainsFunc(r.effects, func(e Effect) bool { return e.deploys(systemID, token) })
}

func (e Effect) deploys(systemID, token string) bool {
	return e.Operation == "deploy" && e.SystemID == systemID && e.Token == token
}

// latestAttachments is the last version of every attachment that ever was.
func (r *run) latestAttachments() []attachmentRecord {
	at := map[string]int{}
	var latest []attachmentRecord
	for _, a := range r.attachments {
		if i, known := at[a.UID]; known {
			latest[i] = a
			continue
		}
		at[a.UID] = len(latest)
		latest = append(latest, a)
	}
	return latest
}

// everProven says that the attachment was once proven Attached: until then it holds nothing.
func (a attachmentRecord) everProven(s snapshot) bool {
	return slices.ContainsFunc(s.attachments, func(b attachmentRecord) bool { return b.UID == a.UID && b.Proven == "Attached" })
}
