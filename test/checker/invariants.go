// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"slices"
	"strings"
	"time"
)

// noLeak: every server allocated under one of our tokens belongs to one living MaasMachine or is listed as held.
func (r *run) noLeak() {
	for _, server := range r.machines {
		if !r.ours(server.Owner) || server.Status == maasReady || server.Status == maasNew {
			continue
		}
		r.observe("I1")
		token := server.AgentName
		if token == "" {
			token = r.lastToken(server.SystemID)
		}
		switch {
		case r.held[server.SystemID]:
		case token == "":
			r.breaksNow("I1", "server %s is allocated to %s under no token", server.SystemID, server.Owner)
		case len(r.claims[token]) != 1:
			r.breaksNow("I1", "server %s (status %d) is allocated under a token that %d living MaasMachines have, and is not listed as held", server.SystemID, server.Status, len(r.claims[token]))
		}
	}
}

// lastToken is the token under which a server was held last, for the time MAAS has forgotten it.
func (r *run) lastToken(systemID string) string {
	for i := len(r.effects) - 1; i >= 0; i-- {
		if e := r.effects[i]; e.SystemID == systemID && e.Token != "" {
			return e.Token
		}
	}
	return ""
}

// isolatedBeforeBoot: no deploy without proof of attachment for this token and generation, not older than proofMaxAge; and the
// ports really were in the tenant's VPC and in no other.
func (r *run) isolatedBeforeBoot() {
	for _, e := range r.effects {
		if e.Operation != "deploy" || !r.ours(e.User) {
			continue
		}
		server, known := r.inventory.server(e.SystemID)
		if !known || (len(server.MACs) == 0 && !r.hasPorts(e.Token)) {
			continue
		}
		r.observe("I3")
		if m, claimed := r.owner(e.Token); claimed && m.Ports == 0 {
			// A machine without ports may have a server with DPUs that are on no VPC at all.
			for _, p := range r.pluggedAt(server, e.Time) {
				r.breaks("I3", "server %s was deployed at %s for a machine without ports while port %s was on %s", e.SystemID, clock(e.Time), p.MAC, p.VPC)
			}
			continue
		}
		vpc, asked := r.vpcOf(e.Token)
		if !asked {
			r.breaks("I3", "server %s with DPU ports was deployed at %s without any attachment under its token", e.SystemID, clock(e.Time))
			continue
		}
		if !r.provenAt(e.Token, "Attached", e.Time) {
			r.breaks("I3", "server %s was deployed at %s without a proof of attachment for its token that was valid then", e.SystemID, clock(e.Time))
		}
		plugged := r.pluggedAt(server, e.Time)
		if len(plugged) == 0 {
			r.breaks("I3", "server %s was deployed at %s while none of its ports was plugged", e.SystemID, clock(e.Time))
		}
		for _, p := range plugged {
			if p.VPC != vpc {
				r.breaks("I3", "server %s was deployed at %s with port %s on %s instead of %s", e.SystemID, clock(e.Time), p.MAC, p.VPC, vpc)
			}
		}
	}
}

func (r *run) hasPorts(token string) bool {
	m, known := r.owner(token)
	return known && m.Ports > 0
}

// provenAt says whether an API server showed a proof for the token that covered the moment. Times in statuses have whole
// seconds.
func (r *run) provenAt(token, state string, t time.Time) bool {
	return slices.ContainsFunc(r.attachments, func(a attachmentRecord) bool {
		if a.Token != token || a.Proven != state || !a.Current || a.ProvenAt.IsZero() || a.ProvenAt.After(t) {
			return false
		}
		return state != "Attached" || !a.ValidUntil.Before(t.Truncate(time.Second))
	})
}

// isolatedAfter: no release before proof of detachment, and nobody who is off the claim is still plugged.
func (r *run) isolatedAfter() {
	for _, e := range r.effects {
		server, known := r.inventory.server(e.SystemID)
		if !known || len(server.MACs) == 0 {
			continue
		}
		switch {
		case e.Operation == "release" && r.ours(e.User) && e.From != maasReleasing && e.From != maasReady:
			r.observe("I4")
			// For a machine without ports nothing was ever attached; what is plugged counts all the same.
			m, claimed := r.owner(e.Token)
			attached := r.deployedUnder(e.SystemID, e.Token) && (!claimed || m.Ports > 0)
			if attached && !r.provenAt(e.Token, "Detached", e.Time) {
				r.breaks("I4", "server %s was released at %s without a proof of detachment for its token", e.SystemID, clock(e.Time))
			}
			r.unplugged(server, e.Time, "released")
		case e.To == maasReady && e.From != maasReady:
			r.observe("I4")
			r.unplugged(server, e.Time, "back in the pool")
		}
	}
}

