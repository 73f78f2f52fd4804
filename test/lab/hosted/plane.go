// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package hosted

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	finalizer = "controlplane.lab.dpucloud.github.com/processes"
	// configuration is what kubeadm join wants to find in a cluster.
	configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: %s\ncontrolPlaneEndpoint: %s\n"
)

// plane is a control plane that runs.
type plane struct {
	endpoint  string
	processes []*proc.Process
}

// kill ends the processes at once, the API server before its etcd.
func (l *plane) kill(ctx context.Context) error {
	var errs []error
	for _, process := range slices.Backward(l.processes) {
		errs = append(errs, process.Kill(ctx))
	}
	return errors.Join(errs...)
}

// start brings a control plane up and hands out its credentials. Nothing stays behind when it fails, but the CA.
func (p *Planes) start(ctx context.Context, object *unstructured.Unstructured, cluster *clusterv1.Cluster, endpoint clusterv1.APIEndpoint) (*plane, error) {
	started := &plane{endpoint: endpoint.String()}
	err := p.startProcesses(ctx, started, object, cluster, endpoint)
	if err == nil {
		return started, nil
	}
	ctx = context.WithoutCancel(ctx)
	return nil, errors.Join(err, p.options.Kubelets.Withdraw(ctx, started.endpoint), started.kill(ctx))
}

func (p *Planes) startProcesses(ctx context.Context, started *plane, object *unstructured.Unstructured, cluster *clusterv1.Cluster, endpoint clusterv1.APIEndpoint) error {
	ca, err := p.authority(ctx, object, cluster)
	if err != nil {
		return err
	}
	etcdCA, err := pki.NewCA("etcd")
	if err != nil {
		return err
	}
	name := "hosted-" + object.GetNamespace() + "-" + object.GetName()
	directory := filepath.Join(p.options.Dir, name, string(object.GetUID()))
	store, err := controlplane.Etcd{
		Name: "etcd." + name, Binary: filepath.Join(p.options.Bin, "etcd"), Dir: filepath.Join(directory, "etcd"), CA: etcdCA,
	}.Start(ctx, p.options.Supervisor)
	if err != nil {
		return err
	}
	started.processes = append(started.processes, store.Process)
	caFile, err := ca.WriteCert(directory, "kubelet-ca")
	if err != nil {
		return err
	}
	server, err := controlplane.APIServer{
		Name: "kube-apiserver." + name, Binary: filepath.Join(p.options.Bin, "kube-apiserver"), Dir: filepath.Join(directory, "kubernetes"),
		Etcd: store, Prefix: "/registry", Port: endpoint.Port, CA: ca, ExtraArgs: controlplane.WorkloadArgs(caFile),
	}.Start(ctx, p.options.Supervisor)
	if err != nil {
		return err
	}
	started.processes = append(started.processes, server.Process)
	clients, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		return err
	}
	version, _, _ := unstructured.NestedString(object.Object, "spec", "version")
	if err := controlplane.Publish(ctx, clients, started.endpoint, ca.CertPEM, fmt.Sprintf(configuration, version, started.endpoint)); err != nil {
		return err
	}
	if err := p.options.Kubelets.Serve(ctx, started.endpoint, server); err != nil {
		return err
	}
	return p.handOut(ctx, object, cluster, server.Admin())
}

// authority is the cluster's CA: the one in its Secret, or a new one. Bootstrap data for workers is made of that Secret.
func (p *Planes) authority(ctx context.Context, object *unstructured.Unstructured, cluster *clusterv1.Cluster) (*pki.CA, error) {
	existing := &corev1.Secret{}
	err := p.client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: cluster.Name + "-ca"}, existing)
	if err == nil {
		return pki.LoadCA(existing.Data[corev1.TLSCertKey], existing.Data[corev1.TLSPrivateKeyKey])
	}
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	ca, err := pki.NewCA(cluster.Name)
	if err != nil {
		return nil, err
	}
	return ca, p.client.Create(ctx, secret(object, cluster, "ca", map[string][]byte{corev1.TLSCertKey: ca.CertPEM, corev1.TLSPrivateKeyKey: ca.KeyPEM}))
}

// handOut stores the kubeconfig where Cluster API looks for it.
func (p *Planes) handOut(ctx context.Context, object *unstructured.Unstructured, cluster *clusterv1.Cluster, admin *rest.Config) error {
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster.Name] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: admin.CertData, ClientKeyData: admin.KeyData}
	config.Contexts["admin"] = &clientcmdapi.Context{Cluster: cluster.Name, AuthInfo: "admin"}
	config.CurrentContext = "admin"
	content, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	err = p.client.Create(ctx, secret(object, cluster, "kubeconfig", map[string][]byte{"value": content}))
	return client.IgnoreAlreadyExists(err)
}

// secret is one that the object owns, as Cluster API names and labels them.
func secret(object *unstructured.Unstructured, cluster *clusterv1.Cluster, purpose string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cluster.Namespace, Name: cluster.Name + "-" + purpose,
			Labels:          map[string]string{clusterv1.ClusterNameLabel: cluster.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(object, Kind)},
		},
		Type: clusterv1.ClusterSecretType, Data: data,
	}
}

// end takes a control plane down and lets go of its object; the garbage collector takes the Secrets.
func (p *Planes) end(ctx context.Context, key client.ObjectKey, object *unstructured.Unstructured) error {
	if running := p.planes[key]; running != nil {
		if err := errors.Join(p.options.Kubelets.Withdraw(ctx, running.endpoint), running.kill(ctx)); err != nil {
			return err
		}
		delete(p.planes, key)
	}
	if !slices.Contains(object.GetFinalizers(), finalizer) {
		return nil
	}
	before := object.DeepCopy()
	object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == finalizer }))
	return client.IgnoreNotFound(p.client.Patch(ctx, object, client.MergeFrom(before)))
}
