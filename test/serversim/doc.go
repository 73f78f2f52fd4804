// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serversim is the simulated server behind MAAS: power, a disk, and an operating system that does with its user
// data what cloud-init and kubeadm would do. A control-plane server starts a real etcd member and a real kube-apiserver from the
// certificates in its user data, others join with their real bootstrap tokens, and kwok plays the kubelets. The endpoint is the
// operator's load balancer, which this package plays, too.
//
// # What user data must say
//
// A server joins its cluster only if all of this is true, otherwise Boots tells why it did not:
//   - the kubelet's provider-id is maas:///<system ID>;
//   - on a server with tenant ports: a netplan file in write_files selects at least one of them by interface name (globs
//     allowed) or MAC with dhcp4, "netplan apply" was run, the fabric leased an address to that port, and the kubelet's
//     node-ip is that address; on a server without tenant ports node-ip may be left out;
//   - a worker can reach the endpoint: the fabric says that its port's network is routed outward, or it has no tenant port; a
//     control-plane server reaches it by its provisioning network;
//   - CA hash and bootstrap token of whoever joins are right;
//   - a control-plane server has the CAs and keys that all of them share, and finds every member of etcd healthy.
//
// Commands in runcmd are not run by a shell. These are understood, in exactly this form; all others are recorded in
// BootRecord.Ignored and change nothing:
//
//	netplan apply
//	/lib/systemd/systemd-networkd-wait-online --ipv4 --timeout=<seconds> --interface=<interface>
//	sed -i "s/<PLACEHOLDER>/$(ip -4 -o address show scope global dev <interface> | awk '{print $4}' | cut -d/ -f1)/" /run/kubeadm/*.yaml
//	kubeadm init --config <file> ... && ...
//	kubeadm join --config <file> ... && ...
//
// where <interface> is a name or $(basename /sys/class/net/<glob>), and <PLACEHOLDER> consists of capitals, digits and
// underscores. The address is only known on the server, so templates write node-ip as such a placeholder.
package serversim
