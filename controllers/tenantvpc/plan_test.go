// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

var errUnread = errors.New("the DPU cluster is away")

// world is DPF as the planner sees it: what is deleted lingers for one pass, as finalizers make it.
type world struct {
	*observation
	t     *testing.T
	steps []string
}

func newWorld(t *testing.T, subnets ...infrav1.VPCSubnet) *world {
	t.Helper()
	tenant := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "main", Generation: 1},
		Spec:       infrav1.TenantVPCSpec{FabricName: "dpf", Subnets: subnets},
	}
	fabric := &infrav1.DPUFabric{
		ObjectMeta: metav1.ObjectMeta{Name: "dpf"},
		Spec: infrav1.DPUFabricSpec{
			Backend:     infrav1.FabricBackend{OVNVPC: &infrav1.OVNVPCBackend{Namespace: "dpf-operator-system", IsolationClassName: "ovn"}},
			TenantPools: []string{"10.64.0.0/16"},
		},
	}
	return &world{t: t, observation: &observation{tenant: tenant, fabric: fabric, place: vpc.PlaceOf("lab", fabric), allowed: true}}
}

func subnet(name, cidr string) infrav1.VPCSubnet { return infrav1.VPCSubnet{Name: name, CIDR: cidr} }

func twoSubnets() []infrav1.VPCSubnet {
	return []infrav1.VPCSubnet{subnet("a", "10.64.0.0/24"), subnet("b", "10.64.1.0/24")}
}

func attachment(name, subnet string, pf int32) infrav1.DPUAttachment {
	return infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name, Generation: 1},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, VPCName: "main", MachineName: "m-" + name,
			Ports: []infrav1.MachinePort{{Name: "p", PF: ptr.To(pf), Subnet: subnet}},
		},
	}
}

func detached(a infrav1.DPUAttachment) infrav1.DPUAttachment {
	a.Spec.State, a.Status.State, a.Status.ObservedGeneration = infrav1.AttachmentStateDetached, infrav1.AttachmentStateDetached, a.Generation
	return a
}

func (w *world) delete() { w.tenant.DeletionTimestamp = now() }

func now() *metav1.Time { t := metav1.Now(); return &t }

// take applies a step and checks the order DPF asks for.
func (w *world) take(s *step) {
	w.t.Helper()
	w.steps = append(w.steps, strings.TrimPrefix(fmt.Sprintf("%s %T", s.verb, s.object), "*"))
	switch object := s.object.(type) {
	case *vpcv1alpha1.DPUVPC:
		switch s.verb {
		case create:
			w.vpc = object.DeepCopy()
		case setInterNetworkAccess:
			w.vpc.Spec.InterNetworkAccess = ptr.Deref(w.tenant.Spec.InterNetworkAccess, false)
		case remove:
			if slices.ContainsFunc(w.networks, func(n vpcv1alpha1.DPUVirtualNetwork) bool { return n.Spec.VPCName == object.Name }) {
				w.t.Errorf("DPUVPC %s is deleted while networks are in it", object.Name)
			}
			w.vpc.DeletionTimestamp = now()
		}
	case *vpcv1alpha1.DPUVirtualNetwork:
		if s.verb == create {
			w.networks = append(w.networks, *object.DeepCopy())
			return
		}
		if slices.ContainsFunc(w.interfaces, func(i svcv1alpha1.DPUServiceInterface) bool {
			return networkOf(&i.Spec.Template.Spec.Template.Spec) == object.Name
		}) {
			w.t.Errorf("DPUVirtualNetwork %s is deleted while interfaces are on it", object.Name)
		}
		w.networkNamed(object.Name).DeletionTimestamp = now()
	case *svcv1alpha1.DPUServiceInterface:
		if s.verb == create {
			w.interfaces = append(w.interfaces, *object.DeepCopy())
			return
		}
		if s.verb == restore {
			w.interfaceNamed(object.Name).Spec = s.desired.Spec
			return
		}
		w.interfaceNamed(object.Name).DeletionTimestamp = now()
	}
}

// finalize lets go what has been in deletion since before the pass, and that nothing else names.
func (w *world) finalize() {
	networks, interfaces := slices.Clone(w.networks), slices.Clone(w.interfaces)
	if w.vpc != nil && w.vpc.DeletionTimestamp != nil && !slices.ContainsFunc(networks, func(n vpcv1alpha1.DPUVirtualNetwork) bool {
		return n.Spec.VPCName == w.vpc.Name
	}) {
		w.vpc = nil
	}
	w.networks = slices.DeleteFunc(networks, func(n vpcv1alpha1.DPUVirtualNetwork) bool {
		return n.DeletionTimestamp != nil && w.vpc != nil && !slices.ContainsFunc(interfaces, func(i svcv1alpha1.DPUServiceInterface) bool {
			return networkOf(&i.Spec.Template.Spec.Template.Spec) == n.Name
		})
	})
	w.interfaces = slices.DeleteFunc(slices.Clone(w.interfaces), func(i svcv1alpha1.DPUServiceInterface) bool { return i.DeletionTimestamp != nil })
}

