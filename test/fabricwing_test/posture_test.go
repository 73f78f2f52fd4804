// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bmcsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const (
	bmcUsername = "root"
	bmcPassword = "correct horse"
)

// bmcs are those of a test's servers, and the fabric's way to them.
type bmcs struct {
	*wing
	site *bmcsim.Site
}

// newBMCs has the shared fabric ask for posture until the test ends.
func newBMCs(w *wing, mode infrav1.PostureMode) *bmcs {
	w.t.Helper()
	site, err := bmcsim.New()
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { w.Expect(site.Close()).To(Succeed()) })
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "bmc-" + strings.ToLower(w.t.Name())},
		Data:       map[string][]byte{"username": []byte(bmcUsername), "password": []byte(bmcPassword)},
	}
	w.Expect(world.Hub.Create(w.t.Context(), secret)).To(Succeed())
	asked, err := json.Marshal(map[string]any{"spec": map[string]any{"posture": map[string]any{
		"mode": mode, "caBundle": base64.StdEncoding.EncodeToString(site.CA()), "secretRef": map[string]any{"name": secret.Name},
	}}})
	w.Expect(err).NotTo(HaveOccurred())
	w.changeFabric(string(asked), `{"spec":{"posture":{"mode":"Off","caBundle":null,"secretRef":null}}}`)
	w.t.Cleanup(func() { _ = world.Hub.Delete(context.WithoutCancel(w.t.Context()), secret) })
	return &bmcs{wing: w, site: site}
}

// server has a DPU with a BMC that says of itself what change does.
func (b *bmcs) server(change func(*bmcsim.State)) (dpfsim.DPU, *bmcsim.BMC) {
	b.t.Helper()
	var bmc *bmcsim.BMC
	d := b.newServer(func(d *dpfsim.DPU) {
		var err error
		bmc, err = b.site.Add(bmcsim.Card{SerialNumber: d.Serial, MAC: d.PF0MAC, Username: bmcUsername, Password: bmcPassword})
		b.Expect(err).NotTo(HaveOccurred())
		bmc.Set(change)
		d.BMC = bmc.Address()
	})
	b.t.Cleanup(func() {
		for _, request := range bmc.Requests() {
			session := strings.HasPrefix(request.Path, "/redfish/v1/SessionService/Sessions")
			b.Expect(request.Method == http.MethodGet || session).To(BeTrue(), "the wing sent %s %s to a BMC", request.Method, request.Path)
		}
	})
	return d, bmc
}

// result of a check as the DPUServer tells it.
func (b *bmcs) result(d dpfsim.DPU, check posture.Check) func() string {
	return func() string {
		server := b.wing.server(d)
		if err := world.Hub.Get(b.t.Context(), client.ObjectKeyFromObject(server), server); err != nil {
			return err.Error()
		}
		for _, result := range server.Status.Posture {
			if result.Name == string(check) && result.ObservedAt != nil && result.Message != "" {
				return string(result.Status)
			}
		}
		return ""
	}
}

func good(*bmcsim.State)          {}
func rshimOpen(s *bmcsim.State)   { s.HostRshim = "Enabled" }
func rshimClosed(s *bmcsim.State) { s.HostRshim = "Disabled" }
func privileged(s *bmcsim.State)  { s.PrivilegeMode, s.HostPrivilegeLevel = "Privileged", "Privileged" }
func unprivileged(s *bmcsim.State) {
	s.PrivilegeMode, s.HostPrivilegeLevel = "Restricted", "Restricted"
}

// TestPostureEnforced follows a server through a life: refused until its BMC is as it should be, kept by its tenant when it is
// that no more, and not handed out again before it is repaired.
func TestPostureEnforced(t *testing.T) {
	w := newWing(t)
	b := newBMCs(w, infrav1.PostureEnforce)
	d, bmc := b.server(rshimOpen)
	server := w.server(d)
	w.Eventually(w.reason(server, infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.PostureFailedReason))
	w.Expect(server.Status.Eligibility).To(Equal(infrav1.Ineligible))
	w.Expect(b.result(d, posture.HostRShimDisabled)()).To(Equal("False"))
	w.Expect(b.result(d, posture.SecureBoot)()).To(Equal("True"))

	w.newTenant("red", "posture")
	other, _ := b.server(good)
	beside := w.attach("red", "beside", "posture", "beside", other.SystemID, w.claim("red", "beside", other.SystemID))
	w.Eventually(w.proven(beside)).Should(Equal(attachedState), "the VPC takes ports, those of good servers")
	a := w.attach("red", "posture", "posture", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.reason(a, infrav1.PostureVerifiedCondition)).Should(Equal("False/" + infrav1.PostureFailedReason))
	w.Expect(conditions.Get(a, infrav1.PostureVerifiedCondition).Message).To(And(ContainSubstring("HostRShimDisabled (Enforce)"), ContainSubstring(d.Device), ContainSubstring("HostRshim.Set")))
	w.Consistently(w.proven(a)).ShouldNot(Equal(attachedState))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{}), "something was written for a server that is refused")

	bmc.Set(rshimClosed)
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Expect(w.reason(a, infrav1.PostureVerifiedCondition)()).To(Equal("True/" + infrav1.PostureVerifiedReason))

	// A manager that starts anew asks again; the tenant keeps its ports whatever the answer is.
	bmc.Set(privileged)
	w.stop()
	w.start()
	w.Eventually(w.reason(a, infrav1.PostureVerifiedCondition)).Should(Equal("False/" + infrav1.PostureFailedReason))
	w.touch(a)
	w.Consistently(w.proven(a)).Should(Equal(attachedState))
	w.Expect(w.reason(a, infrav1.ReadyCondition)()).To(Equal("True/" + infrav1.ReadyReason))
	w.Expect(plugged(d)).To(BeTrue())

	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState), "what a BMC says does not change the proof")
	w.Eventually(w.reason(server, infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.PostureFailedReason))
	w.Expect(w.reason(server, infrav1.FreeCondition)()).To(HavePrefix("True/"))
	w.Expect(server.Status.Eligibility).To(Equal(infrav1.Ineligible))
	w.Expect(b.result(d, posture.HostPrivilegeRestricted)()).To(Equal("False"))
	bmc.Set(unprivileged)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.detach(beside)
	w.Eventually(w.proven(beside)).Should(Equal(detachedState))
}

