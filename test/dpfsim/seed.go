// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// IsolationClassName is the class Seed makes.
const IsolationClassName = "ovn"

const seedWriters = 8

// Seed puts cards into servers and creates what DPF has of them: DPUDevice, DPUNode, DPU and, as soon as Run runs, the Node;
// besides the DPUCluster with its kubeconfig and the isolation class. Objects that exist are left as they are, so that Seed
// may be called again for the same or for more cards.
func (f *Fabric) Seed(ctx context.Context, dpus []DPU) error {
	if err := f.seedCluster(ctx); err != nil {
		return err
	}
	servers := map[string][]any{}
	labels := map[string]string{}
	for i := range dpus {
		d := &dpus[i]
		d.setDefaults()
		servers[d.Node] = append(servers[d.Node], map[string]any{"name": d.Device})
		if d.SystemID != "" {
			labels[d.Node] = d.SystemID
		}
	}
	var group errgroup.Group
	group.SetLimit(seedWriters)
	for server, devices := range servers {
		group.Go(func() error { return f.seedServer(ctx, server, labels[server], devices) })
	}
	for _, d := range dpus {
		group.Go(func() error {
			if err := f.seedDPU(ctx, d); err != nil {
				return err
			}
			dpu := newObject(kindDPU)
			if err := f.management.Get(ctx, client.ObjectKey{Namespace: f.options.Namespace, Name: d.Name}, dpu); err != nil {
				return fmt.Errorf("dpfsim: get DPU %s: %w", d.Name, err)
			}
			return f.hardware.add(d, dpu.GetUID())
		})
	}
	return group.Wait()
}

func (d *DPU) setDefaults() {
	if d.Device == "" {
		d.Device = strings.ToLower(d.Serial)
	}
	if d.Node == "" {
		d.Node = "dpu-node-" + strings.ToLower(d.Serial)
	}
	if d.Phase == "Ready" {
		d.Phase = ""
	}
	d.NumberOfPFs = max(d.NumberOfPFs, 1)
}

func (f *Fabric) seedCluster(ctx context.Context) error {
	for _, c := range []client.Client{f.management, f.dpuCluster} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.options.Namespace}}
		if err := create(ctx, c, namespace); err != nil {
			return err
		}
	}
	kubeconfig, err := kubeconfigFor(f.options.DPUCluster, f.options.DPUClusterName)
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.options.Namespace, Name: f.options.DPUClusterName + "-admin-kubeconfig"},
		Data:       map[string][]byte{"super-admin.conf": kubeconfig},
	}
	if err := create(ctx, f.management, secret); err != nil {
		return err
	}
	dpuCluster := f.object(kindDPUCluster, f.options.DPUClusterName, map[string]any{
		"type": "static", "kubeconfig": secret.Name, "maxNodes": int64(1000),
	})
	dpuCluster.SetLabels(f.options.DPUClusterLabels)
	err = f.createWithStatus(ctx, dpuCluster, func(r *report) {
		r.set("Ready", "phase")
		r.set("v1.36.3", "version")
		r.succeed("Created")
		r.succeed("Ready")
	})
	if err != nil {
		return err
	}
	class := newObject(kindIsolationClass)
	class.SetName(IsolationClassName)
	class.Object["spec"] = map[string]any{
		"provisioner": provisionerOVN,
		// An address for documentation (RFC 5737): nobody is to reach OVN through here.
		"parameters": map[string]any{"ovn-nb-endpoint": "tcp:192.0.2.10:30641", "ovn-sb-endpoint": "tcp:192.0.2.10:30642"},
	}
	return create(ctx, f.management, class)
}

func (f *Fabric) seedServer(ctx context.Context, name, systemID string, devices []any) error {
	node := f.object(kindDPUNode, name, map[string]any{
		"dpus": devices, "nodeRebootMethod": map[string]any{"external": map[string]any{}},
	})
	node.SetLabels(map[string]string{"feature.node.kubernetes.io/dpu-enabled": "true"})
	if systemID != "" {
		node.SetLabels(map[string]string{"feature.node.kubernetes.io/dpu-enabled": "true", f.options.ServerLabelKey: systemID})
	}
	return f.createWithStatus(ctx, node, func(r *report) {
		r.set("redfish", "dpuInstallInterface")
		r.succeed("Ready")
	})
}

