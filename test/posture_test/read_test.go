// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture_test

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bmcsim"
)

// TestAGoodCard is read with one session, which is ended, and with nothing but GET besides.
func TestAGoodCard(t *testing.T) {
	y := newYard(t)
	bmc, card := y.card(1)
	reading := y.read(card, y.access(), limits)
	y.Expect(reading.Err).NotTo(HaveOccurred())
	y.Expect(answers(reading)).To(Equal(all(answer.Yes)))
	y.Expect(reading.Good()).To(BeTrue())
	y.Expect(bmc.Sessions()).To(BeZero(), "a session was left open")
	writes := map[string]int{}
	for _, request := range bmc.Requests() {
		y.Expect(request.Code).To(BeNumerically("<", 300), "%s %s", request.Method, request.Path)
		if request.Method != http.MethodGet {
			writes[request.Method]++
			y.Expect(request.Path).To(HavePrefix("/redfish/v1/SessionService/Sessions"))
		}
	}
	y.Expect(writes).To(Equal(map[string]int{http.MethodPost: 1, http.MethodDelete: 1}))
	y.Expect(bmc.Requests()).To(HaveLen(8))
}

// TestWhatACardSays has every state a card may be in, and the answer that follows.
func TestWhatACardSays(t *testing.T) {
	y := newYard(t)
	bmc, card := y.card(1)
	good := bmcsim.State{}
	bmc.Set(func(s *bmcsim.State) { good = *s })
	without := func(ends ...string) func(*bmcsim.State) {
		return func(s *bmcsim.State) { s.NotThere = ends }
	}
	missing := func(names ...string) func(*bmcsim.State) {
		return func(s *bmcsim.State) { s.Missing = names }
	}
	fault := func(f bmcsim.Fault) func(*bmcsim.State) {
		return func(s *bmcsim.State) { s.Faults = []bmcsim.Fault{f} }
	}
	const config, nvidia, bios, boot = "/HostPrivilegeConfig", "/Systems/Bluefield/Oem/Nvidia", "/Bios", "/SecureBoot"
	for name, c := range map[string]struct {
		change func(*bmcsim.State)
		check  posture.Check
		want   answer.Answer
	}{
		"mode NIC":                       {func(s *bmcsim.State) { s.Mode = "NicMode" }, posture.DPUMode, answer.No},
		"mode unavailable":               {func(s *bmcsim.State) { s.Mode = "Unavailable" }, posture.DPUMode, answer.Unknown},
		"mode DPU, CPU separated":        {func(s *bmcsim.State) { s.InternalCPUModel = "Separated" }, posture.DPUMode, answer.No},
		"mode DPU, CPU NIC":              {func(s *bmcsim.State) { s.InternalCPUModel = "NicMode" }, posture.DPUMode, answer.No},
		"mode DPU, CPU unavailable":      {func(s *bmcsim.State) { s.InternalCPUModel = "Unavailable" }, posture.DPUMode, answer.Yes},
		"mode missing, CPU embedded":     {missing("Mode"), posture.DPUMode, answer.Yes},
		"mode and CPU missing":           {missing("Mode", "InternalCPUModel"), posture.DPUMode, answer.Unknown},
		"mode missing, CPU separated":    {func(s *bmcsim.State) { s.Mode, s.InternalCPUModel = "", "Separated" }, posture.DPUMode, answer.No},
		"mode missing, CPU unavailable":  {func(s *bmcsim.State) { s.Mode, s.InternalCPUModel = "", "Unavailable" }, posture.DPUMode, answer.Unknown},
		"old spelling, mode missing":     {func(s *bmcsim.State) { s.OldSpelling, s.Mode = true, "" }, posture.DPUMode, answer.Yes},
		"old spelling, NIC":              {func(s *bmcsim.State) { s.OldSpelling, s.InternalCPUModel = true, "NicMode" }, posture.DPUMode, answer.No},
		"privileged":                     {func(s *bmcsim.State) { s.PrivilegeMode = "Privileged" }, posture.HostPrivilegeRestricted, answer.No},
		"privileged by BIOS":             {func(s *bmcsim.State) { s.HostPrivilegeLevel = "Privileged" }, posture.HostPrivilegeRestricted, answer.No},
		"BIOS unavailable":               {func(s *bmcsim.State) { s.HostPrivilegeLevel = "Unavailable" }, posture.HostPrivilegeRestricted, answer.Yes},
		"privilege unavailable":          {func(s *bmcsim.State) { s.PrivilegeMode = "Unavailable" }, posture.HostPrivilegeRestricted, answer.Unknown},
		"privilege of another kind":      {func(s *bmcsim.State) { s.PrivilegeMode = "Custom" }, posture.HostPrivilegeRestricted, answer.Unknown},
		"older, restricted":              {without(config), posture.HostPrivilegeRestricted, answer.Yes},
		"older, missing":                 {func(s *bmcsim.State) { without(config)(s); s.Missing = []string{"HostPrivilegeLevel"} }, posture.HostPrivilegeRestricted, answer.Unknown},
		"older, privileged":              {func(s *bmcsim.State) { without(config)(s); s.HostPrivilegeLevel = "Privileged" }, posture.HostPrivilegeRestricted, answer.No},
		"older, unavailable":             {func(s *bmcsim.State) { without(config)(s); s.HostPrivilegeLevel = "Unavailable" }, posture.HostPrivilegeRestricted, answer.Unknown},
		"old spelling, restricted":       {func(s *bmcsim.State) { without(config)(s); s.OldSpelling = true }, posture.HostPrivilegeRestricted, answer.Yes},
		"old spelling, privileged":       {func(s *bmcsim.State) { without(config)(s); s.OldSpelling, s.HostPrivilegeLevel = true, "Privileged" }, posture.HostPrivilegeRestricted, answer.No},
		"no privilege anywhere":          {without(config, bios), posture.HostPrivilegeRestricted, answer.Unknown},
		"privilege 500, BIOS restricted": {fault(bmcsim.Fault{Kind: bmcsim.Status, Path: config, Code: 500}), posture.HostPrivilegeRestricted, answer.Unknown},
		"RShim on":                       {func(s *bmcsim.State) { s.HostRshim = "Enabled" }, posture.HostRShimDisabled, answer.No},
		"RShim unavailable":              {func(s *bmcsim.State) { s.HostRshim = "Unavailable" }, posture.HostRShimDisabled, answer.Unknown},
		"RShim missing":                  {missing("HostRshim"), posture.HostRShimDisabled, answer.Unknown},
		"RShim not there":                {without(nvidia), posture.HostRShimDisabled, answer.Unknown},
		"secure boot off":                {func(s *bmcsim.State) { s.CurrentBoot = "Disabled" }, posture.SecureBoot, answer.No},
		"secure boot missing":            {missing("SecureBootCurrentBoot"), posture.SecureBoot, answer.Unknown},
		"secure boot unavailable":        {func(s *bmcsim.State) { s.CurrentBoot = "Unavailable" }, posture.SecureBoot, answer.Unknown},
		"secure boot not there":          {without(boot), posture.SecureBoot, answer.Unknown},
		"secure boot 500":                {fault(bmcsim.Fault{Kind: bmcsim.Status, Path: boot, Code: 500}), posture.SecureBoot, answer.Unknown},
		"secure boot forbidden":          {fault(bmcsim.Fault{Kind: bmcsim.Status, Path: boot, Code: 403}), posture.SecureBoot, answer.Unknown},
		"secure boot cut":                {fault(bmcsim.Fault{Kind: bmcsim.Cut, Path: boot}), posture.SecureBoot, answer.Unknown},
		"secure boot garbage":            {fault(bmcsim.Fault{Kind: bmcsim.Garbage, Path: boot}), posture.SecureBoot, answer.Unknown},
		"secure boot redirected":         {fault(bmcsim.Fault{Kind: bmcsim.Redirect, Path: boot, To: "https://192.0.2.1/"}), posture.SecureBoot, answer.Unknown},
	} {
		bmc.Set(func(s *bmcsim.State) { *s = good; c.change(s); omit(s) })
		reading := y.read(card, y.access(), limits)
		y.Expect(reading.Result(c.check).Answer).To(Equal(c.want), "%s: %s", name, reading.Result(c.check).Message)
		for check, got := range answers(reading) {
			if check != c.check && c.want == answer.No {
				y.Expect(got).To(Equal(answer.Yes), "%s: %s", name, reading.Result(check).Message)
			}
			y.Expect(reading.Result(check).Message).NotTo(BeEmpty(), name)
			y.Expect(reading.Result(check).Message).NotTo(ContainSubstring("here is the secret"), "a message repeats what the BMC wrote")
		}
		y.Expect(bmc.Sessions()).To(BeZero(), "%s: a session was left open", name)
	}
}

