// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/serversim"
)

// planeData is what user data of control-plane servers of one cluster has in common.
type planeData struct {
	endpoint             string
	ca, etcd, frontProxy *pki.CA
	accounts             pki.KeyPair
	tokenID, tokenSecret string
	pinned               string
	without              string // a file that is left out
	joinsAt              string // instead of endpoint
	authority            *pki.CA
	presentedToken       string
}

func newPlaneData(g Gomega) planeData {
	port, err := proc.FreePort()
	g.Expect(err).NotTo(HaveOccurred())
	data := planeData{endpoint: fmt.Sprintf("127.0.0.1:%d", port), tokenID: "abcdef", tokenSecret: "0123456789abcdef"}
	for name, ca := range map[string]**pki.CA{"kubernetes": &data.ca, "etcd-ca": &data.etcd, "front-proxy-ca": &data.frontProxy} {
		*ca, err = pki.NewCA(name)
		g.Expect(err).NotTo(HaveOccurred())
	}
	data.accounts, err = pki.NewSigningKey()
	g.Expect(err).NotTo(HaveOccurred())
	data.pinned, data.joinsAt, data.authority = data.ca.PublicKeyHash(), data.endpoint, data.ca
	data.presentedToken = data.tokenID + "." + data.tokenSecret
	return data
}

// files are those that all control-plane servers share.
func (d planeData) files() []map[string]string {
	var files []map[string]string
	for path, content := range map[string][]byte{
		"ca.crt": d.authority.CertPEM, "ca.key": d.authority.KeyPEM, "etcd/ca.crt": d.etcd.CertPEM, "etcd/ca.key": d.etcd.KeyPEM,
		"front-proxy-ca.crt": d.frontProxy.CertPEM, "front-proxy-ca.key": d.frontProxy.KeyPEM,
		"sa.pub": d.accounts.CertPEM, "sa.key": d.accounts.KeyPEM,
	} {
		if path != d.without {
			files = append(files, map[string]string{"path": "/etc/kubernetes/pki/" + path, "content": string(content)})
		}
	}
	return files
}

const registration = `
nodeRegistration:
  name: '{{ v1.local_hostname }}'
  kubeletExtraArgs: [{name: provider-id, value: 'maas:///{{ v1.instance_id }}'}]
`

func (d planeData) userData(g Gomega, verb, config string) []byte {
	file := "/run/kubeadm/kubeadm-" + verb + "-config.yaml"
	content, err := yaml.Marshal(map[string]any{
		"write_files": append(d.files(), map[string]string{"path": file, "content": config}),
		"runcmd":      []string{"kubeadm " + verb + " --config " + file + " && echo success > /run/cluster-api/bootstrap-success.complete"},
	})
	g.Expect(err).NotTo(HaveOccurred())
	return append([]byte("## template: jinja\n#cloud-config\n"), content...)
}

func (d planeData) initData(g Gomega) []byte {
	return d.userData(g, "init", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\ncontrolPlaneEndpoint: "+
		d.endpoint+"\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration"+registration)
}

func (d planeData) joinData(g Gomega) []byte {
	return d.userData(g, "join", fmt.Sprintf("apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ncontrolPlane: {localAPIEndpoint: {}}\n"+
		"discovery: {bootstrapToken: {apiServerEndpoint: %q, token: %s, caCertHashes: [%q]}}%s", d.joinsAt, d.presentedToken, d.pinned, registration))
}

func (d planeData) clients(g Gomega) *kubernetes.Clientset {
	admin, err := d.ca.Issue(pki.Request{CommonName: "admin", Organization: []string{"system:masters"}, Client: true})
	g.Expect(err).NotTo(HaveOccurred())
	clients, err := kubernetes.NewForConfig(&rest.Config{Host: "https://" + d.endpoint, Timeout: 10 * time.Second, TLSClientConfig: rest.TLSClientConfig{
		CAData: d.ca.CertPEM, CertData: admin.CertPEM, KeyData: admin.KeyPEM,
	}})
	g.Expect(err).NotTo(HaveOccurred())
	return clients
}

