// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

const (
	pkiDirectory   = "/etc/kubernetes/pki/"
	etcdClientPort = 2379
	apiServerPort  = 6443
	kubeSystem     = metav1.NamespaceSystem
	// etcdCallTimeout is kubeadm's for each call to etcd, within which it repeats what etcd refuses.
	etcdCallTimeout = 2 * time.Minute
	restartInterval = 2 * time.Second

	etcdURLsAnnotation  = "kubeadm.kubernetes.io/etcd.advertise-client-urls"
	apiServerAnnotation = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"
)

// certificates are the ones that all control-plane servers of a cluster share, by user data.
type certificates struct {
	ca, etcd *pki.CA
	accounts pki.KeyPair
}

// sharedCertificates reads what kubeadm insists on before it makes a server part of a control plane.
func sharedCertificates(files map[string]string) (certificates, error) {
	var shared certificates
	var err error
	if shared.ca, err = authority(files, "ca"); err != nil {
		return shared, err
	}
	if shared.etcd, err = authority(files, "etcd/ca"); err != nil {
		return shared, err
	}
	if _, err = authority(files, "front-proxy-ca"); err != nil {
		return shared, err
	}
	shared.accounts = pki.KeyPair{CertPEM: []byte(files[pkiDirectory+"sa.pub"]), KeyPEM: []byte(files[pkiDirectory+"sa.key"])}
	if len(shared.accounts.CertPEM) == 0 || len(shared.accounts.KeyPEM) == 0 {
		return shared, fmt.Errorf("the user data brings no %ssa.pub and .key", pkiDirectory)
	}
	return shared, nil
}

// authority reads a CA that Cluster API has put into the user data.
func authority(files map[string]string, name string) (*pki.CA, error) {
	ca, err := pki.LoadCA([]byte(files[pkiDirectory+name+".crt"]), []byte(files[pkiDirectory+name+".key"]))
	if err != nil {
		return nil, fmt.Errorf("%s%s.crt and .key from the user data: %w", pkiDirectory, name, err)
	}
	return ca, nil
}

// member is a control-plane server's running part of its cluster.
type member struct {
	etcd    *controlplane.RunningEtcd
	server  *controlplane.RunningAPIServer
	kubelet *kubelet
}

// kill ends it at once.
func (m *member) kill(ctx context.Context) error {
	var errs []error
	if m.kubelet != nil {
		errs = append(errs, m.kubelet.close())
	}
	if m.server != nil {
		errs = append(errs, m.server.Process.Kill(ctx))
	}
	if m.etcd != nil {
		errs = append(errs, m.etcd.Process.Kill(ctx))
	}
	return errors.Join(errs...)
}

// initControlPlane is kubeadm init: a new etcd cluster and its first API server, behind the operator's balancer.
func (r *Rack) initControlPlane(ctx context.Context, s *server, n *node) error {
	port, err := endpointPort(n.endpoint)
	if err != nil {
		return err
	}
	if n.certificates, err = sharedCertificates(n.files); err != nil {
		return fmt.Errorf("kubeadm init: %w", err)
	}
	if err := r.reserve(ctx, n.endpoint); err != nil {
		return err
	}
	c := newCluster(n.endpoint, n.certificates.ca)
	if err := r.found(ctx, c, s, n, port); err != nil {
		r.opened(n.endpoint, nil)
		ctx := context.WithoutCancel(ctx)
		return errors.Join(err, r.stopMember(ctx, c, s), c.close(ctx))
	}
	n.cluster = c
	r.opened(n.endpoint, c)
	return controlplane.Publish(ctx, c.clients, c.endpoint, c.ca.CertPEM, n.config.cluster.document)
}

func (r *Rack) found(ctx context.Context, c *cluster, s *server, n *node, port int32) error {
	var err error
	if c.balancer, err = controlplane.NewBalancer(port); err != nil {
		return err
	}
	if err := r.startMember(ctx, c, s, n, nil); err != nil {
		return err
	}
	return r.connect(ctx, c, r.member(c, s).server.Admin())
}

// endpointPort accepts only what a process of the lab can serve.
func endpointPort(endpoint string) (int32, error) {
	host, text, err := net.SplitHostPort(endpoint)
	if err != nil {
		return 0, fmt.Errorf("the control plane endpoint %q is not host:port", endpoint)
	}
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil || host != "127.0.0.1" {
		return 0, fmt.Errorf("the control plane endpoint %s is not on 127.0.0.1, where the lab's control planes live", endpoint)
	}
	return int32(port), nil
}