// omit leaves out what a test emptied, as a BMC does.
func omit(s *bmcsim.State) {
	if s.Mode == "" {
		s.Missing = append(s.Missing, "Mode")
	}
}

// TestAnotherCard behind the address says nothing of this one, however good it is.
func TestAnotherCard(t *testing.T) {
	y := newYard(t)
	bmc, card := y.card(1)
	want := all(answer.Unknown)
	want[posture.Identity] = answer.No
	bmc.Set(func(s *bmcsim.State) { s.SerialNumber = "MT99999" })
	reading := y.read(card, y.access(), limits)
	y.Expect(answers(reading)).To(Equal(want))
	y.Expect(reading.Result(posture.Identity).Message).To(ContainSubstring("MT99999"))

	for name, change := range map[string]func(*bmcsim.State){
		"no serial number": func(s *bmcsim.State) { s.Missing = []string{"SerialNumber"} },
		"no Card1":         func(s *bmcsim.State) { s.NotThere = []string{"/Card1"} },
	} {
		bmc.Set(func(s *bmcsim.State) { s.SerialNumber = card.SerialNumber; change(s) })
		y.Expect(answers(y.read(card, y.access(), limits))).To(Equal(all(answer.Unknown)), name)
	}
}

// TestNoAnswer has the ways of a BMC not to answer. None takes longer than it may, and nothing is known after it.
func TestNoAnswer(t *testing.T) {
	y := newYard(t)
	bmc, card := y.card(1)
	for name, fault := range map[string]bmcsim.Fault{
		"hangs": {Kind: bmcsim.Hang}, "drips": {Kind: bmcsim.Drip}, "pours": {Kind: bmcsim.Huge}, "fails": {Kind: bmcsim.Status, Code: 500},
		"redirects": {Kind: bmcsim.Redirect, To: "https://192.0.2.1/redfish/v1/"}, "garbles": {Kind: bmcsim.Garbage}, "cuts": {Kind: bmcsim.Cut},
	} {
		bmc.Set(func(s *bmcsim.State) { s.Faults = []bmcsim.Fault{fault} })
		began := time.Now()
		reading := y.read(card, y.access(), short)
		y.Expect(answers(reading)).To(Equal(all(answer.Unknown)), name)
		y.Expect(time.Since(began)).To(BeNumerically("<", patience), name)
		y.Expect(reading.Err).To(HaveOccurred(), name)
		if name == "pours" {
			y.Expect(reading.Err.Error()).To(ContainSubstring("more than a megabyte"))
		}
	}
	y.Expect(bmc.Close()).To(Succeed())
	reading := y.read(card, y.access(), limits)
	y.Expect(answers(reading)).To(Equal(all(answer.Unknown)))
	var unreachable *posture.UnreachableError
	y.Expect(reading.Err).To(BeAssignableToTypeOf(unreachable))
}