// run makes passes until nothing more happens, and returns the last decision.
func (w *world) run() decision {
	w.t.Helper()
	for range 100 {
		d := plan(w.observation)
		before := len(w.networks) + len(w.interfaces)
		hadVPC := w.vpc != nil
		if d.step != nil {
			// The step's object lies in a list that finalize is about to shift.
			if object, ok := d.step.object.DeepCopyObject().(client.Object); ok {
				d.step = &step{verb: d.step.verb, object: object, desired: d.step.desired}
			}
		}
		w.finalize()
		if d.step != nil {
			w.take(d.step)
			continue
		}
		if before == len(w.networks)+len(w.interfaces) && hadVPC == (w.vpc != nil) {
			return d
		}
	}
	w.t.Fatalf("no end after %v", w.steps)
	return decision{}
}

func kinds(steps []string) string {
	short := strings.NewReplacer("*vpcv1alpha1.DPU", "", "*svcv1alpha1.DPUService", "", "create ", "+", "delete ", "-")
	return short.Replace(strings.Join(steps, " "))
}

func TestPlanBuildsInOrder(t *testing.T) {
	w := newWorld(t, twoSubnets()...)
	w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0), attachment("y", "a", 0), attachment("z", "b", 1)}
	d := w.run()
	if got, want := kinds(w.steps), "+VPC +VirtualNetwork +VirtualNetwork +Interface +Interface"; got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
	if !d.settled() {
		t.Errorf("not settled: %+v", d)
	}
	for i := range w.interfaces {
		if selector := w.interfaces[i].Spec.Template.Spec.NodeSelector; selector == nil || selector.MatchLabels[vpc.VPCKey] != w.vpc.Name {
			t.Errorf("DPUServiceInterface %s selects %v", w.interfaces[i].Name, selector)
		}
	}

	// DPF writes into the template's metadata: that is not ours to take back.
	w.interfaces[0].Spec.Template.ObjectMeta.Labels = map[string]string{"vpc.dpu.nvidia.com/provisioner": "ovn"}
	w.networks[0].Spec.Masquerade = nil
	if d := plan(w.observation); !d.settled() {
		t.Errorf("what DPF adds is taken for drift: %+v", d)
	}

	w.tenant.Spec.InterNetworkAccess, w.steps = ptr.To(true), nil
	if d := w.run(); !d.settled() || len(w.steps) != 1 || !w.vpc.Spec.InterNetworkAccess {
		t.Errorf("interNetworkAccess is not changed by one patch: %v", w.steps)
	}
}

func TestPlanTouchesNothingOfOthers(t *testing.T) {
	foreign := map[string]string{vpc.OwnerAnnotation: "lab/blue/main"}
	for name, spoil := range map[string]func(*world){
		"VPC of another tenant": func(w *world) { w.vpc.Annotations = foreign },
		"VPC of nobody":         func(w *world) { w.vpc.Annotations = nil },
		"network":               func(w *world) { w.networks[0].Annotations = foreign },
		"interface":             func(w *world) { w.interfaces[0].Annotations = foreign },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, subnet("a", "10.64.0.0/24"))
			w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0)}
			w.run()
			w.steps = nil
			spoil(w)
			d := w.run()
			if len(w.steps) > 0 {
				t.Errorf("steps %v", w.steps)
			}
			if len(d.problems) != 1 || d.problems[0].reason != infrav1.NameTakenReason {
				t.Errorf("problems %+v, want one NameTaken", d.problems)
			}
		})
	}
}

