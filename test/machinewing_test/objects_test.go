// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	gomaas "github.com/canonical/gomaasclient/client"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	machineName = "red-worker-1"
	userData    = "## template: jinja\n#cloud-config\nsecret: join0me0with0this\n"
)

func (w *world) create(objects ...client.Object) {
	w.Helper()
	for _, object := range objects {
		wanted := object.DeepCopyObject()
		w.Expect(w.objects.Create(w.Context(), object)).To(Succeed(), "%T %s", object, object.GetName())
		switch made := object.(type) {
		case *infrav1.TenantVPC:
			made.Status = wanted.(*infrav1.TenantVPC).Status
		case *infrav1.DPUServer:
			made.Status = wanted.(*infrav1.DPUServer).Status
		case *clusterv1.Cluster:
			made.Status = wanted.(*clusterv1.Cluster).Status
		default:
			continue
		}
		w.Expect(w.objects.Status().Update(w.Context(), object)).To(Succeed(), "status of %T %s", object, object.GetName())
	}
}

// change changes an object as somebody who reads it first.
func change[T client.Object](w *world, object T, how func(T)) {
	w.Helper()
	key := client.ObjectKeyFromObject(object)
	w.Eventually(func() error {
		if err := w.objects.Get(w.Context(), key, object); err != nil {
			return err
		}
		how(object)
		return w.objects.Update(w.Context(), object)
	}).WithTimeout(patience).Should(Succeed(), "change %T %s", object, key)
}

// operate makes what the operator makes: an identity of the world's account and its Secret, and the fabric's servers.
func (w *world) operate() {
	w.Helper()
	w.addIdentity("identity", w.site, source)
	if w.options.plain {
		return
	}
	for i := range w.options.servers {
		w.create(dpuServer(source, serverID(i)))
	}
}

// addIdentity makes an identity of the world's account in a region, and its Secret.
func (w *world) addIdentity(name string, at *site, source string) {
	w.Helper()
	w.create(w.newIdentity(name, at, source), w.secret(name, keyOf(w.options.account)))
}

// newIdentity is an identity with deadlines that tests can wait for.
func (w *world) newIdentity(name string, at *site, source string) *infrav1.MaasClusterIdentity {
	identity := &infrav1.MaasClusterIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: infrav1.MaasClusterIdentitySpec{
			Endpoint: at.address, CABundle: at.authority.Load().bundle(), SecretRef: infrav1.LocalSecretReference{Name: name}, Source: source,
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{tenant, "blue", "green"}},
			Isolation:         infrav1.IsolationOptional,
			PortIsolation:     infrav1.PortIsolationRequirementNotAssertedAccepted,
			// Shorter than the API server would take.
			Deadlines: infrav1.Deadlines{CallSeconds: ptr.To[int32](2), AllocateSeconds: ptr.To(cmp.Or(w.options.allocateSeconds, 2))},
		},
	}
	if w.options.identity != nil {
		w.options.identity(identity)
	}
	return identity
}

func (w *world) secret(name, key string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: name}, Data: map[string][]byte{scope.IdentitySecretKey: []byte(key)}}
}

// addCluster makes a tenant's cluster, provisioned, and what its namespace needs.
func (w *world) addCluster(namespace, name, identity string) {
	w.Helper()
	bootstrap := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bootstrap"}, Data: map[string][]byte{"value": []byte(userData)}}
	if err := w.objects.Get(w.Context(), client.ObjectKeyFromObject(bootstrap), &corev1.Secret{}); apierrors.IsNotFound(err) {
		w.create(bootstrap, w.tenantVPC(namespace))
	}
	cluster := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: clusterv1.ClusterSpec{
		InfrastructureRef:    clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: name},
		ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "192.0.2.10", Port: 6443},
	}}
	cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	w.create(cluster)
	w.create(&infrav1.MaasCluster{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{clusterv1.ClusterNameLabel: name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: clusterv1.GroupVersion.String(), Kind: "Cluster", Name: name, UID: cluster.UID}},
		},
		Spec: infrav1.MaasClusterSpec{IdentityRef: infrav1.IdentityReference{Name: identity}, VPCName: "vpc"},
	})
}