// TestTheModeThatTimesOut is BMC firmware BF-24.04-5 in NIC mode: the resource that would say so never answers, the BIOS does.
func TestTheModeThatTimesOut(t *testing.T) {
	y := newYard(t)
	bmc, card := y.card(1)
	bmc.Set(func(s *bmcsim.State) {
		s.InternalCPUModel = "NicMode"
		s.Faults = []bmcsim.Fault{{Kind: bmcsim.Hang, Path: "/Systems/Bluefield/Oem/Nvidia"}}
	})
	patient := posture.Limits{Request: time.Second, Total: 20 * time.Second}
	reading := y.read(card, y.access(), patient)
	y.Expect(reading.Result(posture.DPUMode).Answer).To(Equal(answer.No))
	y.Expect(reading.Result(posture.HostRShimDisabled).Answer).To(Equal(answer.Unknown))
	y.Expect(reading.Result(posture.SecureBoot).Answer).To(Equal(answer.Yes))
	bmc.Set(func(s *bmcsim.State) { s.InternalCPUModel = "Embedded" })
	reading = y.read(card, y.access(), patient)
	y.Expect(reading.Result(posture.DPUMode).Answer).To(Equal(answer.Unknown), "a resource that timed out is not one that is not there")
	y.Eventually(bmc.Sessions).Should(BeZero(), "a session was left open")
}

