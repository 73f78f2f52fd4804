// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const wingNamespace = "wing"

// region answers WhoAmI and lists; all else is not asked here.
type region struct {
	MAAS
	account  maas.Account
	err      error
	machines []maas.Machine

	probes, lists, owned, reads int
	listed                      []string
	during                      func()
}

func (r *region) WhoAmI(context.Context) (maas.Account, error) { r.probes++; return r.account, r.err }

func (r *region) MachinesByID(_ context.Context, ids ...string) ([]maas.Machine, error) {
	r.lists++
	r.listed = ids
	if r.during != nil {
		r.during()
	}
	return r.machines, r.err
}

func (r *region) MachinesOwnedBy(context.Context, string) ([]maas.Machine, error) {
	r.owned++
	return r.machines, r.err
}

func (r *region) Machine(_ context.Context, id string) (maas.Machine, error) {
	r.reads++
	for _, m := range r.machines {
		if m.SystemID == id {
			return m, nil
		}
	}
	return maas.Machine{}, &maas.NotFoundError{}
}

type setting struct {
	*WithT
	region     *region
	clock      *clocktesting.FakeClock
	objects    client.Client
	identities Identities
	made       []maas.Config
}

func newSetting(t *testing.T, objects ...client.Object) *setting {
	t.Helper()
	s := &setting{WithT: NewWithT(t), region: &region{account: maas.Account{Username: "capi"}}, clock: clocktesting.NewFakeClock(time.Now())}
	scheme := runtime.NewScheme()
	s.Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	s.Expect(infrav1.AddToScheme(scheme)).To(Succeed())
	s.objects = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	s.identities = NewIdentities(IdentityOptions{
		Client: s.objects, APIReader: s.objects, Namespace: wingNamespace, PollInterval: time.Second, Clock: s.clock,
		NewMAAS: func(config maas.Config) (MAAS, error) {
			s.made = append(s.made, config)
			if _, err := maas.New(config); err != nil {
				return nil, err
			}
			return s.region, nil
		},
	})
	return s
}

func anIdentity() *infrav1.MaasClusterIdentity {
	return &infrav1.MaasClusterIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: "lab", UID: "1", Generation: 1},
		Spec:       infrav1.MaasClusterIdentitySpec{Endpoint: "https://maas.example/MAAS", SecretRef: infrav1.LocalSecretReference{Name: "key"}},
	}
}

func aSecret(value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "key"}, Data: map[string][]byte{IdentitySecretKey: []byte(value)}}
}

const goodKey = "ConsumerKey:TokenKey:TokenSecret"

func TestUnusableIdentities(t *testing.T) {
	cases := map[string]struct {
		objects []client.Object
		err     error
		account maas.Account
		reason  string
	}{
		"no identity":           {reason: infrav1.IdentityNotFoundReason},
		"no Secret":             {objects: []client.Object{anIdentity()}, reason: infrav1.SecretNotFoundReason},
		"empty Secret":          {objects: []client.Object{anIdentity(), aSecret("")}, reason: infrav1.SecretInvalidReason},
		"malformed key":         {objects: []client.Object{anIdentity(), aSecret("only:TokenSecret")}, reason: infrav1.SecretInvalidReason},
		"key refused":           {objects: []client.Object{anIdentity(), aSecret(goodKey)}, err: &maas.UnauthorizedError{}, reason: infrav1.CredentialsRefusedReason},
		"clock skewed":          {objects: []client.Object{anIdentity(), aSecret(goodKey)}, err: &maas.ClockSkewError{Behind: time.Hour}, reason: infrav1.ClockSkewReason},
		"MAAS unreachable":      {objects: []client.Object{anIdentity(), aSecret(goodKey)}, err: &maas.UnavailableError{Err: errors.New("refused")}, reason: infrav1.MaasUnreachableReason},
		"an administrator's":    {objects: []client.Object{anIdentity(), aSecret(goodKey)}, account: maas.Account{Username: "root", Superuser: true}, reason: infrav1.AccountTooPowerfulReason},
		"Secret in another one": {objects: []client.Object{anIdentity(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "key"}}}, reason: infrav1.SecretNotFoundReason},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSetting(t, c.objects...)
			s.region.err = c.err
			if c.account.Username != "" {
				s.region.account = c.account
			}
			_, err := s.identities.Get(t.Context(), "lab")
			unusable, ok := AsUnusable(err)
			s.Expect(ok).To(BeTrue(), "%v", err)
			s.Expect(unusable.Reason).To(Equal(c.reason))
			for _, secret := range []string{"TokenSecret", "TokenKey"} {
				s.Expect(strings.Contains(unusable.Error(), secret)).To(BeFalse())
			}
		})
	}
}

