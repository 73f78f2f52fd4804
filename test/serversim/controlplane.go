// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	_ "embed" // for kwok's stages
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	pkiDirectory    = "/etc/kubernetes/pki/"
	etcdClientPort  = 2379
	apiServerPort   = 6443
	settleTimeout   = 30 * time.Second
	probeTimeout    = 2 * time.Second
	kubeSystem      = metav1.NamespaceSystem
	kubeadmConfigID = "kubeadm-config"
)

//go:embed kwok/stages.yaml
var stages string

// workload is a running control plane, on one server.
type workload struct {
	owner    string // system ID
	endpoint string
	version  string
	server   *controlplane.RunningAPIServer
	clients  kubernetes.Interface
	// kubeletPort serves all kubelets of the cluster: kwok's.
	kubeletPort int32
	processes   []*proc.Process
}

func (r *Rack) workload(endpoint string) *workload {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.workloads[endpoint]
}

func (r *Rack) forget(w *workload) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.workloads[w.endpoint] == w {
		delete(r.workloads, w.endpoint)
	}
}

// kill ends the processes at once.
func (w *workload) kill(ctx context.Context) error {
	var errs []error
	for i := len(w.processes) - 1; i >= 0; i-- {
		errs = append(errs, w.processes[i].Kill(ctx))
	}
	return errors.Join(errs...)
}

// startControlPlane starts etcd, the API server and kwok from the certificates that the user data brought, on an empty
// disk or on one that had them before.
func (r *Rack) startControlPlane(ctx context.Context, s *server, n *node) (*workload, error) {
	port, err := endpointPort(n.endpoint)
	if err != nil {
		return nil, err
	}
	if r.workload(n.endpoint) != nil {
		return nil, fmt.Errorf("kubeadm init: another control plane answers at %s already", n.endpoint)
	}
	w := &workload{owner: s.SystemID, endpoint: n.endpoint, version: n.config.cluster.KubernetesVersion}
	if err := r.startProcesses(ctx, w, s, n, port); err != nil {
		return nil, errors.Join(err, w.kill(context.WithoutCancel(ctx)))
	}
	r.mu.Lock()
	r.workloads[n.endpoint] = w
	r.mu.Unlock()
	return w, nil
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

func (r *Rack) startProcesses(ctx context.Context, w *workload, s *server, n *node, port int32) error {
	ca, err := authority(n.files, "ca")
	if err != nil {
		return err
	}
	etcdCA, err := authority(n.files, "etcd/ca")
	if err != nil {
		return err
	}
	disk := r.diskDir(s)
	store, err := controlplane.Etcd{
		Name: "etcd." + s.SystemID, MemberName: n.name, Binary: filepath.Join(r.options.Bin, "etcd"),
		Dir: filepath.Join(disk, "etcd"), CA: etcdCA,
	}.Start(ctx, r.options.Supervisor)
	if err != nil {
		return err
	}
	w.processes = append(w.processes, store.Process)
	directory := filepath.Join(disk, "kubernetes")
	caFile, err := ca.WriteCert(directory, "kubelet-ca")
	if err != nil {
		return err
	}
	w.server, err = controlplane.APIServer{
		Name: "kube-apiserver." + s.SystemID, Binary: filepath.Join(r.options.Bin, "kube-apiserver"),
		Dir: directory, Etcd: store, Prefix: "/registry", Port: port, CA: ca,
		ServiceAccounts: pki.KeyPair{CertPEM: []byte(n.files[pkiDirectory+"sa.pub"]), KeyPEM: []byte(n.files[pkiDirectory+"sa.key"])},
		ExtraArgs: []string{
			"--enable-bootstrap-token-auth=true",
			"--kubelet-certificate-authority=" + caFile, "--kubelet-preferred-address-types=InternalDNS",
			// Its taint is taken away by a controller that no cluster of the lab runs.
			"--disable-admission-plugins=TaintNodesByCondition",
		},
	}.Start(ctx, r.options.Supervisor)
	if err != nil {
		return err
	}
	w.processes = append(w.processes, w.server.Process)
	if w.clients, err = kubernetes.NewForConfig(w.server.Admin()); err != nil {
		return err
	}
	return r.startKubelets(ctx, w, s, directory, store.Port)
}

// authority reads a CA that Cluster API has put into the user data.
func authority(files map[string]string, name string) (*pki.CA, error) {
	ca, err := pki.LoadCA([]byte(files[pkiDirectory+name+".crt"]), []byte(files[pkiDirectory+name+".key"]))
	if err != nil {
		return nil, fmt.Errorf("kubeadm init: %s%s.crt and .key from the user data: %w", pkiDirectory, name, err)
	}
	return ca, nil
}

// startKubelets starts kwok, which plays the kubelets of all nodes of the cluster. It forwards to the real processes what is
// forwarded to the control plane's static Pods.
func (r *Rack) startKubelets(ctx context.Context, w *workload, s *server, directory string, etcdPort int32) error {
	serving, err := w.server.CA.Issue(pki.Request{CommonName: "kubelet", Server: true}.Loopback())
	if err != nil {
		return err
	}
	certFile, keyFile, err := serving.Write(directory, "kubelet")
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(directory, "kubelet.kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, w.server.Admin()); err != nil {
		return err
	}
	configFile := filepath.Join(directory, "kwok.yaml")
	if err := os.WriteFile(configFile, []byte(kwokConfig(etcdPort, w.server.Port)), 0o600); err != nil {
		return err
	}
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	if w.kubeletPort, err = proc.FreePort(); err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(w.kubeletPort)))
	process, err := r.options.Supervisor.Start(ctx, proc.Spec{
		Name: "kwok." + s.SystemID, Path: filepath.Join(r.options.Bin, "kwok"), Tier: controlplane.TierController,
		Args: []string{
			"--kubeconfig=" + kubeconfig, "--manage-all-nodes", "--node-lease-duration-seconds=0",
			"--node-ip=127.0.0.1", "--node-port=" + strconv.Itoa(int(w.kubeletPort)), "--server-address=" + address,
			"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile, "--config=" + configFile,
		},
		Ready: func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			return response.Body.Close()
		},
	})
	if err != nil {
		return err
	}
	w.processes = append(w.processes, process)
	return nil
}