// TestTrust has the certificates a BMC may show.
func TestTrust(t *testing.T) {
	y := newYard(t)
	other := newYard(t)
	bmc, card := y.card(1)
	const unpinned = "0000000000000000000000000000000000000000000000000000000000000000"
	for name, c := range map[string]struct {
		certificate bmcsim.Certificate
		ca          []byte
		pin         string
		accepted    bool
	}{
		"CA":                          {ca: y.site.CA(), accepted: true},
		"another CA":                  {ca: other.site.CA()},
		"the system's CAs":            {},
		"self-signed":                 {certificate: bmcsim.Certificate{SelfSigned: true}, ca: y.site.CA()},
		"self-signed, pinned":         {certificate: bmcsim.Certificate{SelfSigned: true}, pin: "its own", accepted: true},
		"self-signed, other pin":      {certificate: bmcsim.Certificate{SelfSigned: true}, pin: unpinned},
		"pinned besides another CA":   {certificate: bmcsim.Certificate{SelfSigned: true}, ca: other.site.CA(), pin: "its own", accepted: true},
		"CA besides another pin":      {ca: y.site.CA(), pin: unpinned, accepted: true},
		"expired":                     {certificate: bmcsim.Certificate{Expired: true}, ca: y.site.CA()},
		"expired, pinned":             {certificate: bmcsim.Certificate{SelfSigned: true, Expired: true}, pin: "its own"},
		"other name":                  {certificate: bmcsim.Certificate{OtherName: true}, ca: y.site.CA()},
		"other name, pinned":          {certificate: bmcsim.Certificate{OtherName: true}, pin: "its own", accepted: true},
		"no CA, another pin, good":    {pin: unpinned},
		"nothing that is a CA bundle": {ca: []byte("no PEM")},
	} {
		y.Expect(bmc.SetCertificate(c.certificate)).To(Succeed())
		before := len(bmc.Requests())
		access := y.access()
		access.Trust = posture.Trust{CABundle: c.ca}
		switch c.pin {
		case "":
		case "its own":
			access.Trust.PinnedCertificates = []string{bmc.Fingerprint()}
		default:
			access.Trust.PinnedCertificates = []string{c.pin}
		}
		reading := y.read(card, access, limits)
		if c.accepted {
			y.Expect(answers(reading)).To(Equal(all(answer.Yes)), "%s: %v", name, reading.Err)
			continue
		}
		y.Expect(answers(reading)).To(Equal(all(answer.Unknown)), name)
		y.Expect(bmc.Requests()).To(HaveLen(before), "%s: something was sent to a BMC that is not verified", name)
	}
	// The system's CAs decide where the fabric says nothing, and nowhere else.
	bmc, err := system.Add(bmcsim.Card{SerialNumber: card.SerialNumber, Username: username, Password: password})
	y.Expect(err).NotTo(HaveOccurred())
	card.BMC = bmc.Address()
	for name, c := range map[string]struct {
		trust posture.Trust
		want  answer.Answer
	}{
		"nothing said": {want: answer.Yes},
		"pins":         {trust: posture.Trust{PinnedCertificates: []string{unpinned}}},
		"a CA":         {trust: posture.Trust{CABundle: y.site.CA()}},
	} {
		access := y.access()
		access.Trust = c.trust
		y.Expect(answers(y.read(card, access, limits))).To(Equal(all(c.want)), name)
	}
	// What was pinned is no more what is shown.
	y.Expect(bmc.SetCertificate(bmcsim.Certificate{SelfSigned: true})).To(Succeed())
	access := y.access()
	access.Trust = posture.Trust{PinnedCertificates: []string{bmc.Fingerprint()}}
	y.Expect(answers(y.read(card, access, limits))).To(Equal(all(answer.Yes)))
	y.Expect(bmc.SetCertificate(bmcsim.Certificate{SelfSigned: true})).To(Succeed())
	reading := y.read(card, access, limits)
	var refused *posture.CertificateError
	y.Expect(reading.Err).To(BeAssignableToTypeOf(refused))
	y.Expect(reading.Err.Error()).To(ContainSubstring(bmc.Fingerprint()), "the operator is to be told what to compare and pin")
}

