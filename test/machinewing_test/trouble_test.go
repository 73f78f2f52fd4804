// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// says reports whether a condition has a reason.
func (w *world) says(condition, reason string) func() bool {
	return func() bool {
		m := w.machine()
		return m != nil && conditions.GetReason(m, condition) == reason
	}
}

// quiet holds that nothing changes in MAAS while the machine is reconciled again and again.
func (w *world) quiet() {
	w.Helper()
	before := len(w.region.Journal())
	for range 20 {
		w.step()
	}
	w.Expect(w.region.Journal()).To(HaveLen(before), "MAAS is left alone")
}

func (w *world) changeIdentity(change func(*infrav1.MaasClusterIdentity)) {
	w.Helper()
	identity := &infrav1.MaasClusterIdentity{}
	w.Expect(w.objects.Get(w.Context(), client.ObjectKey{Name: "identity"}, identity)).To(Succeed())
	change(identity)
	identity.Generation++
	w.Expect(w.objects.Update(w.Context(), identity)).To(Succeed())
}

// stranger is somebody else's client of the same MAAS.
func (w *world) as(key string) *maas.Client {
	w.Helper()
	c, err := maas.New(maas.Config{Endpoint: w.address, APIKey: maas.NewAPIKey(key)})
	w.Expect(err).NotTo(HaveOccurred())
	w.Cleanup(c.Close)
	return c
}

func TestRefusedServersAreGivenBackUndeployedAndAvoided(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 3, ports: true})
	w.refuse[serverID(0)] = infrav1.ForeignVPCReason
	w.refuse[serverID(1)] = infrav1.DPUNotReadyReason
	w.until(w.provisioned, "up")
	w.expectUp()
	w.Expect(w.machine().Status.SystemID).To(Equal(serverID(2)))
	for i := range 2 {
		s := w.server(serverID(i))
		w.Expect(s.StatusName).To(Equal("Ready"))
		w.Expect(s.OSInstalled || s.Dirty).To(BeFalse())
	}
	for _, effect := range w.region.Journal() {
		if effect.Operation == "release" {
			w.Expect(effect.Erase).To(BeEmpty(), "what never carried a tenant is not erased")
		}
	}
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

func TestAllServersRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 7, ports: true})
	for i := range 7 {
		w.refuse[serverID(i)] = infrav1.UnaccountedPortReason
	}
	w.until(w.says(infrav1.ReadyCondition, infrav1.AttachmentRefusedReason), "given up")
	w.Expect(w.machine().Status.AvoidedServers).To(HaveLen(5))
	w.Expect(w.owned()).To(BeEmpty())
	w.quiet()
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

func TestFailedDeploymentsTryAnotherServerThenSayDeployFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 4, ports: true})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", Count: 2})
	w.until(w.says(infrav1.ReadyCondition, infrav1.DeployFailedReason), "given up")
	m := w.machine()
	w.Expect(m.Status.AvoidedServers).To(HaveLen(2))
	w.Expect(m.Spec.ProviderID).To(BeEmpty())
	w.Expect(w.owned()).To(BeEmpty())
	for _, s := range w.region.Machines() {
		w.Expect(s.Dirty).To(BeFalse(), "a failed deployment is erased")
	}
	w.quiet()
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

func TestOneFailedDeployment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultDeployFails, Operation: "deploy", Count: 1})
	w.until(w.provisioned, "up")
	w.Expect(w.machine().Status.AvoidedServers).To(HaveLen(1))
	w.Expect(w.owned()).To(HaveLen(1))
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

func TestUnprovenDetachHoldsUntilProofComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	w.unproven = true
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	w.until(func() bool { return w.server(id).Annotations[maas.AnnotationHold] != "" }, "annotated")
	w.Expect(w.server(id).PoweredOn).To(BeFalse())
	w.Expect(w.server(id).StatusName).To(Equal("Deployed"))
	w.Expect(w.count("release")).To(BeZero())
	w.quiet()
	w.unproven = false
	w.until(w.gone, "down")
	w.expectDown()
}

func TestAbandonEndsInHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	w.unproven = true
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	m := w.machine()
	m.Spec.Override = &infrav1.MachineOverride{Override: infrav1.Override{Action: infrav1.OverrideAbandon, By: "olga", Reason: "DPU replaced"}}
	w.Expect(w.objects.Update(w.Context(), m)).To(Succeed())
	w.until(w.gone, "abandoned")
	s := w.server(id)
	w.Expect(s.Owner).To(Equal(account), "the server stays allocated")
	w.Expect(s.Annotations[maas.AnnotationHold]).NotTo(BeEmpty())
	w.Expect(s.PoweredOn).To(BeFalse())
	w.Expect(w.count("release")).To(BeZero())
}

func TestFailedEraseHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	mend := w.region.Inject(maassim.Fault{Kind: maassim.FaultEraseFails, Operation: "release"})
	w.remove()
	w.until(w.says(infrav1.ReleasedCondition, infrav1.HeldReason), "held")
	w.until(func() bool { return w.server(id).Annotations[maas.AnnotationHold] == infrav1.EraseFailedReason }, "annotated")
	w.Expect(w.server(id).Owner).To(Equal(account))
	mend()
	w.until(w.gone, "erased by a later try")
	w.expectDown()
}

func TestServerLostBehindOurBackIsNeverTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	id := w.machine().Status.SystemID
	// Somebody with our key releases it, and somebody else takes it.
	w.Expect(w.as(accountKey).Release(w.Context(), id, maas.ReleaseRequest{Erase: maas.EraseQuick})).To(Succeed())
	w.Eventually(func() string { return w.server(id).StatusName }).WithTimeout(5 * time.Second).Should(Equal("Ready"))
	_, err := w.as(strangerKey).Allocate(w.Context(), "stranger", maas.Constraints{}, "")
	w.Expect(err).NotTo(HaveOccurred())

	w.until(w.says(infrav1.ReadyCondition, infrav1.ServerLostReason), "noticed")
	w.Expect(w.provisioned()).To(BeTrue(), "what was promised is not taken back")
	w.quiet()
	w.remove()
	w.until(w.gone, "down")
	w.Expect(w.server(id).Owner).To(Equal("stranger"))
	w.Expect(w.violations).To(BeEmpty())
	_, exists := w.proven(id)
	w.Expect(exists).To(BeFalse(), "the attachment is detached and gone")
}

func TestSurplusServerIsGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 3, ports: true})
	w.until(func() bool { m := w.machine(); return m.Spec.Claim != nil }, "claim")
	// Two answers of an earlier life were lost.
	for range 2 {
		_, err := w.as(accountKey).Allocate(w.Context(), w.machine().Spec.Claim.Token, maas.Constraints{}, "")
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.restart(0)
	w.until(w.provisioned, "up")
	w.expectUp()
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

func TestDeletedRightAfterALostAllocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 2, ports: true})
	w.region.Inject(maassim.Fault{Kind: maassim.FaultLateCommit, Delay: window / 2, Operation: "allocate", Count: 1})
	w.until(w.says(infrav1.ServerClaimedCondition, infrav1.AllocateOutcomeUnknownReason), "lost")
	w.remove()
	w.until(w.gone, "down")
	w.Expect(w.count("allocate")).To(Equal(1), "the allocation came late")
	w.expectDown()
}

func TestNoServerThenOneIsFreed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	other := w.as(strangerKey)
	taken, err := other.Allocate(w.Context(), "stranger", maas.Constraints{}, "")
	w.Expect(err).NotTo(HaveOccurred())
	w.until(w.says(infrav1.ReadyCondition, infrav1.NoServerAvailableReason), "waiting")
	w.Expect(other.Release(w.Context(), taken.SystemID, maas.ReleaseRequest{Erase: maas.EraseNone})).To(Succeed())
	w.until(w.provisioned, "up")
	w.expectUp()
}

func TestConstraintsThatCanNeverMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	m := w.machine()
	m.Spec.Tags = []string{"no-such-tag"}
	w.Expect(w.objects.Update(w.Context(), m)).To(Succeed())
	w.until(w.says(infrav1.ReadyCondition, infrav1.ConstraintsNeverMatchReason), "said")
	w.Expect(w.owned()).To(BeEmpty())
	w.remove()
	w.until(w.gone, "down")
}

func TestPlainMachinesNeverGetServersWithDPUs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 3, identity: optional})
	w.until(w.says(infrav1.ReadyCondition, infrav1.NoServerAvailableReason), "waiting")
	w.quiet()
}

func TestIsolationRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, plain: true})
	w.until(w.says(infrav1.ReadyCondition, infrav1.IsolationRequiredReason), "said")
	w.quiet()
	w.Expect(w.machine().Spec.Claim).To(BeNil())
}

func TestLostProofBlocksDeployAndTurnsIsolatedUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	list := &infrav1.DPUAttachmentList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	a := &list.Items[0]
	a.Status.ValidUntil = &metav1.Time{Time: time.Now().Add(-time.Minute)}
	w.Expect(w.objects.Status().Update(w.Context(), a)).To(Succeed())
	_, err := w.process.reconciler.Reconcile(w.Context(), request())
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(conditions.IsUnknown(w.machine(), infrav1.IsolatedCondition)).To(BeTrue())
	w.Expect(w.provisioned()).To(BeTrue())
}
