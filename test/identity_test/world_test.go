// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package identity_test runs the audit of an identity beside the controller of machines, against the MAAS simulator, while people
// use the account and the servers by hand.
package identity_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maascluster"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasclusteridentity"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	tenant     = "red"
	wing       = "machine-wing"
	account    = "capi"
	accountKey = "consumer1:token1:secret1"
	adminKey   = "consumer0:token0:secret0"

	poll     = 15 * time.Millisecond
	audit    = 150 * time.Millisecond
	patience = time.Minute
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// world is a management cluster with one identity and one Cluster, and its MAAS.
type world struct {
	*testing.T
	*WithT
	region   *maassim.Region
	objects  client.Client
	recorder *events.FakeRecorder
	// people use the account's key, operator an administrator's.
	people, operator *maas.Client

	identities *maasclusteridentity.Reconciler
	machines   *maasmachine.Reconciler
	clusters   *maascluster.Reconciler
}

func newWorld(t *testing.T, servers int) *world {
	t.Helper()
	w := &world{T: t, WithT: NewWithT(t), recorder: events.NewFakeRecorder(100)}
	w.region = maassim.New(maassim.Options{Timing: maassim.Timing{
		PowerOff: 5 * time.Millisecond, PowerOn: 5 * time.Millisecond, Deploy: 20 * time.Millisecond, Erase: 10 * time.Millisecond,
	}})
	w.region.AddUser(account, accountKey, false)
	w.region.AddUser("operator", adminKey, true)
	w.region.AddZone("z1")
	w.region.AddZone("z2")
	for i := range servers {
		w.Expect(w.region.AddMachine(maassim.Machine{SystemID: fmt.Sprintf("srv%03d", i), Zone: "z1"})).To(Succeed())
	}
	base, wait, err := w.region.Serve(t.Context(), nil)
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if err := wait(); err != nil {
			t.Errorf("region: %v", err)
		}
	})
	endpoint := base + "/MAAS"
	w.people, w.operator = w.client(endpoint, accountKey), w.client(endpoint, adminKey)
	field, extract := maasmachine.IndexSystemID()
	w.objects = fake.NewClientBuilder().WithScheme(scheme(t)).
		WithStatusSubresource(&infrav1.MaasMachine{}, &infrav1.MaasClusterIdentity{}, &infrav1.MaasCluster{}).
		WithIndex(&infrav1.MaasMachine{}, field, extract).WithObjects(manifests(endpoint)...).Build()
	scopes := scope.NewIdentities(scope.IdentityOptions{Client: w.objects, APIReader: w.objects, Namespace: wing, PollInterval: poll})
	w.identities = &maasclusteridentity.Reconciler{Client: w.objects, Scope: scopes, Recorder: w.recorder, PollInterval: poll, AuditInterval: audit}
	w.machines = &maasmachine.Reconciler{
		Client: w.objects, APIReader: w.objects, Scope: scopes, PollInterval: poll, AuditInterval: audit, OutcomeWindow: time.Second,
	}
	w.clusters = &maascluster.Reconciler{Client: w.objects, Scope: scopes, PollInterval: poll}
	return w
}

func (w *world) client(endpoint, key string) *maas.Client {
	w.Helper()
	c, err := maas.New(maas.Config{Endpoint: endpoint, APIKey: maas.NewAPIKey(key)})
	w.Expect(err).NotTo(HaveOccurred())
	w.Cleanup(c.Close)
	return c
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: tenant, Name: name, UID: types.UID(name), Labels: map[string]string{clusterv1.ClusterNameLabel: "red"}}
}

// manifests are the identity, its Secret, and a Cluster whose infrastructure is there.
func manifests(endpoint string) []client.Object {
	cluster := &clusterv1.Cluster{ObjectMeta: meta("red"), Spec: clusterv1.ClusterSpec{
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: "red"},
	}}
	cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	maasCluster := &infrav1.MaasCluster{ObjectMeta: meta("red"), Spec: infrav1.MaasClusterSpec{
		IdentityRef: infrav1.IdentityReference{Name: "identity"}, ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "192.0.2.1", Port: 6443},
	}}
	maasCluster.OwnerReferences = []metav1.OwnerReference{{APIVersion: clusterv1.GroupVersion.String(), Kind: "Cluster", Name: "red", UID: "red"}}
	return []client.Object{
		&infrav1.MaasClusterIdentity{
			ObjectMeta: metav1.ObjectMeta{Name: "identity", UID: "identity", Generation: 1},
			Spec: infrav1.MaasClusterIdentitySpec{
				Endpoint: endpoint, SecretRef: infrav1.LocalSecretReference{Name: "maas"}, Isolation: infrav1.IsolationOptional,
				AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{tenant}},
			},
		},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: "maas"}, Data: map[string][]byte{scope.IdentitySecretKey: []byte(accountKey)}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "bootstrap"}, Data: map[string][]byte{"value": []byte("#cloud-config\n")}},
		cluster, maasCluster,
	}
}