// TestJoin makes a control plane of three servers by hand, one kubeadm at a time, and takes servers away from it.
func TestJoin(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	ctx := t.Context()
	supervisor, err := proc.NewSupervisor(t.TempDir(), testr.New(t))
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(supervisor.Stop(context.WithoutCancel(ctx))).To(Succeed()) })
	bin, err := filepath.Abs("../../bin/lab")
	g.Expect(err).NotTo(HaveOccurred())
	rack := serversim.New(serversim.Options{
		Supervisor: supervisor, Bin: bin, Dir: t.TempDir(), Fabric: &fabric{}, Log: testr.New(t), JoinTimeout: 30 * time.Second,
	})
	watching := make(chan error, 1)
	go func() { watching <- rack.Run(ctx) }()
	t.Cleanup(func() {
		g.Expect(rack.Stop(context.WithoutCancel(ctx))).To(Succeed())
		g.Expect(<-watching).To(Succeed())
	})
	add := func(id string) {
		t.Helper()
		g.Expect(rack.AddServer(serversim.Server{SystemID: id, Hostname: "node-" + id, ProvisioningAddress: netip.MustParseAddr("192.0.2.9")})).To(Succeed())
	}
	boot := func(id string, userData []byte) {
		t.Helper()
		add(id)
		rack.Boot(id, userData)
	}
	record := func(id string) func() *serversim.BootRecord {
		return func() *serversim.BootRecord {
			for _, boot := range rack.Boots() {
				if boot.SystemID == id {
					return &boot
				}
			}
			return nil
		}
	}
	expectJoined := func(id string) {
		t.Helper()
		g.Eventually(record(id), goneWithin, poll).ShouldNot(BeNil())
		g.Expect(*record(id)()).To(And(HaveField("Joined", true), HaveField("ControlPlane", true)))
	}
	good := newPlaneData(g)
	boot("one", good.initData(g))
	expectJoined("one")
	workload := good.clients(g)
	_, err = workload.CoreV1().Secrets("kube-system").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + good.tokenID}, Type: corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": good.tokenID, "token-secret": good.tokenSecret, "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		},
	}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())

	t.Run("what kubeadm refuses", func(t *testing.T) {
		g := NewWithT(t)
		foreign, err := pki.NewCA("foreign")
		g.Expect(err).NotTo(HaveOccurred())
		nowhere, err := proc.FreePort()
		g.Expect(err).NotTo(HaveOccurred())
		refused := map[string]struct {
			change func(*planeData)
			reason string
		}{
			"token":    {func(d *planeData) { d.presentedToken = "abcdef.fedcba9876543210" }, "does not accept the bootstrap token"},
			"hash":     {func(d *planeData) { d.pinned = foreign.PublicKeyHash() }, "none of the pinned public key hashes"},
			"endpoint": {func(d *planeData) { d.joinsAt = fmt.Sprintf("127.0.0.1:%d", nowhere) }, "no API server answers"},
			"ca":       {func(d *planeData) { d.authority = foreign }, "not the one of the cluster"},
			"etcdkey":  {func(d *planeData) { d.without = "etcd/ca.key" }, "/etc/kubernetes/pki/etcd/ca.crt and .key"},
			"sakey":    {func(d *planeData) { d.without = "sa.key" }, "/etc/kubernetes/pki/sa.pub and .key"},
			"proxyca":  {func(d *planeData) { d.without = "front-proxy-ca.crt" }, "/etc/kubernetes/pki/front-proxy-ca.crt and .key"},
			"etcdca":   {func(d *planeData) { d.etcd = foreign }, "etcd is not healthy"},
		}
		for id, bad := range refused { // beside each other: some wait for what never comes
			data := good
			bad.change(&data)
			boot(id, data.joinData(g))
		}
		boot("again", good.initData(g))
		for id, bad := range refused {
			g.Eventually(record(id), goneWithin, poll).ShouldNot(BeNil(), id)
			g.Expect(*record(id)()).To(And(HaveField("Joined", false), HaveField("Reason", ContainSubstring(bad.reason))), id)
			g.Expect(record(id)().Reason).NotTo(ContainSubstring(good.tokenSecret))
		}
		g.Eventually(record("again"), goneWithin, poll).Should(HaveValue(HaveField("Reason", ContainSubstring("another control plane answers"))))
		g.Expect(running(supervisor)).To(ConsistOf("etcd.one", "kube-apiserver.one", HavePrefix("kwok.")), "what failed leaves nothing behind")
	})

	for _, id := range []string{"two", "three"} {
		boot(id, good.joinData(g))
		expectJoined(id)
	}
	write := func(name string) func() error {
		return func() error {
			_, err := workload.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: name}}, metav1.CreateOptions{})
			return err
		}
	}
	t.Run("a majority is needed", func(t *testing.T) {
		g := NewWithT(t)
		rack.PowerChanged("one", false)
		g.Eventually(func() []string { return running(supervisor) }, goneWithin, poll).ShouldNot(ContainElement(HaveSuffix(".one")))
		g.Eventually(write("two-of-three"), goneWithin, poll).Should(Succeed())
		rack.PowerChanged("two", false)
		g.Eventually(func() []string { return running(supervisor) }, goneWithin, poll).ShouldNot(ContainElement(HaveSuffix(".two")))
		g.Expect(write("one-of-three")()).NotTo(Succeed())
		rack.PowerChanged("one", true)
		rack.PowerChanged("two", true)
		g.Eventually(write("three-of-three"), goneWithin, poll).Should(Succeed())
		for _, id := range []string{"one", "two", "three"} {
			g.Eventually(readiness(ctx, workload, "node-"+id), goneWithin, poll).Should(Equal(corev1.ConditionTrue))
		}
	})
	t.Run("the cluster ends with its last disk", func(t *testing.T) {
		g := NewWithT(t)
		for _, id := range []string{"one", "two", "three"} {
			rack.PowerChanged(id, false)
			rack.Wiped(id)
		}
		g.Eventually(func() []string { return running(supervisor) }, goneWithin, poll).Should(BeEmpty())
		boot("anew", good.initData(g)) // the balancer has let go of the endpoint
		expectJoined("anew")
	})
}

func running(supervisor *proc.Supervisor) []string {
	var names []string
	for _, process := range supervisor.Processes() {
		if process.Running() {
			names = append(names, process.Name())
		}
	}
	return names
}