func TestPlanMakesNothingForbidden(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   func(*world)
		reason string
		steps  string
	}{
		{"namespace not allowed", func(w *world) { w.allowed = false }, infrav1.NamespaceNotAllowedReason, ""},
		{"overlap with a subnet that is used and gone from the spec", func(w *world) {
			w.attachments = []infrav1.DPUAttachment{attachment("x", "b", 0)}
			w.run()
			w.steps = nil
			w.tenant.Spec.Subnets[1] = subnet("c", "10.64.1.0/25")
		}, infrav1.SubnetInvalidReason, ""},
		{"outside the pools", func(w *world) { w.tenant.Spec.Subnets[1].CIDR = "192.168.0.0/24" }, infrav1.CIDROutsidePoolsReason, "+VPC +VirtualNetwork"},
		{"overlap", func(w *world) { w.tenant.Spec.Subnets[1].CIDR = "10.64.0.128/25" }, infrav1.SubnetInvalidReason, "+VPC +VirtualNetwork"},
		{"excludes nonsense", func(w *world) { w.tenant.Spec.Subnets[1].ExcludeIPs = []string{"10.99.0.1"} }, infrav1.SubnetInvalidReason, "+VPC +VirtualNetwork"},
		{"mark too long for DPF", func(w *world) { w.place.Namespace = strings.Repeat("n", 40) }, infrav1.FabricNotReadyReason, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, twoSubnets()...)
			c.edit(w)
			d := w.run()
			if got := kinds(w.steps); got != c.steps {
				t.Errorf("steps %q, want %q", got, c.steps)
			}
			if len(d.problems) == 0 || d.problems[0].reason != c.reason {
				t.Errorf("problems %+v, want %s", d.problems, c.reason)
			}
		})
	}
}

func TestNamespaceTakenOffKeepsWhatRuns(t *testing.T) {
	w := newWorld(t, twoSubnets()[:1]...)
	w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0)}
	w.run()
	w.steps, w.allowed = nil, false
	w.fabric.Spec.TenantPools = []string{"172.16.0.0/12"}
	if d := w.run(); !d.settled() || len(w.steps) > 0 {
		t.Errorf("steps %v, decision %+v", w.steps, d)
	}
}

func TestPlanRemovesSubnets(t *testing.T) {
	for _, c := range []struct {
		name  string
		edit  func(*world)
		inUse string
		steps string
	}{
		{"unused", func(*world) {}, "", "-Interface -VirtualNetwork"},
		{"proven detached", func(w *world) { w.attachments = []infrav1.DPUAttachment{detached(attachment("x", "b", 0))} }, "", "-Interface -VirtualNetwork"},
		{"asked for", func(w *world) { w.attachments = []infrav1.DPUAttachment{attachment("x", "b", 0)} }, "DPUAttachment x", ""},
		{"a port without attachment", func(w *world) {
			w.ports = []port{{name: "si-1", node: "dpu-7", network: w.networks[1].Name}}
		}, "ServiceInterface si-1 on DPU dpu-7", ""},
		{"an interface of somebody else", func(w *world) {
			other := w.interfaces[0].DeepCopy()
			other.Name, other.Annotations = "theirs", nil
			w.interfaces = append(w.interfaces, *other)
		}, "DPUServiceInterface theirs", ""},
		{"nobody can tell", func(w *world) { w.portsUnknown = errUnread }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, twoSubnets()...)
			w.attachments = []infrav1.DPUAttachment{attachment("x", "b", 0)}
			w.run()
			w.attachments, w.steps = nil, nil
			c.edit(w)
			w.tenant.Spec.Subnets = w.tenant.Spec.Subnets[:1]
			d := plan(w.observation)
			if d.inUse != (c.inUse != "") || !strings.Contains(strings.Join(d.removing, " "), c.inUse) || len(d.removing) != 1 {
				t.Errorf("in use %v, removing %q; want %q", d.inUse, d.removing, c.inUse)
			}
			w.run()
			if got := kinds(w.steps); got != c.steps {
				t.Errorf("steps %q, want %q", got, c.steps)
			}
		})
	}
}

// TestPlanTakesDownFromEveryPartialState tries every subset of the objects, each of them there or already in deletion.
func TestPlanTakesDownFromEveryPartialState(t *testing.T) {
	full := newWorld(t, twoSubnets()...)
	full.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0), attachment("y", "b", 1)}
	full.run()
	const objects = 5
	states := 1
	for range objects {
		states *= 3
	}
	for state := range states {
		w := newWorld(t, twoSubnets()...)
		left := state
		next := func(object client.Object) bool {
			digit := left % 3
			left /= 3
			if digit == 2 {
				object.SetDeletionTimestamp(now())
			}
			return digit > 0
		}
		if v := full.vpc.DeepCopy(); next(v) {
			w.vpc = v
		}
		for i := range full.networks {
			if n := full.networks[i].DeepCopy(); next(n) {
				w.networks = append(w.networks, *n)
			}
		}
		for i := range full.interfaces {
			if n := full.interfaces[i].DeepCopy(); next(n) {
				w.interfaces = append(w.interfaces, *n)
			}
		}
		w.delete()
		d := w.run()
		if !d.done || w.vpc != nil || len(w.networks)+len(w.interfaces) > 0 {
			t.Fatalf("state %d: ended with %+v after %v", state, d, w.steps)
		}
	}
}