// TestLogins has the ways to be let in, and not to be.
func TestLogins(t *testing.T) {
	y := newYard(t)
	bmc, card := y.card(1)
	wrong := y.access()
	wrong.Credentials = posture.NewCredentials(username, "not it")
	reading := y.read(card, wrong, limits)
	y.Expect(answers(reading)).To(Equal(all(answer.Unknown)))
	var refused *posture.CredentialsError
	y.Expect(reading.Err).To(BeAssignableToTypeOf(refused))
	y.Expect(reading.Err.Error()).NotTo(ContainSubstring("not it"))
	y.Expect(bmc.Requests()).To(HaveLen(2), "refused credentials are not tried in another way: BMCs count")

	// A BMC that has no session to give lets in with each request.
	bmc.Set(func(s *bmcsim.State) { s.NoSessions = true })
	y.Expect(answers(y.read(card, y.access(), limits))).To(Equal(all(answer.Yes)))
	basic := 0
	for _, request := range bmc.Requests() {
		if request.Login == "basic" {
			basic++
		}
	}
	y.Expect(basic).To(Equal(5))
	reading = y.read(card, wrong, limits)
	y.Expect(answers(reading)).To(Equal(all(answer.Unknown)))

	// Never to another host, whatever the BMC asks for.
	bmc.Set(func(s *bmcsim.State) {
		s.NoSessions = false
		s.Faults = []bmcsim.Fault{{Kind: bmcsim.Redirect, Method: http.MethodPost, To: "https://127.0.0.1:1/redfish/v1/SessionService/Sessions"}}
	})
	reading = y.read(card, y.access(), limits)
	y.Expect(answers(reading)).To(Equal(all(answer.Unknown)))
	y.Expect(reading.Err.Error()).To(ContainSubstring("redirects"))
}

// TestNoAddress is a card of which DPF does not say where its BMC is.
func TestNoAddress(t *testing.T) {
	y := newYard(t)
	d := &desk{access: y.access()}
	readings := posture.NewReadings(posture.Options{Access: d.get})
	t.Cleanup(readings.Close)
	card := posture.Card{Device: "mt1", SerialNumber: "MT1", BMC: netip.AddrPort{}}
	since := time.Now()
	y.Eventually(func() bool { _, known := readings.Latest(card, since, true); return known }).Should(BeTrue())
	reading, _ := readings.Latest(card, since, true)
	y.Expect(reading.Result(posture.Identity).Message).To(ContainSubstring("bmcIp"))
	y.Expect(answers(reading)).To(Equal(all(answer.Unknown)))
}
