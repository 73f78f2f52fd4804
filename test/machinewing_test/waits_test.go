// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"cmp"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// obstacle is something a machine waits for before it takes a server: it says so, changes nothing, and goes on once it is gone.
type obstacle struct {
	options options
	// put puts it in the way before the wing starts; clear takes it away.
	put, clear func(*world)
	// says is what a condition says meanwhile, and message a part of its words.
	says, message string
	// condition is Ready, if empty.
	condition string
}

func ofIdentity(change func(*infrav1.MaasClusterIdentity)) func(*world) {
	return func(w *world) { w.changeIdentity(change) }
}

var obstacles = map[string]obstacle{
	"namespace not allowed": {
		options: withPorts(), says: infrav1.NamespaceNotAllowedReason, message: "allowedNamespaces",
		put: ofIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedNamespaces = nil }),
		clear: ofIdentity(func(i *infrav1.MaasClusterIdentity) {
			i.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{tenant}}
		}),
	},
	"isolation required": {
		options: withoutDPU(), says: infrav1.IsolationRequiredReason, message: "name ports",
		put:   ofIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.Isolation = infrav1.IsolationRequired }),
		clear: ofIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.Isolation = infrav1.IsolationOptional }),
	},
	"bootstrap Secret forbidden": {
		options: withPorts(), says: infrav1.BootstrapSecretForbiddenReason, message: "kubectl create rolebinding",
		put: func(w *world) {
			w.api.refuse(func(key client.ObjectKey, o client.Object) error {
				if _, secret := o.(*corev1.Secret); secret && key.Namespace == tenant {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, nil)
				}
				return nil
			})
		},
		clear: func(w *world) { w.api.refuse(nil) },
	},
	"a tag MAAS does not know": {
		options: options{servers: 1, ports: true, machine: func(m *infrav1.MaasMachine) { m.Spec.Tags = []string{"gpu"} }},
		says:    infrav1.ConstraintsNeverMatchReason, message: "gpu",
		put: func(*world) {},
		clear: func(w *world) {
			w.region.AddTag("gpu")
			w.tag("gpu", serverID(0))
		},
	},
	"no free server": {
		options: options{servers: 1, ports: true}, says: infrav1.NoServerAvailableReason, message: "free",
		put:   func(w *world) { w.take(serverID(0)) },
		clear: func(w *world) { w.free(serverID(0)) },
	},
	"only servers with DPUs for a machine without ports": {
		options: options{servers: 1, ports: false}, says: infrav1.NoServerAvailableReason,
		put:   func(w *world) { w.setHolder(serverID(0), &infrav1.DPUServerHolder{Namespace: "blue", Name: "a"}) },
		clear: func(w *world) { w.setHolder(serverID(0), nil) },
	},
	"nobody vouches for the provisioning network": {
		options: withPorts(), condition: infrav1.IsolatedCondition, says: infrav1.PortIsolationNotAssertedReason, message: "portIsolation",
		put: ofIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.PortIsolation = infrav1.PortIsolationRequirementAsserted }),
		clear: ofIdentity(func(i *infrav1.MaasClusterIdentity) {
			i.Spec.PortIsolation = infrav1.PortIsolationRequirementNotAssertedAccepted
		}),
	},
	"the key is an administrator's": {
		options: withPorts(), says: infrav1.AccountTooPowerfulReason, message: "allowAdmin",
		put:   func(w *world) { w.setKey(keyOf("admin")) },
		clear: func(w *world) { w.setKey(keyOf(account)) },
	},
}

func TestObstacles(t *testing.T) {
	for name, o := range obstacles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newStoppedWorld(t, o.options)
			o.put(w)
			w.supervise()
			condition := cmp.Or(o.condition, infrav1.ReadyCondition)
			w.until(w.says(condition, o.says), "said")
			w.Expect(conditions.GetMessage(w.machine(), condition)).To(ContainSubstring(o.message))
			w.quiet()
			o.clear(w)
			w.live()
		})
	}
}