// TestAnotherAccountsKeyIsRefused: with it MAAS would call every server of the identity somebody else's.
func TestAnotherAccountsKeyIsRefused(t *testing.T) {
	identity := anIdentity()
	identity.Status.Account = "capi"
	s := newSetting(t, identity, aSecret(goodKey))
	s.region.account = maas.Account{Username: "somebody"}
	_, err := s.identities.Get(t.Context(), "lab")
	unusable, ok := AsUnusable(err)
	s.Expect(ok).To(BeTrue(), "%v", err)
	s.Expect(unusable.Reason).To(Equal(infrav1.AccountChangedReason))
	s.Expect(unusable.Message).To(ContainSubstring("put a key of capi into its Secret"))

	s.region.account = maas.Account{Username: "capi"}
	s.clock.Step(time.Minute)
	_, err = s.identities.Get(t.Context(), "lab")
	s.Expect(err).NotTo(HaveOccurred())
}

func TestAdministratorAllowed(t *testing.T) {
	identity := anIdentity()
	identity.Spec.AllowAdmin = ptr.To(true)
	s := newSetting(t, identity, aSecret(goodKey))
	s.region.account = maas.Account{Username: "root", Superuser: true}
	got, err := s.identities.Get(t.Context(), "lab")
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(got.Account).To(Equal("root"))
}

func TestClientsAreKeptUntilSomethingChanges(t *testing.T) {
	s := newSetting(t, anIdentity(), aSecret(goodKey))
	get := func() *Identity {
		t.Helper()
		got, err := s.identities.Get(t.Context(), "lab")
		s.Expect(err).NotTo(HaveOccurred())
		return got
	}
	first := get()
	s.Expect(get().Readings).To(BeIdenticalTo(first.Readings))
	s.clock.Step(time.Minute)
	get()
	s.Expect(s.made).To(HaveLen(1))
	s.Expect(s.region.probes).To(Equal(1), "MAAS is asked once who we are")

	secret := aSecret("")
	s.Expect(s.objects.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)).To(Succeed())
	secret.Data[IdentitySecretKey] = []byte("Other:Rotated:Credentials")
	s.Expect(s.objects.Update(t.Context(), secret)).To(Succeed())
	s.clock.Step(credentialsMaxAge)
	get()
	s.Expect(s.made).To(HaveLen(2), "a rotated key is picked up")
	s.Expect(s.made[1].APIKey.Equal(maas.NewAPIKey("Other:Rotated:Credentials"))).To(BeTrue())

	identity := anIdentity()
	s.Expect(s.objects.Get(t.Context(), client.ObjectKeyFromObject(identity), identity)).To(Succeed())
	identity.Generation = 2
	identity.Spec.Deadlines.CallSeconds = ptr.To[int32](7)
	s.region.machines = []maas.Machine{{SystemID: "m"}}
	_, err := first.Readings.Machine(t.Context(), "m", 0)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(s.objects.Update(t.Context(), identity)).To(Succeed())
	_, err = get().Readings.Machine(t.Context(), "m", 0)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(s.region.lists).To(Equal(2), "what was read before does not count")
	s.Expect(s.made).To(HaveLen(3), "a changed spec is picked up at once")
	s.Expect(s.made[2].Timeout).To(Equal(7 * time.Second))

	s.Expect(s.objects.Delete(t.Context(), secret)).To(Succeed())
	s.clock.Step(credentialsMaxAge)
	_, err = s.identities.Get(t.Context(), "lab")
	unusable, ok := AsUnusable(err)
	s.Expect(ok && unusable.Reason == infrav1.SecretNotFoundReason).To(BeTrue(), "what was read before is not used on")
}

func TestAFailedProbeIsNotRepeatedByEveryMachine(t *testing.T) {
	s := newSetting(t, anIdentity(), aSecret(goodKey))
	s.region.err = &maas.UnavailableError{Err: errors.New("refused")}
	for range 10 {
		_, err := s.identities.Get(t.Context(), "lab")
		s.Expect(err).To(HaveOccurred())
	}
	s.Expect(s.region.probes).To(Equal(1))
	s.region.err = nil
	s.clock.Step(probeBackoff)
	_, err := s.identities.Get(t.Context(), "lab")
	s.Expect(err).NotTo(HaveOccurred())
}

func TestFabricAccess(t *testing.T) {
	s := newSetting(t, anIdentity(), aSecret(goodKey), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "bad"}, Data: map[string][]byte{FabricAccessSecretKey: []byte("SecretWord")},
	})
	local, err := s.identities.FabricAccess(t.Context(), anIdentity())
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(local.Remote).To(BeFalse())
	s.Expect(local.Namespace("red")).To(Equal("red"))

	for name, reason := range map[string]string{"none": infrav1.SecretNotFoundReason, "bad": infrav1.SecretInvalidReason} {
		identity := anIdentity()
		identity.Spec.FabricAccess = &infrav1.FabricAccess{SecretRef: infrav1.LocalSecretReference{Name: name}, Namespace: "there"}
		_, err := s.identities.FabricAccess(t.Context(), identity)
		unusable, ok := AsUnusable(err)
		s.Expect(ok && unusable.Reason == reason).To(BeTrue(), "%s: %v", name, err)
		s.Expect(err.Error()).NotTo(ContainSubstring("SecretWord"))
	}
}
