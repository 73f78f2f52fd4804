// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// leases answers DHCP from a table by MAC.
type leases map[string]lease

func (l leases) Lease(mac string) (netip.Addr, bool, bool) {
	found, ok := l[mac]
	return found.address, found.externallyRouted, ok
}

const (
	goodNetplan = `
    network:
      version: 2
      ethernets:
        tenant: {match: {name: "enp*f0np0"}, dhcp4: true}
`
	macNetplan = `
    network:
      version: 2
      ethernets:
        tenant: {match: {macaddress: "02:00:00:00:00:AA"}, dhcp4: true}
`
	online      = `- /lib/systemd/systemd-networkd-wait-online --ipv4 --timeout=60 --interface=$(basename /sys/class/net/enp*f0np0)` + "\n"
	address     = `- sed -i "s/TENANT_NODE_IP/$(ip -4 -o address show scope global dev $(basename /sys/class/net/enp*f0np0) | awk '{print $4}' | cut -d/ -f1)/" /run/kubeadm/*.yaml` + "\n"
	apply       = "- netplan apply\n"
	allCommands = apply + online + address
	providerArg = "{name: provider-id, value: 'maas:///{{ v1.instance_id }}'}"
	nodeIPArg   = "{name: node-ip, value: TENANT_NODE_IP}"
)

// joinData is the user data of a worker.
func joinData(netplan, commands, arguments string) string {
	return `## template: jinja
#cloud-config
write_files:
- path: /etc/netplan/60-tenant.yaml
  content: |` + netplan + `
- path: /run/kubeadm/kubeadm-join-config.yaml
  content: |
    apiVersion: kubeadm.k8s.io/v1beta4
    kind: JoinConfiguration
    discovery: {bootstrapToken: {apiServerEndpoint: "127.0.0.1:6443", token: abcdef.0123456789abcdef, caCertHashes: ["sha256:00"]}}
    nodeRegistration:
      name: '{{ v1.local_hostname }}'
      kubeletExtraArgs: [` + arguments + `]
runcmd:
` + commands + `- kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml && echo success > /run/cluster-api/bootstrap-success.complete
`
}