// TestPlanKeepsWhatAttachmentsNeedToGo takes objects away from a TenantVPC in deletion whose ports are not off yet.
func TestPlanKeepsWhatAttachmentsNeedToGo(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*world)
		steps string
	}{
		{"VPC", func(w *world) { w.vpc = nil }, "+VPC"},
		{"networks", func(w *world) { w.networks = nil }, "+VirtualNetwork"},
		{"interface", func(w *world) { w.interfaces = nil }, "+Interface"},
		{"all", func(w *world) { w.vpc, w.networks, w.interfaces = nil, nil, nil }, "+VPC +VirtualNetwork +Interface"},
		{"network in deletion, no port on it", func(w *world) { w.networks[0].DeletionTimestamp = now() }, "-Interface +VirtualNetwork +Interface"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, twoSubnets()...)
			w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0)}
			w.run()
			w.steps = nil
			w.delete()
			c.spoil(w)
			if d := w.run(); kinds(w.steps) != c.steps || d.done {
				t.Errorf("steps %q, want %q; %+v", kinds(w.steps), c.steps, d)
			}
			w.attachments[0] = detached(w.attachments[0])
			if d := w.run(); !d.done || w.vpc != nil || len(w.networks)+len(w.interfaces) > 0 {
				t.Errorf("then %+v", d)
			}
		})
	}
}

func TestPlanWaitsWithTakingDown(t *testing.T) {
	for _, c := range []struct {
		name    string
		edit    func(*world)
		waiting string
	}{
		{"attached", func(w *world) { w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0)} }, "DPUAttachments x"},
		{"asked to detach, not proven", func(w *world) {
			a := attachment("x", "a", 0)
			a.Spec.State = infrav1.AttachmentStateDetached
			w.attachments = []infrav1.DPUAttachment{a}
		}, "DPUAttachments x"},
		{"proven for an older generation", func(w *world) {
			a := detached(attachment("x", "a", 0))
			a.Generation = 2
			w.attachments = []infrav1.DPUAttachment{a}
		}, "DPUAttachments x"},
		{"a port nobody stands for", func(w *world) {
			w.ports = []port{{name: "si-1", node: "dpu-7", network: w.networks[0].Name}}
		}, "si-1 on DPU dpu-7"},
		{"ports unread", func(w *world) { w.portsUnknown = errUnread }, errUnread.Error()},
		{"interface of somebody else on our network", func(w *world) {
			w.interfaces[0].Name, w.interfaces[0].Annotations = "theirs", nil
		}, "theirs"},
		{"network of somebody else in our VPC", func(w *world) {
			w.interfaces = nil
			w.networks[0].Name, w.networks[0].Annotations = "theirs", nil
		}, "theirs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, subnet("a", "10.64.0.0/24"))
			w.attachments = []infrav1.DPUAttachment{attachment("x", "a", 0)}
			w.run()
			w.attachments, w.steps = nil, nil
			c.edit(w)
			w.delete()
			d := w.run()
			if d.done || len(w.steps) > 0 {
				t.Errorf("done %v after %v", d.done, w.steps)
			}
			if !strings.Contains(strings.Join(d.waiting, " "), c.waiting) {
				t.Errorf("waits %q, want %q", d.waiting, c.waiting)
			}
		})
	}
}

func TestPlanLeavesForeignVPCWhenTakingDown(t *testing.T) {
	w := newWorld(t, subnet("a", "10.64.0.0/24"))
	w.run()
	w.vpc.Annotations[vpc.OwnerAnnotation] = "lab/blue/main"
	w.networks, w.steps = nil, nil
	w.delete()
	if d := w.run(); !d.done || len(w.steps) > 0 {
		t.Errorf("done %v after %v", d.done, w.steps)
	}
}

func TestPlanWaitsForASubnetInTheWay(t *testing.T) {
	w := newWorld(t, twoSubnets()...)
	w.run()
	w.steps = nil
	w.tenant.Spec.Subnets[1] = subnet("c", "10.64.1.0/25")
	if d := plan(w.observation); len(d.problems) > 0 || !strings.Contains(strings.Join(d.waiting, " "), "subnet c is made when subnet") {
		t.Errorf("problems %+v, waiting %q", d.problems, d.waiting)
	}
	if d := w.run(); !d.settled() || kinds(w.steps) != "-VirtualNetwork +VirtualNetwork" {
		t.Errorf("steps %v, decision %+v", w.steps, d)
	}
}