// TestPostureIsReadForEachTenant: what was good a moment ago, before the server was claimed, counts for nobody after.
func TestPostureIsReadForEachTenant(t *testing.T) {
	w := newWing(t)
	b := newBMCs(w, infrav1.PostureEnforce)
	d, bmc := b.server(good)
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	w.newTenant("red", "each")
	a := w.attach("red", "first", "each", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	// While the tenant has the server it loosens the card; nobody asks, because the last reading is young.
	bmc.Set(rshimOpen)
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
	w.Eventually(w.reason(w.server(d), infrav1.ReadyCondition)).Should(Equal("False/" + infrav1.PostureFailedReason))
	second := w.attach("red", "second", "each", "n", d.SystemID, w.claim("red", "n", d.SystemID))
	w.Eventually(w.reason(second, infrav1.PostureVerifiedCondition)).Should(Equal("False/" + infrav1.PostureFailedReason))
	w.Expect(writes(d)).To(Equal(dpfsim.WriteCount{Attach: 2, Detach: 2}))
}

// TestPostureUnknown: a BMC that cannot be asked, or is not the one that should be, refuses as a bad one does.
func TestPostureUnknown(t *testing.T) {
	w := newWing(t)
	b := newBMCs(w, infrav1.PostureEnforce)
	w.newTenant("red", "unknown")
	known, _ := b.server(good)
	beside := w.attach("red", "known", "unknown", "known", known.SystemID, w.claim("red", "known", known.SystemID))
	w.Eventually(w.proven(beside)).Should(Equal(attachedState), "the VPC takes ports, those of good servers")
	gone, bmc := b.server(good)
	w.Expect(bmc.Close()).To(Succeed())
	silent := w.newServer(nil)
	other, _ := b.server(func(s *bmcsim.State) { s.SerialNumber = "MT99999" })
	locked, _ := b.server(func(s *bmcsim.State) { s.Password = "another" })
	foreign, strange := b.server(good)
	w.Expect(strange.SetCertificate(bmcsim.Certificate{SelfSigned: true})).To(Succeed())
	for name, c := range map[string]struct {
		d       dpfsim.DPU
		reason  string
		message string
	}{
		"gone":    {gone, "Unknown/" + infrav1.PostureUnknownReason, "cannot be reached"},
		"silent":  {silent, "Unknown/" + infrav1.PostureUnknownReason, "bmcIp"},
		"other":   {other, "False/" + infrav1.PostureFailedReason, "MT99999"},
		"locked":  {locked, "Unknown/" + infrav1.PostureUnknownReason, "renew username and password"},
		"foreign": {foreign, "Unknown/" + infrav1.PostureUnknownReason, strange.Fingerprint()},
	} {
		a := w.attach("red", "unknown-"+name, "unknown", name, c.d.SystemID, w.claim("red", name, c.d.SystemID))
		w.Eventually(w.reason(a, infrav1.PostureVerifiedCondition)).Should(Equal(c.reason), name)
		message := conditions.Get(a, infrav1.PostureVerifiedCondition).Message
		w.Expect(message).To(ContainSubstring(c.message), name)
		w.Expect(message).NotTo(ContainSubstring(bmcPassword), name)
		w.Eventually(w.eligibility(c.d)).ShouldNot(Equal(infrav1.Eligible), name)
		w.Consistently(func() dpfsim.WriteCount { return writes(c.d) }).Should(Equal(dpfsim.WriteCount{}), name)
	}
	w.detach(beside)
	w.Eventually(w.proven(beside)).Should(Equal(detachedState))
}

// TestPostureWarned says what it finds and hands the server over.
func TestPostureWarned(t *testing.T) {
	w := newWing(t)
	b := newBMCs(w, infrav1.PostureWarn)
	d, _ := b.server(rshimOpen)
	w.newTenant("red", "warned")
	w.Eventually(b.result(d, posture.HostRShimDisabled)).Should(Equal("False"))
	w.Eventually(w.eligibility(d)).Should(Equal(infrav1.Eligible))
	a := w.attach("red", "warned", "warned", "m", d.SystemID, w.claim("red", "m", d.SystemID))
	w.Eventually(w.proven(a)).Should(Equal(attachedState))
	w.Eventually(w.reason(a, infrav1.PostureVerifiedCondition)).Should(Equal("False/" + infrav1.PostureWarningReason))
	w.Expect(w.reason(a, infrav1.ReadyCondition)()).To(Equal("True/" + infrav1.ReadyReason))
	w.Eventually(func() bool {
		list := &eventsv1.EventList{}
		if err := world.Hub.List(t.Context(), list, client.InNamespace("red")); err != nil {
			return false
		}
		for _, event := range list.Items {
			if event.Regarding.Name == a.Name && event.Reason == infrav1.PostureWarningReason && event.Type == corev1.EventTypeWarning {
				return strings.Contains(event.Note, "HostRShimDisabled (Warn)")
			}
		}
		return false
	}).Should(BeTrue(), "nobody was warned")
	w.detach(a)
	w.Eventually(w.proven(a)).Should(Equal(detachedState))
}
