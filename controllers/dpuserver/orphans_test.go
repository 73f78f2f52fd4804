// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

const orphanToken = "v1.00112233445566778899aabbccddeeff.00112233445566778899aabbccddeeff"

// attached is a pass over a fabric of one server, whose card is attached as its attachment asks.
func attached(t *testing.T) *observation {
	t.Helper()
	c := goodCard()
	holder := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: maas.TokenHash(orphanToken), Plugged: true}
	c.recorded(t, holder)
	c.evidence.Carriers[0].Labels = map[string]string{vpc.VPCKey: "v", vpc.PortKey(0): "n"}
	c.evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "dpf_v"
	return &observation{
		now: now, fabric: &infrav1.DPUFabric{}, inventory: vpc.Finding{Answer: vpc.Yes}, cards: []card{c},
		servers: []server{{source: "s", systemID: "abc", cards: []card{c}}},
		attachments: []infrav1.DPUAttachment{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "a"},
			Spec:       infrav1.DPUAttachmentSpec{State: infrav1.AttachmentStateAttached, Server: infrav1.AttachmentServer{Token: orphanToken}},
		}},
	}
}

func TestOrphans(t *testing.T) {
	onNetwork := func(c *card) {
		c.evidence.Interfaces = []svcv1alpha1.ServiceInterface{{Spec: svcv1alpha1.InterfaceSpec{PF: &svcv1alpha1.PF{VirtualNetwork: ptr.To("n")}}}}
	}
	bare := func(o *observation) *card {
		o.cards[0].evidence.Carriers = []vpc.Carrier{{Kind: "DPU"}}
		delete(o.cards[0].evidence.Node.Labels, vpcv1alpha1.NodeVPCLabel)
		return &o.cards[0]
	}
	for _, tc := range []struct {
		name   string
		change func(*observation)
		want   string
	}{
		{"as its attachment asks", func(*observation) {}, ""},
		{"no attachment", func(o *observation) { o.attachments = nil }, infrav1.OrphanPortNoAttachment},
		{"an attachment of that name in another namespace", func(o *observation) { o.attachments[0].Namespace = "blue" }, infrav1.OrphanPortNoAttachment},
		{"an attachment of another token", func(o *observation) {
			o.attachments[0].Spec.Server.Token = strings.Replace(orphanToken, "00", "11", 1)
		}, infrav1.OrphanPortAnotherClaim},
		{"on its way off", func(o *observation) { o.attachments[0].Spec.State = infrav1.AttachmentStateDetached }, ""},
		{"proven detached and yet held", func(o *observation) {
			o.attachments[0].Spec.State = infrav1.AttachmentStateDetached
			o.attachments[0].Status.State, o.attachments[0].Status.TokenHash = infrav1.AttachmentStateDetached, maas.TokenHash(orphanToken)
		}, infrav1.OrphanPortDetachedYetHeld},
		{"of another installation", func(o *observation) {
			o.attachments = nil
			o.cards[0].recorded(t, vpc.Holder{Installation: "j", Namespace: "red", Attachment: "a", TokenHash: "h"})
		}, ""},
		{"an unreadable record", func(o *observation) {
			o.cards[0].evidence.Carriers[0].Annotations[vpc.HolderAnnotation] = "{"
		}, infrav1.OrphanPortUnreadableRecord},
		{"the second place has the record", func(o *observation) {
			o.attachments = nil
			o.cards[0].evidence.Carriers = append([]vpc.Carrier{{Kind: "DPUDevice"}}, o.cards[0].evidence.Carriers...)
		}, infrav1.OrphanPortNoAttachment},
		{"labels without a record", func(o *observation) { o.cards[0].evidence.Carriers[0].Annotations = nil }, infrav1.OrphanPortNoRecord},
		{"only on a network", func(o *observation) { onNetwork(bare(o)) }, infrav1.OrphanPortOnNetwork},
		{"only marked", func(o *observation) { bare(o).evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, infrav1.OrphanPortOnNetwork},
		{"on a network, of no server of ours", func(o *observation) {
			onNetwork(bare(o))
			o.servers = nil
		}, ""},
		{"no server of ours, our record", func(o *observation) { o.servers, o.attachments = nil, nil }, infrav1.OrphanPortNoAttachment},
		{"leaving, and DPF slow to take labels off", func(o *observation) {
			o.attachments[0].Spec.State = infrav1.AttachmentStateDetached
			past := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: maas.TokenHash(orphanToken), Detached: true}
			o.cards[0].recorded(t, past)
			o.cards[0].evidence.Node.Labels[vpc.VPCKey] = "v"
		}, ""},
		{"left, and labels came back", func(o *observation) {
			o.attachments = nil
			past := vpc.Holder{Installation: "i", Namespace: "red", Attachment: "a", TokenHash: maas.TokenHash(orphanToken), Detached: true}
			o.cards[0].recorded(t, past)
			o.cards[0].evidence.Node.Labels[vpc.VPCKey] = "v"
		}, infrav1.OrphanPortNoRecord},
		{"free", func(o *observation) { bare(o) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := attached(t)
			tc.change(o)
			first := verify(o, "i", nil, nil, time.Minute)
			if len(first.orphans) > 0 {
				t.Fatalf("told at the first look: %+v", first.orphans)
			}
			o.now = now.Add(59 * time.Second)
			if second := verify(o, "i", first.doubts, nil, time.Minute); len(second.orphans) > 0 {
				t.Fatalf("told before the grace was over: %+v", second.orphans)
			}
			o.now = now.Add(time.Minute)
			got := ""
			for _, orphan := range verify(o, "i", first.doubts, nil, time.Minute).orphans {
				got += orphan.Reason
				if !orphan.Since.Time.Equal(now) || orphan.DPUDevice != "d1" {
					t.Errorf("got %+v", orphan)
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestOrphanMemory takes nothing back that cannot be read, and starts over where something else is wrong than before.
func TestOrphanMemory(t *testing.T) {
	o := attached(t)
	o.attachments = nil
	listed := verify(o, "i", map[string]doubt{"d1": {orphan: infrav1.OrphanPort{Reason: infrav1.OrphanPortNoAttachment, Attachment: "red/a"}, first: now.Add(-time.Hour)}}, nil, time.Minute)
	if len(listed.orphans) != 1 || listed.orphans[0].Server != "s.abc" || listed.orphans[0].VPCMark != "dpf_v" || listed.orphans[0].Attachment != "red/a" {
		t.Fatalf("got %+v", listed.orphans)
	}
	if again := verify(o, "i", nil, listed.orphans, time.Minute); len(again.orphans) != 1 || !again.orphans[0].Since.Equal(&listed.orphans[0].Since) {
		t.Errorf("after a restart: %+v", again.orphans)
	}
	other := verify(o, "i", map[string]doubt{"d1": {orphan: infrav1.OrphanPort{Reason: infrav1.OrphanPortNoRecord}, first: now.Add(-time.Hour)}}, nil, time.Minute)
	if len(other.orphans) != 0 || len(other.doubts) != 1 {
		t.Errorf("another doubt counted as the first look: %+v", other)
	}
	away := attached(t)
	away.cards[0].evidence.Carriers = []vpc.Carrier{{Kind: "DPU"}}
	away.cards[0].evidence.ClusterError = errors.New("away")
	onNetwork := []infrav1.OrphanPort{{DPUDevice: "d1", Reason: infrav1.OrphanPortOnNetwork, Since: metav1.NewTime(now)}}
	if kept := verify(away, "i", nil, onNetwork, time.Minute); len(kept.orphans) != 1 || len(kept.unread) != 1 {
		t.Errorf("taken back although the DPU cluster is away: %+v", kept)
	}
}

func TestFabricConditions(t *testing.T) {
	reason := func(fabric *infrav1.DPUFabric, kind string) string {
		c := conditions.Get(fabric, kind)
		return string(c.Status) + "/" + c.Reason
	}
	many := verdict{}
	for i := range infrav1.MaxOrphanPorts + 1 {
		many.orphans = append(many.orphans, infrav1.OrphanPort{DPUDevice: fmt.Sprintf("d%d", i), Reason: infrav1.OrphanPortNoRecord})
	}
	for _, tc := range []struct {
		name  string
		found verdict
		want  string
	}{
		{"nothing", verdict{}, "True/Accounted"},
		{"a doubt", verdict{doubts: map[string]doubt{"d": {}}}, "Unknown/AuditPending"},
		{"a DPU cluster away", verdict{unread: []string{"d"}}, "Unknown/DPUClusterUnreachable"},
		{"more than are listed", many, "False/OrphansFound"},
	} {
		fabric := &infrav1.DPUFabric{}
		describeOrphans(fabric, tc.found)
		if got := reason(fabric, infrav1.AccountedCondition); got != tc.want || len(fabric.Status.Orphans) > infrav1.MaxOrphanPorts {
			t.Errorf("%s: %s, %d listed", tc.name, got, len(fabric.Status.Orphans))
		}
	}
	fabric := &infrav1.DPUFabric{}
	o := attached(t)
	o.ignored = []string{"Not.An.ID"}
	describeInventory(fabric, o)
	if got := conditions.Get(fabric, infrav1.InventoryReadCondition); got.Status != metav1.ConditionTrue || !strings.Contains(got.Message, "Not.An.ID") {
		t.Errorf("got %+v", got)
	}
	o.inventory = unreachable(errors.New("no answer"))
	describeInventory(fabric, o)
	if got := reason(fabric, infrav1.InventoryReadCondition); got != "Unknown/FabricUnreachable" {
		t.Errorf("got %s", got)
	}
}