// joinControlPlane is kubeadm join of a further control-plane server, after discovery: a learner that is promoted, then an API
// server on it.
func (r *Rack) joinControlPlane(ctx context.Context, s *server, n *node) error {
	var err error
	if n.certificates, err = sharedCertificates(n.files); err != nil {
		return fmt.Errorf("kubeadm join: %w", err)
	}
	c := n.cluster
	if n.certificates.ca.PublicKeyHash() != c.ca.PublicKeyHash() {
		return fmt.Errorf("kubeadm join: the CA in the user data is not the one of the cluster at %s", c.endpoint)
	}
	if c.balancer == nil {
		return fmt.Errorf("kubeadm join: the control plane at %s is hosted elsewhere", c.endpoint)
	}
	membership, err := r.membership(ctx, c, n)
	if err != nil {
		return fmt.Errorf("kubeadm join: %w", err)
	}
	members, err := healthyMembers(ctx, membership, r.options.JoinTimeout)
	if err != nil {
		return fmt.Errorf("kubeadm join: %w", err)
	}
	if n.etcdPorts, err = controlplane.NewEtcdPorts(); err != nil {
		return err
	}
	r.joins(c, s)
	learner, err := announce(ctx, membership, n.etcdPorts.PeerURL())
	if err != nil {
		return err
	}
	return r.startMember(ctx, c, s, n, &joining{membership: membership, learner: learner, members: members})
}

// membership finds etcd as kubeadm does, by the annotations of its Pods.
func (r *Rack) membership(ctx context.Context, c *cluster, n *node) (*controlplane.Membership, error) {
	pods, err := c.clients.CoreV1().Pods(kubeSystem).List(ctx, metav1.ListOptions{LabelSelector: "component=etcd,tier=control-plane"})
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, pod := range pods.Items {
		if url := pod.Annotations[etcdURLsAnnotation]; url != "" {
			urls = append(urls, url)
		}
	}
	if len(urls) == 0 {
		return nil, errors.New("no Pod in kube-system says where etcd is")
	}
	return controlplane.NewMembership(n.certificates.etcd, urls)
}

