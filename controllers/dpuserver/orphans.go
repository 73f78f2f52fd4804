// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"cmp"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// doubt is an orphan that is to be seen twice: DPF and the API server were not read at the same moment.
type doubt struct {
	orphan infrav1.OrphanPort
	first  time.Time
}

// verdict is what a pass says of all DPUs of a fabric.
type verdict struct {
	orphans []infrav1.OrphanPort
	// doubts are to be looked at once more.
	doubts map[string]doubt
	// unread are DPUs of which a part could not be read.
	unread []string
}

// verify compares what was seen with the attachments, with the doubts of the pass before and with what is listed already. What
// cannot be read takes nothing back.
func verify(o *observation, installation string, doubts map[string]doubt, listed []infrav1.OrphanPort, grace time.Duration) verdict {
	v := verdict{doubts: map[string]doubt{}}
	found := map[string]infrav1.OrphanPort{}
	for i := range o.cards {
		c := &o.cards[i]
		name := c.member.CardName()
		known := slices.IndexFunc(listed, func(p infrav1.OrphanPort) bool { return p.DPUDevice == name })
		orphan, is := o.judgeCard(c, installation)
		if _, joined := c.member.ClusterKey(); joined && c.evidence.ClusterError != nil {
			v.unread = append(v.unread, name)
			if !is && known >= 0 {
				found[name] = listed[known]
				continue
			}
		}
		if _, twice := found[name]; !is || twice {
			continue
		}
		first := doubt{orphan: orphan, first: o.now}
		if before, seen := doubts[name]; seen && before.orphan.Reason == orphan.Reason && before.orphan.Attachment == orphan.Attachment {
			first.first = before.first
		}
		switch {
		case known >= 0 && listed[known].Reason == orphan.Reason && listed[known].Attachment == orphan.Attachment:
			orphan.Since = listed[known].Since
			found[name] = orphan
		case o.now.Sub(first.first) >= grace:
			orphan.Since = metav1.NewTime(first.first.Truncate(time.Second))
			found[name] = orphan
		default:
			v.doubts[name] = first
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		v.orphans = append(v.orphans, found[name])
	}
	slices.SortStableFunc(v.orphans, func(a, b infrav1.OrphanPort) int { return cmp.Compare(a.Since.Unix(), b.Since.Unix()) })
	return v
}

// judgeCard says whether a DPU is attached with nobody who asked for it. Records of other installations are theirs to judge.
func (o *observation) judgeCard(c *card, installation string) (orphan infrav1.OrphanPort, is bool) {
	orphan = infrav1.OrphanPort{DPUDevice: c.member.CardName(), Server: o.serverOf(c), VPCMark: c.evidence.Mark()}
	if c.member.DPU != nil {
		orphan.DPU = c.member.DPU.Name
	}
	recorded, leaving := false, false
	for _, carrier := range c.evidence.Carriers {
		holder, there, err := vpc.HolderOf(carrier.Annotations)
		switch {
		case err != nil:
			orphan.Reason = infrav1.OrphanPortUnreadableRecord
			return orphan, true
		case !there:
			continue
		case !holder.Holds():
			// DPF takes a while to take the last labels off the Node: the attachment waits for it.
			leaving = leaving || holder.Installation == installation && o.disowned(holder) == ""
			continue
		}
		recorded = true
		if reason := o.disowned(holder); holder.Installation == installation && reason != "" {
			orphan.Reason, orphan.Attachment = reason, bounded(holder.Namespace+"/"+holder.Attachment, 320)
			return orphan, true
		}
	}
	switch {
	case recorded, leaving:
		return orphan, false
	case c.evidence.Labelled():
		orphan.Reason = infrav1.OrphanPortNoRecord
	case orphan.Server != "" && (orphan.VPCMark != "" || c.evidence.OnNetwork()):
		orphan.Reason = infrav1.OrphanPortOnNetwork
	default:
		return orphan, false
	}
	return orphan, true
}

// disowned says why no attachment stands behind a record; empty if one does.
func (o *observation) disowned(holder vpc.Holder) string {
	i := slices.IndexFunc(o.attachments, func(a infrav1.DPUAttachment) bool {
		return a.Namespace == holder.Namespace && a.Name == holder.Attachment
	})
	switch {
	case i < 0:
		return infrav1.OrphanPortNoAttachment
	case maas.TokenHash(o.attachments[i].Spec.Server.Token) != holder.TokenHash:
		return infrav1.OrphanPortAnotherClaim
	case o.attachments[i].Spec.State == infrav1.AttachmentStateDetached && provenDetached(&o.attachments[i]):
		return infrav1.OrphanPortDetachedYetHeld
	}
	return ""
}

// serverOf is the DPUServer of a card; empty if it has none.
func (o *observation) serverOf(c *card) string {
	name := c.member.CardName()
	for i := range o.servers {
		if slices.ContainsFunc(o.servers[i].cards, func(other card) bool { return other.member.CardName() == name }) {
			return bounded(o.servers[i].name(), 253)
		}
	}
	return ""
}

// bounded cuts what others wrote to what a status takes.
func bounded(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most]
}