func (f *Fabric) seedDPU(ctx context.Context, d DPU) error {
	if d.ForeignVPC != "" {
		if err := f.ensureForeignVPC(ctx, d.ForeignVPC); err != nil {
			return err
		}
	}
	spec := map[string]any{"serialNumber": d.Serial, "numberOfPFs": int64(d.NumberOfPFs)}
	if d.BMC.IsValid() {
		spec["bmcIp"], spec["bmcPort"] = d.BMC.Addr().String(), int64(d.BMC.Port())
	}
	device := f.object(kindDPUDevice, d.Device, spec)
	device.SetLabels(map[string]string{labelDPUNodeName: d.Node})
	err := f.createWithStatus(ctx, device, func(r *report) {
		r.set(d.Serial, "serialNumber")
		if d.BMC.IsValid() {
			r.set(d.BMC.Addr().String(), "bmcIp")
		}
		// BMCs write MAC addresses in capitals.
		r.set(strings.ToUpper(d.PF0MAC), "pf0Mac")
		r.set("dpu", "dpuMode")
		r.set("BlueField3", "dpuType")
		r.set(map[string]any{"enabled": true}, "secureBoot")
		for _, condition := range []string{"Discovered", "NodeAttached", "Initialized", "Ready"} {
			r.succeed(condition)
		}
	})
	if err != nil {
		return err
	}
	return f.createWithStatus(ctx, f.newDPU(d, d.TemplateLabels), func(r *report) {
		f.fillDPU(r)
		setPhase(r, cmp.Or(d.Phase, phaseReady), "")
	})
}

// ensureForeignVPC makes the VPC "namespace/name" of somebody else, which takes the Nodes with its claim label.
func (f *Fabric) ensureForeignVPC(ctx context.Context, vpc string) error {
	namespace, name, ok := strings.Cut(vpc, "/")
	if !ok {
		return fmt.Errorf("dpfsim: foreign VPC %q: want namespace/name", vpc)
	}
	if err := create(ctx, f.management, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return err
	}
	object := newObject(kindVPC)
	object.SetNamespace(namespace)
	object.SetName(name)
	object.Object["spec"] = map[string]any{
		"tenant": "somebody-else", "isolationClassName": IsolationClassName, "interNetworkAccess": false,
		"nodeSelector": map[string]any{"matchLabels": map[string]any{claimLabel: claimValue(vpc)}},
	}
	return create(ctx, f.management, object)
}

// object makes one in DPF's own namespace.
func (f *Fabric) object(kind schema.GroupVersionKind, name string, spec map[string]any) *unstructured.Unstructured {
	object := newObject(kind)
	object.SetNamespace(f.options.Namespace)
	object.SetName(name)
	object.Object["spec"] = spec
	return object
}

func (f *Fabric) createWithStatus(ctx context.Context, object *unstructured.Unstructured, fill func(*report)) error {
	err := f.management.Create(ctx, object)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("dpfsim: create %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	r := newReport(f.clock, object)
	fill(r)
	if err := r.write(ctx, f.management); err != nil {
		return fmt.Errorf("dpfsim: status of %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}

func create(ctx context.Context, c client.Client, object client.Object) error {
	if err := c.Create(ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("dpfsim: create %T %s: %w", object, object.GetName(), err)
	}
	return nil
}

// kubeconfigFor writes what a rest.Config says as a file.
func kubeconfigFor(c *rest.Config, name string) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server: c.Host, CertificateAuthorityData: c.CAData, CertificateAuthority: c.CAFile,
		InsecureSkipTLSVerify: c.Insecure, TLSServerName: c.ServerName,
	}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, ClientCertificate: c.CertFile, ClientKey: c.KeyFile,
		Token: c.BearerToken, TokenFile: c.BearerTokenFile,
	}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("dpfsim: kubeconfig of %s: %w", name, err)
	}
	return data, nil
}
