// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const conditionInterfaceReconciled = "ServiceInterfaceReconciled"

// agents are the OVN VPC agents on all DPUs: each serves the ServiceInterfaces of its Node, for as long as it lives.
type agents struct{ world }

func setupAgent(mgr manager.Manager, w world) error {
	r := &agents{w}
	self := &handler.TypedEnqueueRequestForObject[*unstructured.Unstructured]{}
	return w.controller(mgr, ControllerAgent).
		WatchesRawSource(source.Kind(w.remote.GetCache(), newObject(kindSI), self)).
		Complete(w.played(ControllerAgent, r.reconcile))
}

// agentAlive says whether the agent on a DPU does its work.
func (f *Fabric) agentAlive(dpu string) bool {
	c, _ := f.hardware.get(dpu)
	return f.hardware.running(dpu) && !c.nodeless && !f.faults.has(AgentDown, dpu)
}

func (r *agents) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	si := newObject(kindSI)
	if err := r.dpuCluster.Get(ctx, request.NamespacedName, si); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	spec, err := readSpec[interfaceSpec](si)
	if err != nil {
		return reconcile.Result{}, err
	}
	dpu := spec.node()
	if !r.agentAlive(dpu) {
		return reconcile.Result{RequeueAfter: nodeRetry}, nil
	}
	if si.GetDeletionTimestamp() != nil {
		return r.unplug(ctx, si, dpu)
	}
	report := newReport(r.clock, si)
	report.ensure(conditionInterfaceReconciled)
	result, err := r.serve(ctx, si, spec, report)
	report.summarize(conditionInterfaceReconciled)
	if e := report.write(ctx, r.dpuCluster); e != nil && err == nil {
		err = e
	}
	return result, err
}

// serve finds the port's MAC address and plugs the port once its logical port is there. Interfaces that are on no virtual
// network are another agent's; they are called ready here, and reach nowhere.
func (r *agents) serve(ctx context.Context, si *unstructured.Unstructured, spec interfaceSpec, report *report) (reconcile.Result, error) {
	if spec.virtualNetwork() == "" {
		report.succeed(conditionInterfaceReconciled)
		return reconcile.Result{}, nil
	}
	if added, err := addFinalizer(ctx, r.dpuCluster, si, finalizerSINode); added || err != nil {
		return reconcile.Result{}, err
	}
	fn, ok := spec.function()
	mac, has := r.mac(si, spec.node(), fn)
	if !ok || !has {
		report.condition(conditionInterfaceReconciled, false, reasonError, "failed to find the MAC address of the interface")
		return reconcile.Result{RequeueAfter: r.options.Timing.AgentRetry}, nil
	}
	if si.GetAnnotations()[annotationMAC] != mac {
		if left := r.pace.wait("mac/"+string(si.GetUID()), r.options.Timing.AgentMAC); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		return reconcile.Result{}, annotate(ctx, r.dpuCluster, si, map[string]string{annotationMAC: mac})
	}
	id := interfaceID(si.GetNamespace(), si.GetName())
	if si.GetAnnotations()[annotationConnected] != "true" {
		report.condition(conditionInterfaceReconciled, false, reasonPending, "waiting for the vpc-ovn-controller to connect the LSP")
		return reconcile.Result{}, nil
	}
	key := portKey{dpu: spec.node(), function: fn}
	if !r.plane.isPlugged(key, id) {
		if left := r.pace.wait("plug/"+string(si.GetUID()), r.options.Timing.AgentReady); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		if err := r.plugPort(ctx, key, id); err != nil {
			report.condition(conditionInterfaceReconciled, false, reasonError, err.Error())
			return reconcile.Result{RequeueAfter: r.options.Timing.AgentRetry}, nil
		}
	}
	report.succeed(conditionInterfaceReconciled)
	return reconcile.Result{}, nil
}

// mac is what the agent takes for the port's MAC address.
func (r *agents) mac(si *unstructured.Unstructured, dpu string, fn function) (string, bool) {
	c, ok := r.hardware.get(dpu)
	if !ok {
		return "", false
	}
	mac, ok := c.hostMAC(fn)
	if !ok {
		return "", false
	}
	if si.GetAnnotations()[annotationUnknown] == "true" {
		return "unknown", true
	}
	if wrong, ok := r.faults.find(WrongMAC, dpu); ok {
		return wrong, true
	}
	return mac, true
}

func (r *agents) unplug(ctx context.Context, si *unstructured.Unstructured, dpu string) (reconcile.Result, error) {
	if left := r.pace.wait("unplug/"+string(si.GetUID()), r.options.Timing.AgentUnplug); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if !r.faults.has(AgentForgetsPort, dpu) {
		if err := r.unplugPort(ctx, dpu, interfaceID(si.GetNamespace(), si.GetName())); err != nil {
			r.log.Error(err, "detach", "ServiceInterface", si.GetName())
			return reconcile.Result{RequeueAfter: r.options.Timing.AgentRetry}, nil
		}
	}
	return reconcile.Result{}, dropFinalizer(ctx, r.dpuCluster, si, finalizerSINode)
}

// sweeper has every living agent take ports off its switch whose ServiceInterface does not exist, until ctx ends.
func (f *Fabric) sweeper(ctx context.Context) error {
	sweep := func(ctx context.Context) (bool, error) {
		list := newList(kindSI)
		if err := f.dpuCluster.List(ctx, list); err != nil {
			if ctx.Err() == nil {
				f.log.Error(err, "sweep stale ports: list ServiceInterfaces")
			}
			return false, nil
		}
		wanted := map[string]bool{}
		for i := range list.Items {
			wanted[interfaceID(list.Items[i].GetNamespace(), list.Items[i].GetName())] = true
		}
		for _, dpu := range f.hardware.names() {
			if !f.agentAlive(dpu) || f.faults.has(AgentForgetsPort, dpu) {
				continue
			}
			for _, id := range f.plane.plugged(dpu) {
				if wanted[id] {
					continue
				}
				if err := f.unplugPort(ctx, dpu, id); err != nil && ctx.Err() == nil {
					f.log.Error(err, "sweep stale ports")
				}
			}
		}
		return false, nil
	}
	return ignoreStopped(wait.PollUntilContextCancel(ctx, f.options.Timing.StaleSweep, false, sweep))
}
