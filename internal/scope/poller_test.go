// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// wingWithPoller is a wing with identities a and b, each with a fleet of its own, whose poller runs until the test ends.
type wingWithPoller struct {
	*WithT
	clock      *clocktesting.FakeClock
	objects    client.Client
	identities *identities
	fleets     map[string]*fleet
	forgotten  chan string
	stop       func()
}

func newWingWithPoller(t *testing.T) *wingWithPoller {
	t.Helper()
	w := &wingWithPoller{
		WithT: NewWithT(t), clock: clocktesting.NewFakeClock(time.Now()), fleets: map[string]*fleet{}, forgotten: make(chan string, 10),
	}
	scheme := runtime.NewScheme()
	w.Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	w.Expect(infrav1.AddToScheme(scheme)).To(Succeed())
	w.objects = fake.NewClientBuilder().WithScheme(scheme).WithObjects(aSecret(goodKey)).Build()
	for _, name := range []string{"a", "b"} {
		w.fleets[name] = newFleet(3)
		w.Expect(w.objects.Create(t.Context(), identityNamed(name, name))).To(Succeed())
	}
	made := NewIdentities(IdentityOptions{
		Client: w.objects, APIReader: w.objects, Namespace: wingNamespace, PollInterval: 5 * time.Second, Clock: w.clock,
		NewMAAS:   func(config maas.Config) (MAAS, error) { return w.fleets[config.Endpoint[len(config.Endpoint)-1:]], nil },
		Forgotten: func(name string) { w.forgotten <- name },
	})
	w.identities = made.(*identities)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	poller := made.Poller()
	w.Expect(poller.(manager.LeaderElectionRunnable).NeedLeaderElection()).To(BeTrue())
	go func() { ended <- poller.Start(ctx) }()
	w.stop = func() {
		cancel()
		w.Eventually(ended).Should(Receive(BeNil()), "all goroutines end with the context")
	}
	t.Cleanup(cancel)
	return w
}

func identityNamed(name, uid string) *infrav1.MaasClusterIdentity {
	return &infrav1.MaasClusterIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid), Generation: 1},
		Spec: infrav1.MaasClusterIdentitySpec{
			Endpoint: "https://maas.example/MAAS/" + name, SecretRef: infrav1.LocalSecretReference{Name: "key"},
		},
	}
}

func (w *wingWithPoller) get(t *testing.T, name string) *Identity {
	t.Helper()
	identity, err := w.identities.Get(t.Context(), name)
	w.Expect(err).NotTo(HaveOccurred())
	return identity
}

// pass lets time pass until something is so.
func (w *wingWithPoller) pass(until func() bool, explanation ...any) {
	w.Eventually(func() bool {
		if until() {
			return true
		}
		w.clock.Step(100 * time.Millisecond)
		return false
	}).WithPolling(time.Millisecond).WithTimeout(10*time.Second).Should(BeTrue(), explanation...)
}

func TestThePollerWakesWhoWatches(t *testing.T) {
	w := newWingWithPoller(t)
	readings := w.get(t, "a").Readings
	readings.Watch("m0", types.NamespacedName{Namespace: "red", Name: "worker"})
	_, err := readings.Machine(t.Context(), "m0", 0)
	w.Expect(err).NotTo(HaveOccurred())
	w.pass(func() bool { return w.fleets["a"].count(askEvents) > 0 })
	w.fleets["a"].become("m0", maas.StatusReleasing)
	var woken client.Object
	w.pass(func() bool {
		select {
		case event := <-w.identities.Wakes():
			woken = event.Object
			return true
		default:
			return false
		}
	})
	w.Expect(client.ObjectKeyFromObject(woken)).To(Equal(types.NamespacedName{Namespace: "red", Name: "worker"}))
	w.stop()
}

// TestThePollerWakesWhoWaitsForAServer: a poll after MAAS had nothing free one of those who wait is told to ask again.
func TestThePollerWakesWhoWaitsForAServer(t *testing.T) {
	w := newWingWithPoller(t)
	turns := w.get(t, "a").Allocations
	grant, _ := turns.Take(Turn{Machine: named("a1"), Wants: "gpu"}, nil)
	grant.Done(OutcomeRefused)
	start := w.clock.Now()
	w.pass(func() bool {
		select {
		case event := <-w.identities.Wakes():
			return event.Object.GetName() == "a1"
		default:
			return false
		}
	})
	w.Expect(w.clock.Now().Sub(start)).To(BeNumerically("<", 3*w.identities.PollInterval))
	w.stop()
}