// want creates a Machine and the MaasMachine it owns.
func (w *world) want(names ...string) {
	w.Helper()
	for _, name := range names {
		machine := &clusterv1.Machine{ObjectMeta: meta(name), Spec: clusterv1.MachineSpec{
			ClusterName: "red", Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To("bootstrap")},
		}}
		maasMachine := &infrav1.MaasMachine{ObjectMeta: meta(name), Spec: infrav1.MaasMachineSpec{
			MachineConstraints: infrav1.MachineConstraints{Image: "ubuntu/noble"},
		}}
		maasMachine.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: name, UID: machine.UID, Controller: ptr.To(true),
		}}
		w.Expect(w.objects.Create(w.Context(), machine)).To(Succeed())
		w.Expect(w.objects.Create(w.Context(), maasMachine)).To(Succeed())
	}
}

// step reconciles everything once.
func (w *world) step() {
	w.Helper()
	list := &infrav1.MaasMachineList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	for i := range list.Items {
		w.reconciled(w.machines.Reconcile(w.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])}))
	}
	w.reconciled(w.identities.Reconcile(w.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "identity"}}))
	w.reconciled(w.clusters.Reconcile(w.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: tenant, Name: "red"}}))
}

func (w *world) reconciled(_ ctrl.Result, err error) {
	w.Helper()
	if err != nil && !apierrors.IsConflict(err) {
		w.Errorf("reconcile: %v", err)
	}
}

// until reconciles until what is said is so.
func (w *world) until(what string, done func() bool) {
	w.Helper()
	w.Eventually(func() bool {
		w.step()
		return done()
	}).WithTimeout(patience).WithPolling(poll).Should(BeTrue(), func() string {
		identity := w.identity()
		text := fmt.Sprintf("%s\norphans %v\nheld %v\n", what, identity.Status.Orphans, identity.Status.Held)
		for _, c := range identity.Status.Conditions {
			text += fmt.Sprintf("%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
		for _, s := range w.region.Machines() {
			text += fmt.Sprintf("%s %s owner %q %v\n", s.SystemID, s.StatusName, s.Owner, s.Annotations)
		}
		return text
	})
}

func (w *world) identity() *infrav1.MaasClusterIdentity {
	w.Helper()
	identity := &infrav1.MaasClusterIdentity{}
	w.Expect(w.objects.Get(w.Context(), client.ObjectKey{Name: "identity"}, identity)).To(Succeed())
	return identity
}

func (w *world) machine(name string) *infrav1.MaasMachine {
	w.Helper()
	m := &infrav1.MaasMachine{}
	w.Expect(w.objects.Get(w.Context(), client.ObjectKey{Namespace: tenant, Name: name}, m)).To(Succeed())
	return m
}

// up waits until machines are provisioned.
func (w *world) up(names ...string) {
	w.Helper()
	w.until("machines are up", func() bool {
		return !slices.ContainsFunc(names, func(name string) bool {
			return !ptr.Deref(w.machine(name).Status.Initialization.Provisioned, false)
		})
	})
}

// orphans are the orphans as "server reason machine".
func (w *world) orphans() []string {
	w.Helper()
	all := []string{}
	for _, o := range w.identity().Status.Orphans {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", o.SystemID, o.Reason, o.Machine)))
	}
	return all
}

func (w *world) accounted() bool {
	w.Helper()
	return conditions.IsTrue(w.identity(), infrav1.AccountedCondition)
}

// told are the events so far that are about orphans.
func (w *world) told() []string {
	var all []string
	for {
		select {
		case e := <-w.recorder.Events:
			if strings.Contains(e, infrav1.OrphansFoundReason) {
				all = append(all, e)
			}
		default:
			return all
		}
	}
}

// free returns servers nobody has.
func (w *world) free() []string {
	var ids []string
	for _, s := range w.region.Machines() {
		if s.Owner == "" && s.Status == maassim.StatusReady {
			ids = append(ids, s.SystemID)
		}
	}
	return ids
}

// byHand has somebody who uses the account take a server.
func (w *world) byHand(ctx context.Context, id string) {
	w.Helper()
	_, err := w.people.Allocate(ctx, "by-hand", maas.Constraints{SystemIDs: []string{id}}, "")
	w.Expect(err).NotTo(HaveOccurred())
}

func (w *world) annotate(ctx context.Context, id string, annotations map[string]string) {
	w.Helper()
	_, err := w.people.Annotate(ctx, id, annotations)
	w.Expect(err).NotTo(HaveOccurred())
}

func key(name string) client.ObjectKey { return client.ObjectKey{Namespace: tenant, Name: name} }
