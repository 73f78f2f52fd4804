// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// surplusClaim is how two servers came to be allocated under one token, and which one is kept.
type surplusClaim struct {
	// recorded is the server in the status, if any.
	recorded string
	// second says how far the second server got before the wing started; the first one is allocated.
	second progress
	kept   string
	// stays is true where the other one is never released by the wing: it was used, and an operator has to.
	stays bool
}

// progress is how far a server of a lost allocation got.
type progress int

const (
	allocated progress = iota
	attached
	deploying
	deployed
)

var surplusClaims = map[string]surplusClaim{
	"none recorded, the lowest ID is kept":                  {kept: serverID(0)},
	"the recorded one is kept, though it is not the lowest": {recorded: serverID(1), kept: serverID(1)},
	"none recorded, the deployed one is kept":               {second: deployed, kept: serverID(1)},
	"none recorded, the one that deploys is kept":           {second: deploying, kept: serverID(1)},
	"the other one is attached and stays":                   {recorded: serverID(0), second: attached, kept: serverID(0), stays: true},
	"the other one deploys and stays":                       {recorded: serverID(0), second: deploying, kept: serverID(0), stays: true},
	"the other one is deployed and stays":                   {recorded: serverID(0), second: deployed, kept: serverID(0), stays: true},
}

// TestSurplusClaims starts the wing on two servers that were allocated under one token, as two lost answers leave them.
func TestSurplusClaims(t *testing.T) {
	for name, claim := range surplusClaims {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim.play(t)
		})
	}
}

func (c surplusClaim) play(t *testing.T) {
	w := newStoppedWorld(t, options{servers: 2, plain: c.second != attached, ports: c.second == attached})
	token, err := maas.NewToken(rand.Reader, tenant, machineName)
	w.Expect(err).NotTo(HaveOccurred())
	w.unchecked(func() {
		w.changeMachine(func(m *infrav1.MaasMachine) {
			m.Spec.Claim = &infrav1.MachineClaim{Token: token, IdentityName: "identity", Source: source}
		})
		w.bring(token, serverID(0), allocated)
		w.bring(token, serverID(1), c.second)
		if c.recorded != "" {
			m := w.machine()
			conditions.Set(m, metav1.Condition{Type: infrav1.ServerClaimedCondition, Status: metav1.ConditionTrue, Reason: infrav1.ClaimedReason})
			m.Status.SystemID = c.recorded
			w.Expect(w.objects.Status().Update(w.Context(), m)).To(Succeed())
		}
	})
	surplus := serverID(0)
	if c.kept == surplus {
		surplus = serverID(1)
	}
	w.supervise()
	if c.second == deploying && !c.stays {
		w.until(func() bool { return w.server(c.kept).Annotations[maas.AnnotationToken] != "" }, "kept")
		w.drive("deployed", c.kept)
	}
	w.until(w.provisioned, "up")
	w.Expect(w.machine().Status.SystemID).To(Equal(c.kept))
	if c.stays {
		w.quiet()
		w.expectUntouched(surplus, time.Time{})
		w.Expect(w.server(surplus).Owner).To(Equal(account))
		w.clear(surplus)
	} else {
		w.until(func() bool { return w.server(surplus).StatusName == "Ready" }, "the other is given back")
		w.Expect(w.journal("release", surplus)).To(HaveLen(1))
		w.Expect(w.journal("release", surplus)[0].Erase).To(BeEmpty(), "it was never used")
	}
	w.live()
}

// clear is the operator taking a server off its VPC and giving it back.
func (w *world) clear(id string) {
	w.Helper()
	for _, a := range w.attachments() {
		if a.Spec.Server.SystemID == id {
			change(w, &a, func(a *infrav1.DPUAttachment) { a.Spec.State = infrav1.AttachmentStateDetached })
			w.Expect(w.objects.Delete(w.Context(), &a)).To(Succeed())
		}
	}
	w.until(func() bool {
		return !slices.ContainsFunc(w.attachments(), func(a infrav1.DPUAttachment) bool { return a.Spec.Server.SystemID == id })
	}, "detached")
	w.Expect(w.as("admin").Release(w.Context(), id, maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.until(func() bool { return w.server(id).StatusName == "Ready" }, "released by the operator")
}

// expectUntouched expects that the machine wing changed nothing of a server after a moment.
func (w *world) expectUntouched(id string, since time.Time) {
	w.Helper()
	for _, c := range w.gate.history() {
		if c.process != "" && c.systemID == id && slices.Contains(mutating, c.operation) && c.at.After(since) {
			w.Errorf("%s was sent to server %s", c.operation, id)
		}
	}
}

// bring allocates a server under a token; whatever else happened to it was an administrator's doing.
func (w *world) bring(token, id string, how progress) {
	w.Helper()
	_, err := w.as(account).Allocate(w.Context(), token, maas.Constraints{SystemIDs: []string{id}}, "")
	w.Expect(err).NotTo(HaveOccurred())
	switch how {
	case allocated:
	case attached:
		w.create(&infrav1.DPUAttachment{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: maasmachine.AttachmentName(token, id)},
			Spec: infrav1.DPUAttachmentSpec{
				State: infrav1.AttachmentStateAttached, Server: infrav1.AttachmentServer{Source: source, SystemID: id, Token: token},
				MachineName: machineName, VPCName: "vpc", Ports: w.machine().Spec.Ports,
			},
		})
	default:
		if how == deploying {
			// Until it is driven on.
			w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployHangs, Operation: "deploy", SystemID: id})
		}
		_, err := w.as("admin").Deploy(w.Context(), id, maas.DeployRequest{UserData: []byte(userData)})
		w.Expect(err).NotTo(HaveOccurred())
		if how == deployed {
			w.Eventually(func() string { return w.server(id).StatusName }).WithTimeout(patience).Should(Equal("Deployed"))
		}
	}
}