func TestInstall(t *testing.T) {
	const tenantMAC = "02:00:00:00:00:aa"
	tenant := []Port{{Interface: "enp1s0f0np0", MAC: tenantMAC}}
	leased := netip.MustParseAddr("10.10.0.5")
	provisioning := netip.MustParseAddr("192.0.2.7")
	routed := leases{tenantMAC: {address: leased, externallyRouted: true}}
	both := providerArg + ", " + nodeIPArg
	for name, test := range map[string]struct {
		userData string
		ports    []Port
		fabric   leases
		address  netip.Addr
		reason   string
		ignored  []string
	}{
		"by interface name":            {userData: joinData(goodNetplan, allCommands, both), ports: tenant, fabric: routed, address: leased},
		"by MAC":                       {userData: joinData(macNetplan, allCommands, both), ports: tenant, fabric: routed, address: leased},
		"other commands are recorded":  {userData: joinData(goodNetplan, "- swapoff -a\n"+allCommands, both), ports: tenant, fabric: routed, address: leased, ignored: []string{"command swapoff"}},
		"plain server without node-ip": {userData: joinData(goodNetplan, "", providerArg), address: provisioning},
		"plain server, foreign node-ip": {
			userData: joinData(goodNetplan, "", providerArg+", {name: node-ip, value: 10.0.0.1}"), reason: "has only 192.0.2.7",
		},
		"provider ID of another server": {
			userData: joinData(goodNetplan, allCommands, "{name: provider-id, value: 'maas:///other'}, "+nodeIPArg), ports: tenant, fabric: routed, reason: `provider-id is "maas:///other"`,
		},
		"no provider ID":           {userData: joinData(goodNetplan, allCommands, nodeIPArg), ports: tenant, fabric: routed, reason: "provider-id"},
		"no node-ip":               {userData: joinData(goodNetplan, allCommands, providerArg), ports: tenant, fabric: routed, reason: "no node-ip"},
		"netplan is never applied": {userData: joinData(goodNetplan, online+address, both), ports: tenant, fabric: routed, reason: "does not configure"},
		"netplan without DHCP": {
			userData: joinData(strings.ReplaceAll(goodNetplan, "dhcp4: true", "dhcp4: false"), allCommands, both), ports: tenant, fabric: routed, reason: "does not configure",
		},
		"netplan for another port": {userData: joinData(strings.ReplaceAll(goodNetplan, "f0np0", "f1np1"), allCommands, both), ports: tenant, fabric: routed, reason: "does not configure"},
		"netplan of version 1":     {userData: joinData(strings.ReplaceAll(goodNetplan, "version: 2", "version: 1"), allCommands, both), ports: tenant, fabric: routed, reason: "version must be 2"},
		"placeholder is not replaced": {
			userData: joinData(goodNetplan, apply+online, both), ports: tenant, fabric: routed, reason: `node-ip "TENANT_NODE_IP" is no address`,
		},
		"fixed address that was not leased": {
			userData: joinData(goodNetplan, allCommands, providerArg+", {name: node-ip, value: 10.10.0.6}"), ports: tenant, fabric: routed, reason: "which no tenant port of this server has leased",
		},
		"port is on no network":  {userData: joinData(goodNetplan, allCommands, both), ports: tenant, fabric: leases{}, reason: "no DHCP answer"},
		"network is not routed":  {userData: joinData(goodNetplan, allCommands, both), ports: tenant, fabric: leases{tenantMAC: {address: leased}}, reason: "not routed outward"},
		"two ports match":        {userData: joinData(goodNetplan, allCommands, both), ports: append([]Port{{Interface: "enp2s0f0np0", MAC: "02:00:00:00:00:ab"}}, tenant...), fabric: routed, reason: "2 interfaces"},
		"kubeadm is never run":   {userData: "#cloud-config\nruncmd: [echo]\n", ports: tenant, fabric: routed, reason: "never runs kubeadm"},
		"kubeadm without a file": {userData: "#cloud-config\nruncmd: ['kubeadm join --config /none && true']\n", ports: tenant, fabric: routed, reason: "/none does not exist"},
		"further control plane": {
			userData: strings.ReplaceAll(joinData(goodNetplan, allCommands, both), "kind: JoinConfiguration", "kind: JoinConfiguration\n    controlPlane: {}"),
			ports:    tenant, fabric: leases{tenantMAC: {address: leased}}, address: leased, // the endpoint is on its provisioning network
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			rack := New(Options{Fabric: test.fabric})
			system := &host{
				server: Server{SystemID: "abc123", Hostname: "node-1", TenantPorts: test.ports, ProvisioningAddress: provisioning},
				fabric: test.fabric, patience: 10 * time.Millisecond,
			}
			installed, err := rack.install(t.Context(), system, []byte(test.userData))
			if test.reason != "" {
				g.Expect(err).To(MatchError(ContainSubstring(test.reason)))
				g.Expect(err).NotTo(MatchError(ContainSubstring("0123456789abcdef")), "errors must not quote the token")
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(installed.name).To(Equal("node-1"))
			g.Expect(installed.address).To(Equal(test.address))
			g.Expect(installed.endpoint).To(Equal("127.0.0.1:6443"))
			g.Expect(system.ignored).To(Equal(test.ignored))
		})
	}
}

func TestBootRecordsWhyAServerDoesNotJoin(t *testing.T) {
	g := NewWithT(t)
	rack := New(Options{Fabric: leases{}, JoinTimeout: 10 * time.Millisecond})
	t.Cleanup(func() { g.Expect(rack.Stop(context.Background())).To(Succeed()) })
	plain := Server{SystemID: "abc123", Hostname: "node-1", ProvisioningAddress: netip.MustParseAddr("192.0.2.7")}
	g.Expect(rack.AddServer(plain)).To(Succeed())
	g.Expect(rack.AddServer(plain)).NotTo(Succeed(), "a system ID is given once")

	rack.Boot("abc123", []byte(joinData(goodNetplan, "", providerArg)))
	g.Eventually(rack.Boots).Should(ConsistOf(And(
		HaveField("Joined", false), HaveField("Node", "node-1"), HaveField("Reason", ContainSubstring("no API server answers at 127.0.0.1:6443")),
	)))
}
