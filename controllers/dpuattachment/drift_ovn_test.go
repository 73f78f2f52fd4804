// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// ovnDriftRow is one row of the book's table of what changes in OVN under a running tenant.
type ovnDriftRow struct {
	name, happens string
	change        func(*observation)
	// sees is a condition, says a part of its message.
	sees, says string
	powerOff   string
}

const (
	offAtOnce = "at once"
	offLater  = "when the proof is too old"
	offNever  = "no"
)

func own(o *observation) *vpc.Binding { return &o.ovn.Bindings[len(o.ovn.Bindings)-1] }

var ovnDriftRows = []ovnDriftRow{
	{"The port's Port_Binding is gone", "Waited for: DPF's service makes it again. The tenant is cut off meanwhile.", unbind,
		"False/EvidenceMissing", "has no Port_Binding", offLater},
	{"No chassis claims the port", "Waited for: the DPU's ovn-controller claims it again. The tenant is cut off meanwhile.", func(o *observation) { own(o).Chassis = "" },
		"False/EvidenceMissing", "claimed by no chassis", offLater},
	{"The port is not up", "As above.", func(o *observation) { own(o).Up = false },
		"False/EvidenceMissing", "has not programmed it", offLater},
	{"The port has another MAC address, or may carry any", "Not touched: the operator looks who changed the northbound database.", func(o *observation) { own(o).MACs = []string{"unknown"} },
		"False/EvidenceMissing", "any MAC address", offLater},
	{"Another chassis claims the port", "Not touched: two DPUs claim the same port, and the tenant's traffic goes to either. The operator looks at the DPU named.", func(o *observation) { own(o).Chassis = "dpu-d2" },
		"False/EvidenceMissing", "claimed by chassis dpu-d2 instead of dpu-d1", offAtOnce},
	{"The port is on the switch of another network", "Not touched: the operator looks who changed the northbound database.", func(o *observation) { own(o).Switch = "dpf_theirs_netSwitch" },
		"False/EvidenceMissing", "another switch", offAtOnce},
	{"The DPU's chassis claims a port nobody asked for", "As above. Whose it is, is not told to the tenant.", func(o *observation) { o.ovn.Bindings[1].Chassis = "dpu-d1" },
		"False/EvidenceMissing", "claims a port nobody asked for", offAtOnce},
	{"The southbound database cannot be read", "The last proof stands until `proofMaxAgeSeconds`. Nothing is written.", ovnAway,
		"Unknown/EvidenceMissing", "southbound database cannot be read", offNever},
	{"A controller hangs, also the DPU's own", "Nothing: no barrier is raised for a proof that is renewed, so that nobody sees it.", func(o *observation) { o.ovn.Chassis = chassis(2, 2, 1) },
		"True/Attached", "", offNever},
}

// String is the row as the book has it.
func (r ovnDriftRow) String() string {
	return fmt.Sprintf("| %s | `Attached=%s` | %s | %s |", r.name, r.sees, r.powerOff, r.happens)
}

// TestOVNDrift plays each row, and holds the book to it.
func TestOVNDrift(t *testing.T) {
	var lines []string
	for _, row := range ovnDriftRows {
		lines = append(lines, row.String())
		t.Run(row.name, func(t *testing.T) {
			running := func(age time.Duration) decision {
				o := scene().running(t).asked(unknown).proven(infrav1.EvidenceBarrier).bound(true)
				o.attachment.Status.ProvenAt = ptr.To(metav1.NewTime(now.Add(-age)))
				o.fabric.Object.Spec.OnIsolationLost = infrav1.IsolationLostPowerOff
				row.change(o)
				return decide(o)
			}
			d, late := running(time.Minute), running(time.Hour)
			if got := string(d.attached.status) + "/" + d.attached.reason; got != row.sees || !strings.Contains(d.attached.message, row.says) || strings.Contains(d.attached.message, "theirs") {
				t.Errorf("Attached is %s: %s", got, d.attached.message)
			}
			if d.powerOff != (row.powerOff == offAtOnce) || late.powerOff != (row.powerOff != offNever) {
				t.Errorf("power off at once: %t, late: %t", d.powerOff, late.powerOff)
			}
			if d.write != nil || d.raise != nil {
				t.Errorf("writes %+v, raises %+v", d.write, d.raise)
			}
		})
	}
	text, err := os.ReadFile(faultBook)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| What changes in OVN | The operator sees | `PowerOff` | What happens |\n|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if written := strings.TrimSpace(table); written != strings.Join(lines, "\n") {
		t.Errorf("the table of what changes in OVN in %s is not what is played; it should be\n%s", faultBook, strings.Join(lines, "\n"))
	}
}