// kwokConfig is the stages and where ports of the static Pods lead.
func kwokConfig(etcdPort, serverPort int32) string {
	return stages + fmt.Sprintf(`---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterPortForward
metadata:
  name: control-plane
spec:
  selector:
    matchNamespaces: [kube-system]
  forwards:
  - ports: [%d]
    target: {address: 127.0.0.1, port: %d}
  - ports: [%d]
    target: {address: 127.0.0.1, port: %d}
`, etcdClientPort, etcdPort, apiServerPort, serverPort)
}

// initialize is what kubeadm init leaves in a new cluster: its configuration and the mirror Pods of the static ones.
func (w *workload) initialize(ctx context.Context, n *node) error {
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: kubeadmConfigID, Namespace: kubeSystem},
		Data:       map[string]string{"ClusterConfiguration": n.config.cluster.document},
	}
	// The API server creates kube-system by itself, a moment after it is ready.
	var last error
	err := wait.PollUntilContextTimeout(ctx, joinInterval, settleTimeout, true, func(ctx context.Context) (bool, error) {
		_, last = w.clients.CoreV1().ConfigMaps(kubeSystem).Create(ctx, configMap, metav1.CreateOptions{})
		return last == nil || apierrors.IsAlreadyExists(last), nil
	})
	if err != nil {
		return fmt.Errorf("kubeadm init: storing its configuration: %w", errors.Join(err, last))
	}
	for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		_, err := w.clients.CoreV1().Pods(kubeSystem).Create(ctx, staticPod(component, n, w.version), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("kubeadm init: mirroring the static Pod of %s: %w", component, err)
		}
	}
	return nil
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