// addMachine makes a Machine and its MaasMachine as Cluster API does.
func (w *world) addMachine(namespace, cluster, name string, changes ...func(*infrav1.MaasMachine)) {
	w.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{clusterv1.ClusterNameLabel: cluster}}
	machine := &clusterv1.Machine{ObjectMeta: meta, Spec: clusterv1.MachineSpec{
		ClusterName: cluster, Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To("bootstrap")},
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachine", Name: name},
	}}
	w.create(machine)
	made := &infrav1.MaasMachine{ObjectMeta: meta, Spec: infrav1.MaasMachineSpec{
		MachineConstraints: infrav1.MachineConstraints{Image: "ubuntu/noble"},
	}}
	made.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: name, UID: machine.UID, Controller: ptr.To(true),
	}}
	if w.options.ports {
		made.Spec.Ports = []infrav1.MachinePort{{Name: "net0", PF: ptr.To[int32](0), Subnet: "nodes"}}
	}
	if w.options.machine != nil {
		w.options.machine(made)
	}
	for _, c := range changes {
		c(made)
	}
	w.create(made)
}

// get returns a MaasMachine; nil if it is gone.
func (w *world) get(namespace, name string) *infrav1.MaasMachine {
	w.Helper()
	m := &infrav1.MaasMachine{}
	err := w.objects.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: name}, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.Expect(err).NotTo(HaveOccurred())
	return m
}

// machine returns the world's first MaasMachine; nil if it is gone.
func (w *world) machine() *infrav1.MaasMachine { w.Helper(); return w.get(tenant, machineName) }

// machines are all MaasMachines.
func (w *world) machines() []infrav1.MaasMachine {
	w.Helper()
	list := &infrav1.MaasMachineList{}
	w.Expect(w.objects.List(w.Context(), list)).To(Succeed())
	return list.Items
}

// remove deletes the world's first MaasMachine.
func (w *world) remove() { w.Helper(); w.removeMachine(w.machine()) }

func (w *world) removeMachine(m *infrav1.MaasMachine) {
	w.Helper()
	w.Expect(client.IgnoreNotFound(w.objects.Delete(w.Context(), m))).To(Succeed())
}

// removeOwner deletes the Machine of a MaasMachine that is gone.
func (w *world) removeOwner(namespace, name string) {
	w.Helper()
	w.Expect(w.objects.Delete(w.Context(), &clusterv1.Machine{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})).To(Succeed())
}

// changeMachine changes the first machine's spec and metadata, changeIdentity the identity's.
func (w *world) changeMachine(how func(*infrav1.MaasMachine)) {
	w.Helper()
	m := &infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: machineName}}
	change(w, m, how)
}

func (w *world) changeIdentity(how func(*infrav1.MaasClusterIdentity)) {
	w.Helper()
	change(w, &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "identity"}}, how)
}

func (w *world) identity(name string) *infrav1.MaasClusterIdentity {
	w.Helper()
	identity := &infrav1.MaasClusterIdentity{}
	w.Expect(w.objects.Get(w.Context(), client.ObjectKey{Name: name}, identity)).To(Succeed())
	return identity
}

// as is somebody else's client of the region, who is never in trouble.
func (w *world) as(account string) *maas.Client {
	w.Helper()
	c, err := maas.New(maas.Config{Endpoint: w.address, APIKey: maas.NewAPIKey(keyOf(account)), CABundle: w.authority.Load().bundle()})
	w.Expect(err).NotTo(HaveOccurred())
	w.Cleanup(c.Close)
	return c
}

// admin is MAAS' administrator, whom nothing stops.
func (w *world) admin() *gomaas.Client {
	w.Helper()
	c, err := gomaas.GetClient(w.address, keyOf("admin"), "2.0")
	w.Expect(err).NotTo(HaveOccurred())
	return c
}

// drive lets a server do something without hardware, by the simulator's driver.
func (w *world) drive(action, id string) {
	w.Helper()
	request := httptest.NewRequest(http.MethodPost, "/driver/"+action, strings.NewReader(url.Values{"system_id": {id}}.Encode()))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	w.region.Handler().ServeHTTP(answer, request)
	w.Expect(answer.Code).To(Equal(http.StatusNoContent), answer.Body.String())
}

// server returns the state of a server.
func (w *world) server(id string) maassim.MachineState {
	w.Helper()
	for _, m := range w.region.Machines() {
		if m.SystemID == id {
			return m
		}
	}
	w.Fatalf("no server %s", id)
	return maassim.MachineState{}
}

// owned are the servers of an account.
func (s *site) owned(account string) []maassim.MachineState {
	var owned []maassim.MachineState
	for _, m := range s.region.Machines() {
		if m.Owner == account {
			owned = append(owned, m)
		}
	}
	return owned
}

// count counts accepted effects of an operation by an account.
func (s *site) count(account, operation string) int {
	n := 0
	for _, effect := range s.region.Journal() {
		if effect.User == account && effect.Operation == operation {
			n++
		}
	}
	return n
}