// take takes a server for somebody else, free gives it back.
func (w *world) take(id string) {
	w.Helper()
	_, err := w.as("stranger").Allocate(w.Context(), "stranger", maas.Constraints{SystemIDs: []string{id}}, "")
	w.Expect(err).NotTo(HaveOccurred())
}

func (w *world) free(id string) {
	w.Helper()
	w.Expect(w.as("stranger").Release(w.Context(), id, maas.ReleaseRequest{Erase: maas.EraseNone})).To(Succeed())
}

func (w *world) setHolder(id string, holder *infrav1.DPUServerHolder) {
	w.Helper()
	server := &infrav1.DPUServer{}
	w.Expect(w.objects.Get(w.Context(), client.ObjectKey{Name: infrav1.DPUServerName(source, id)}, server)).To(Succeed())
	server.Status.Holder = holder
	w.Expect(w.objects.Status().Update(w.Context(), server)).To(Succeed())
}

// setKey writes an API key into the identity's Secret.
func (w *world) setKey(key string) {
	w.Helper()
	change(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: "identity"}},
		func(s *corev1.Secret) { s.Data = w.secret("identity", key).Data })
}

func TestNamespaceTakenOffTheList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	w.changeIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedNamespaces = nil })
	w.quiet()
	w.expectUp()
	w.down()
}

func TestDeletedWithoutClusterOrMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	for name, o := range map[string]client.Object{machineName: &clusterv1.Machine{}, tenant: &clusterv1.Cluster{}} {
		o.SetNamespace(tenant)
		o.SetName(name)
		w.Expect(w.objects.Delete(w.Context(), o)).To(Succeed())
	}
	w.Expect(w.objects.Delete(w.Context(), &infrav1.MaasCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: tenant}})).To(Succeed())
	w.down()
}

// TestCopiedClaimIsInert copies a machine's claim into another machine.
func TestCopiedClaimIsInert(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withPorts())
	w.until(w.provisioned, "up")
	claim := w.machine().Spec.Claim
	w.unchecked(func() {
		// Two machines with one token are no living of the wing's.
		w.addMachine(tenant, tenant, "copy", func(m *infrav1.MaasMachine) { m.Spec.Claim = claim })
		copied := func() *infrav1.MaasMachine { return w.get(tenant, "copy") }
		w.until(func() bool {
			return conditions.GetReason(copied(), infrav1.ReadyCondition) == infrav1.TokenMismatchReason
		}, "said")
		w.quiet()
		w.removeMachine(copied())
		w.until(func() bool { return copied() == nil }, "the copy goes")
	})
	w.expectUp()
	w.down()
}

func TestPaused(t *testing.T) {
	t.Parallel()
	w := newStoppedWorld(t, options{servers: 1, ports: true, machine: func(m *infrav1.MaasMachine) {
		m.Annotations = map[string]string{clusterv1.PausedAnnotation: ""}
	}})
	w.supervise()
	w.until(func() bool { return conditions.IsTrue(w.machine(), clusterv1.PausedCondition) }, "paused")
	w.quiet()
	w.Expect(w.machine().Spec.Claim).To(BeNil())
	w.changeMachine(func(m *infrav1.MaasMachine) { m.Annotations = nil })
	w.live()
}

// TestLostProof lets the proof of attachment go stale on a running machine.
func TestLostProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{servers: 1, ports: true})
	w.until(w.provisioned, "up")
	w.fabric.tell(func(f *fabric) { f.asleep = true })
	a := &w.attachments()[0]
	a.Status.ValidUntil = &metav1.Time{Time: a.Status.ProvenAt.Add(-1)}
	w.Expect(w.objects.Status().Update(w.Context(), a)).To(Succeed())
	w.until(func() bool { return conditions.IsUnknown(w.machine(), infrav1.IsolatedCondition) }, "unknown")
	w.Expect(w.provisioned()).To(BeTrue(), "what was promised is not taken back")
	w.quiet()
	w.fabric.tell(func(f *fabric) { f.asleep = false })
	w.down()
}

// tag gives a server a tag, as an administrator.
func (w *world) tag(name, id string) {
	w.Helper()
	w.Expect(w.admin().Tag.AddMachines(name, []string{id})).To(Succeed())
}