// TestOneThatHangsDelaysNoOther: b is polled and changes are told while a's MAAS answers nothing.
func TestOneThatHangsDelaysNoOther(t *testing.T) {
	w := newWingWithPoller(t)
	for _, name := range []string{"a", "b"} {
		readings := w.get(t, name).Readings
		readings.Watch("m0", types.NamespacedName{Namespace: name, Name: "m0"})
		_, err := readings.Machine(t.Context(), "m0", 0)
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.fleets["a"].hang(askEvents)
	w.fleets["a"].hang(askByID)
	w.pass(func() bool { return w.fleets["a"].count(askEvents) > 0 })
	w.fleets["b"].forget()
	for n := range 5 {
		w.fleets["b"].become("m0", maas.StatusReleasing+maas.Status(n%2))
		w.pass(func() bool {
			select {
			case event := <-w.identities.Wakes():
				return event.Object.GetNamespace() == "b"
			default:
				return false
			}
		}, "change %d is not told", n)
		_, err := w.get(t, "b").Readings.Machine(t.Context(), "m0", 0)
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.stop()
}

// TestIdentitiesThatAreGoneLeaveNothing: a poller that runs forgets them, and so does whoever asks for one in vain.
func TestIdentitiesThatAreGoneLeaveNothing(t *testing.T) {
	w := newWingWithPoller(t)
	first := w.get(t, "a")
	w.get(t, "b")
	w.Expect(w.objects.Delete(t.Context(), identityNamed("a", "a"))).To(Succeed())
	w.pass(func() bool { return len(w.identities.inUse()) == 1 })
	w.Eventually(w.forgotten).Should(Receive(Equal("a")))

	w.Expect(w.objects.Create(t.Context(), identityNamed("a", "another"))).To(Succeed())
	second := w.get(t, "a")
	w.Expect(second.Readings).NotTo(BeIdenticalTo(first.Readings), "another identity of the same name")
	w.Expect(w.objects.Delete(t.Context(), identityNamed("b", "b"))).To(Succeed())
	_, err := w.identities.Get(t.Context(), "b")
	w.Expect(err).To(HaveOccurred())
	w.Expect(w.identities.inUse()).To(HaveLen(1))

	w.Expect(w.objects.Delete(t.Context(), identityNamed("a", "another"))).To(Succeed())
	w.Expect(w.objects.Create(t.Context(), identityNamed("a", "third"))).To(Succeed())
	w.get(t, "a")
	w.Expect(w.identities.inUse()).To(HaveLen(1))
	w.Expect(w.identities.inUse()).To(HaveKey(types.UID("third")))
	w.stop()
}

// TestAnIdentityThatCannotBeUsedIsNotPolled: without its Secret nobody asks MAAS.
func TestAnIdentityThatCannotBeUsedIsNotPolled(t *testing.T) {
	w := newWingWithPoller(t)
	readings := w.get(t, "a").Readings
	readings.Watch("m0", named("m0"))
	w.pass(func() bool { return w.fleets["a"].count(askEvents) > 0 })
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: "key"}}
	w.Expect(w.objects.Delete(t.Context(), secret)).To(Succeed())
	w.clock.Step(credentialsMaxAge)
	_, err := w.identities.Get(t.Context(), "a")
	w.Expect(err).To(HaveOccurred())
	w.fleets["a"].forget()
	asked := func() bool {
		readings.fresh("m0", 0, w.clock.Now())
		w.clock.Step(time.Second)
		return w.fleets["a"].count(askEvents)+w.fleets["a"].count(askByID) > 0
	}
	w.Consistently(asked, "200ms", "1ms").Should(BeFalse())
	w.Expect(w.objects.Create(t.Context(), aSecret(goodKey))).To(Succeed())
	w.pass(func() bool { return asked() })
	w.stop()
}

func TestWakesAreCoalesced(t *testing.T) {
	g := NewWithT(t)
	w := newWakes(namedMachine)
	for range 1000 {
		for i := range 3 {
			w.wake(named(fmt.Sprint("m", i))) // Nobody reads, and nobody waits.
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.run(ctx); close(ended) }()
	for i := range 3 {
		g.Expect((<-w.out).Object.GetName()).To(Equal(fmt.Sprint("m", i)))
	}
	g.Consistently(w.out, "20ms").ShouldNot(Receive())
	w.wake(named("m0"))
	g.Expect((<-w.out).Object.GetName()).To(Equal("m0"))
	cancel()
	g.Eventually(ended).Should(BeClosed())
}