func (r *run) unplugged(server Server, t time.Time, what string) {
	for _, p := range r.pluggedAt(server, t) {
		if !r.inventory.foreign(p) {
			r.breaks("I4", "server %s was %s at %s while port %s was on %s", server.SystemID, what, clock(t), p.MAC, p.VPC)
		}
	}
}

// handsOff: what is not ours is never touched: no mutating call outside a claim, no label but ours, no VPC of others left or
// entered.
func (r *run) handsOff() {
	for _, e := range r.effects {
		if !r.ours(e.User) {
			continue
		}
		r.observe("I5")
		if !r.ours(e.Owner) {
			r.breaks("I5", "%s was sent at %s to server %s, which belonged to %q", e.Operation, clock(e.Time), e.SystemID, e.Owner)
			continue
		}
		if _, known := r.owner(e.Token); !known {
			r.breaks("I5", "%s was sent at %s to server %s, held under a token no MaasMachine ever had", e.Operation, clock(e.Time), e.SystemID)
		}
	}
	for _, change := range r.changes {
		r.observe("I5")
		if r.inventory.LabelPrefix != "" && !strings.HasPrefix(change.Key, r.inventory.LabelPrefix) {
			r.breaks("I5", "%s changed %s on DPU %s at %s", change.Who, change.Key, change.DPU, clock(change.Time))
		}
	}
	for _, p := range r.plugs {
		if r.inventory.foreign(p) {
			r.observe("I5")
			if !p.To.IsZero() {
				r.breaks("I5", "port %s was taken off %s, which is not ours, at %s", p.MAC, p.VPC, clock(p.To))
			}
		}
	}
}

// failClosed: unknown changes nothing: while a claim could be neither confirmed nor denied, no DPU of it was changed; and no
// proof was given that the data plane contradicts.
func (r *run) failClosed() {
	for i, a := range r.attachments {
		if a.Proven == "" || !a.Current || (i > 0 && r.sameProof(i)) || len(a.MACs) == 0 {
			continue
		}
		r.observe("I6")
		vpc := r.vpcs[a.Namespace+"/"+a.VPC]
		// Within the second of the proof, which is all a status tells, and by when the API server showed it.
		for _, mac := range a.MACs {
			on := r.onVPC(mac, vpc, a.ProvenAt, a.Seen)
			if a.Proven == "Attached" && !on {
				r.breaks("I6", "attachment %s/%s was called Attached at %s while port %s was not on %s", a.Namespace, a.Name, clock(a.ProvenAt), mac, vpc)
			}
			if a.Proven == "Detached" && r.onVPCAt(mac, vpc, a.Seen, a.Token) {
				r.breaks("I6", "attachment %s/%s was called Detached at %s while port %s was on %s", a.Namespace, a.Name, clock(a.ProvenAt), mac, vpc)
			}
		}
	}
	for i, a := range r.attachments {
		// Nobody needs leave to go, and what is gone says nothing of later claims.
		if a.Authorized != "Unknown" || a.AuthorizedSince.IsZero() || a.Asked == "Detached" || a.Deleted {
			continue
		}
		r.observe("I6")
		until := r.unknownUntil(i)
		for _, change := range r.changes {
			if slices.Contains(a.DPUs, change.DPU) && change.Time.After(a.Seen) && change.Time.Before(until) {
				r.breaks("I6", "%s on DPU %s was changed at %s while the claim of %s/%s was unknown", change.Key, change.DPU, clock(change.Time), a.Namespace, a.Name)
			}
		}
	}
}

func (r *run) sameProof(i int) bool {
	a := r.attachments[i]
	return slices.ContainsFunc(r.attachments[:i], func(b attachmentRecord) bool {
		return b.UID == a.UID && b.Proven == a.Proven && b.ProvenAt.Equal(a.ProvenAt)
	})
}

// passLag is how long before the API server showed a status the pass that wrote it may have begun, where the status does not say.
const passLag = 3 * time.Second

// unknownUntil is the end of the time for which one version's word held that the claim is unknown. The pass that learns better, or
// is asked to detach, changes the DPU before it reports; and when it learned better is when the condition changed.
func (r *run) unknownUntil(i int) time.Time {
	for _, b := range r.attachments[i+1:] {
		switch {
		case b.UID != r.attachments[i].UID:
		case b.Asked == "Detached":
			return b.Seen.Add(-passLag)
		case b.Deleted:
			return b.Seen
		case b.Authorized == "Unknown":
		case b.AuthorizedSince.IsZero() || b.AuthorizedSince.After(b.Seen):
			return b.Seen.Add(-passLag) // Whoever shifts clocks does not say when it was.
		default:
			return b.AuthorizedSince
		}
	}
	return time.Now()
}