// healthyMembers waits until every member can commit: adding another could otherwise cost the quorum.
func healthyMembers(ctx context.Context, membership *controlplane.Membership, patience time.Duration) (members []controlplane.EtcdMember, err error) {
	var last error
	err = wait.PollUntilContextTimeout(ctx, joinInterval, patience, true, func(ctx context.Context) (bool, error) {
		if members, last = membership.List(ctx); last == nil {
			last = membership.Healthy(ctx, members)
		}
		return last == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("etcd is not healthy: %w", errors.Join(last, err))
	}
	return members, nil
}

// announce makes the server a member without a vote. etcd refuses until all who have one have been connected for some seconds.
func announce(ctx context.Context, membership *controlplane.Membership, peerURL string) (learner controlplane.EtcdMember, err error) {
	var last error
	err = wait.PollUntilContextTimeout(ctx, joinInterval, etcdCallTimeout, true, func(ctx context.Context) (bool, error) {
		learner, last = membership.AddLearner(ctx, peerURL)
		return last == nil, nil
	})
	if err != nil {
		return learner, fmt.Errorf("kubeadm join: adding the learner: %w", errors.Join(last, err))
	}
	return learner, nil
}

// joining is a member that has been announced to the others.
type joining struct {
	membership *controlplane.Membership
	learner    controlplane.EtcdMember
	members    []controlplane.EtcdMember
}

// promote waits until the learner has caught up, and gives it its vote.
func (j *joining) promote(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, joinInterval, etcdCallTimeout, true, func(ctx context.Context) (bool, error) {
		last = j.membership.Promote(ctx, j.learner.ID)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("kubeadm join: promoting the learner: %w", errors.Join(last, err))
	}
	return nil
}

// startMember starts etcd and the API server from what is on the disk, and puts the latter behind the balancer. Nothing stays
// behind when it fails.
func (r *Rack) startMember(ctx context.Context, c *cluster, s *server, n *node, join *joining) error {
	m := &member{}
	if err := r.startProcesses(ctx, m, s, n, join); err != nil {
		return errors.Join(err, m.kill(context.WithoutCancel(ctx)))
	}
	if err := c.balancer.Add(s.SystemID, m.server); err != nil {
		return errors.Join(err, m.kill(context.WithoutCancel(ctx)))
	}
	r.setMember(c, s, m)
	return nil
}

func (r *Rack) startProcesses(ctx context.Context, m *member, s *server, n *node, join *joining) error {
	disk := r.diskDir(s)
	etcd := controlplane.Etcd{
		Name: "etcd." + s.SystemID, MemberName: n.name, Binary: filepath.Join(r.options.Bin, "etcd"),
		Dir: filepath.Join(disk, "etcd"), CA: n.certificates.etcd, Ports: n.etcdPorts,
	}
	if join != nil {
		etcd.Join = append(etcd.Join, join.members...)
	}
	var err error
	if m.etcd, err = started(etcd.Start(ctx, r.options.Supervisor)); err != nil {
		return err
	}
	n.etcdPorts = m.etcd.Ports
	if join != nil {
		if err := join.promote(ctx); err != nil {
			return err
		}
	}
	directory := filepath.Join(disk, "kubernetes")
	caFile, err := n.certificates.ca.WriteCert(directory, "kubelet-ca")
	if err != nil {
		return err
	}
	m.server, err = started(controlplane.APIServer{
		Name: "kube-apiserver." + s.SystemID, Binary: filepath.Join(r.options.Bin, "kube-apiserver"),
		Dir: directory, Etcd: m.etcd, Prefix: "/registry", CA: n.certificates.ca, ServiceAccounts: n.certificates.accounts,
		ExtraArgs: controlplane.WorkloadArgs(caFile),
	}.Start(ctx, r.options.Supervisor))
	if err != nil {
		return err
	}
	m.kubelet, err = newKubelet(n.certificates.ca, forwards{
		"etcd-" + n.name:           {etcdClientPort: m.etcd.Ports.Client},
		"kube-apiserver-" + n.name: {apiServerPort: m.server.Port},
	})
	return err
}

// started drops what did not start, of which there is nothing to end.
func started[T any](running *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return running, nil
}

// stopMember ends the server's part of the control plane, if it runs.
func (r *Rack) stopMember(ctx context.Context, c *cluster, s *server) error {
	m := r.member(c, s)
	if m == nil {
		return nil
	}
	r.setMember(c, s, nil)
	c.balancer.Remove(s.SystemID)
	return m.kill(ctx)
}

// restartMember starts what an installed control-plane server ran before, again and again as its kubelet would.
func (r *Rack) restartMember(ctx context.Context, s *server, n *node) error {
	return wait.PollUntilContextCancel(ctx, restartInterval, true, func(ctx context.Context) (bool, error) {
		if r.cluster(n.endpoint) != n.cluster {
			return false, fmt.Errorf("another cluster answers at %s now", n.endpoint)
		}
		err := r.startMember(ctx, n.cluster, s, n, nil)
		if err != nil && ctx.Err() == nil {
			r.options.Log.Error(err, "restarting a control plane", "server", s.SystemID)
		}
		return err == nil, nil
	})
}

// mirror makes the static Pods visible, as the kubelet does. Ones that an earlier server of that name has left are taken over: kwok,
// which deletes by name only, could take the new one for the old one.
func (c *cluster) mirror(ctx context.Context, n *node, m *member, version string) error {
	for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		pod := staticPod(component, n, version)
		switch component {
		case "etcd":
			pod.Annotations[etcdURLsAnnotation] = m.etcd.Ports.ClientURL()
		case "kube-apiserver":
			pod.Annotations[apiServerAnnotation] = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(m.server.Port)))
		}
		if err := c.mirrorPod(ctx, pod); err != nil {
			return fmt.Errorf("mirroring the static Pod of %s: %w", component, err)
		}
	}
	return nil
}

func (c *cluster) mirrorPod(ctx context.Context, pod *corev1.Pod) error {
	pods := c.clients.CoreV1().Pods(kubeSystem)
	_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	current, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	maps.Copy(current.Annotations, pod.Annotations)
	current.Spec.Containers[0].Image = pod.Spec.Containers[0].Image
	_, err = pods.Update(ctx, current, metav1.UpdateOptions{})
	return err
}

func staticPod(component string, n *node, version string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: component + "-" + n.name, Namespace: kubeSystem,
			Labels:      map[string]string{"component": component, "tier": "control-plane"},
			Annotations: map[string]string{corev1.MirrorPodAnnotationKey: component},
		},
		Spec: corev1.PodSpec{
			NodeName: n.name, HostNetwork: true,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: component, Image: component + ":" + version}},
		},
	}
}