// onVPCAt says whether the port was on the VPC at that moment for the claim: until the API server showed the proof, the next machine
// of the same tenant may have got the server. Without a journal nobody knows for whom a port was plugged.
func (r *run) onVPCAt(mac, vpc string, t time.Time, token string) bool {
	return slices.ContainsFunc(r.plugs, func(p Plug) bool {
		return p.MAC == mac && p.VPC == vpc && p.at(t) && (r.effects == nil || r.tokenAt(mac, p.From) == token)
	})
}

// onVPC says whether the port was on the VPC at any moment of a stretch.
func (r *run) onVPC(mac, vpc string, from, to time.Time) bool {
	return slices.ContainsFunc(r.plugs, func(p Plug) bool {
		return p.MAC == mac && p.VPC == vpc && !p.From.After(to) && (p.To.IsZero() || p.To.After(from))
	})
}

// honestStatus: provisioned only with MAAS Deployed and, where there are ports, proof; it never flips back; a machine that says
// Isolated really is.
func (r *run) honestStatus() {
	provisioned := map[string]bool{}
	for _, m := range r.snapshot.machines {
		if provisioned[m.UID] && !m.Provisioned && !m.Deleted {
			r.breaks("I7", "MaasMachine %s/%s was provisioned and no longer says so", m.Namespace, m.Name)
		}
		if m.Provisioned && !provisioned[m.UID] {
			provisioned[m.UID] = true
			r.observe("I7")
			if r.effects != nil && !r.reached(m.SystemID, m.Token, maasDeployed, m.Seen) {
				r.breaks("I7", "MaasMachine %s/%s was called provisioned before MAAS called server %s Deployed", m.Namespace, m.Name, m.SystemID)
			}
			if m.Ports > 0 && !r.provenAt(m.Token, "Attached", m.Seen) {
				r.breaks("I7", "MaasMachine %s/%s was called provisioned without a valid proof of attachment", m.Namespace, m.Name)
			}
		}
		if m.Isolated == "True" && m.Ports > 0 && !m.Deleted {
			r.observe("I7")
			if !r.provenAt(m.Token, "Attached", m.Seen) {
				r.breaks("I7", "MaasMachine %s/%s said Isolated at %s without a valid proof", m.Namespace, m.Name, clock(m.Seen))
			}
		}
	}
}

func (r *run) reached(systemID, token string, status int, by time.Time) bool {
	return slices.ContainsFunc(r.effects, func(e Effect) bool {
		return e.SystemID == systemID && e.To == status && e.Token == token && !e.Time.After(by)
	})
}

// tenancy: a port is on a tenant's VPC only while its server is claimed for a machine of that tenant's namespace; ports of two
// tenants never reach each other.
func (r *run) tenancy() {
	tenants := map[string]string{} // VPC in DPF's form → namespace
	for key, vpc := range r.vpcs {
		tenants[vpc], _, _ = strings.Cut(key, "/")
	}
	for _, p := range r.plugs {
		if r.inventory.foreign(p) {
			continue
		}
		r.observe("I8")
		namespace, known := tenants[p.VPC]
		if !known {
			r.breaks("I8", "port %s was plugged into %s, which no TenantVPC is", p.MAC, p.VPC)
			continue
		}
		token := r.tokenAt(p.MAC, p.From)
		if m, claimed := r.owner(token); !claimed || m.Namespace != namespace {
			r.breaks("I8", "port %s was plugged into %s of namespace %s at %s while its server was claimed for %s/%s", p.MAC, p.VPC, namespace, clock(p.From), m.Namespace, m.Name)
		}
	}
	for _, a := range r.plugs {
		for _, b := range r.plugs {
			if a.MAC >= b.MAC || !a.To.IsZero() || !b.To.IsZero() || a.VPC == b.VPC {
				continue
			}
			r.observe("I8")
			if r.fabric.Reachable(a.MAC, b.MAC) || r.fabric.Reachable(b.MAC, a.MAC) {
				r.breaksNow("I8", "port %s on %s and port %s on %s reach each other", a.MAC, a.VPC, b.MAC, b.VPC)
			}
		}
	}
}

// tokenAt is the token under which the server of a port was held at a moment.
func (r *run) tokenAt(mac string, t time.Time) string {
	token := ""
	for _, server := range r.inventory.Servers {
		if !slices.Contains(server.MACs, mac) {
			continue
		}
		for _, e := range r.effects {
			if e.SystemID != server.SystemID || e.Time.After(t) {
				continue
			}
			token = e.Token
			if e.To == maasReady || e.To == maasNew {
				token = ""
			}
		}
	}
	return token
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }
