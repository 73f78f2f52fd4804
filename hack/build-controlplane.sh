#!/usr/bin/env bash
# Builds the real control plane of the lab from the Go modules pinned in hack/controlplane into $1 (default bin/lab).
# A second call with nothing changed takes seconds: the Go build cache decides what to rebuild.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/bin/lab}
mkdir -p "$out"
cd "$root/hack/controlplane"

kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
capi=$(go list -m -f '{{.Version}}' sigs.k8s.io/cluster-api)

version_flags() { # version package...
	local version=$1 minor
	shift
	minor=${version#v1.} minor=${minor%%.*}
	for package in "$@"; do
		printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s -X %s.gitTreeState=clean ' \
			"$package" "$version" "$package" "$package" "$minor" "$package"
	done
}
# Cluster API refuses a management cluster whose version it cannot parse, so kube-apiserver must say which it is.
kubernetes_flags=$(version_flags "$kubernetes" k8s.io/component-base/version k8s.io/client-go/pkg/version)
capi_flags=$(version_flags "$capi" sigs.k8s.io/cluster-api/version)

build() { # binary ldflags package
	local started=$SECONDS
	go build -trimpath -ldflags "-s -w $2" -o "$out/$1" "$3"
	printf '  %-26s %4ds\n' "$1" $((SECONDS - started))
}
build etcd "$kubernetes_flags" go.etcd.io/etcd/server/v3
build kube-apiserver "$kubernetes_flags" k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager "$kubernetes_flags" k8s.io/kubernetes/cmd/kube-controller-manager
build kubectl "$kubernetes_flags" k8s.io/kubernetes/cmd/kubectl
build capi-core "$capi_flags" sigs.k8s.io/cluster-api/core
build capi-kubeadm-bootstrap "$capi_flags" sigs.k8s.io/cluster-api/bootstrap/kubeadm
build capi-kubeadm-control-plane "$capi_flags" sigs.k8s.io/cluster-api/controlplane/kubeadm
build clusterctl "$capi_flags" sigs.k8s.io/cluster-api/cmd/clusterctl

# What Cluster API's release manifests would install: the lab adds labels, conversion and certificates itself.
cluster_api=$(go list -m -f '{{.Dir}}' sigs.k8s.io/cluster-api)
copy_config() { # provider directory-in-the-module
	rm -rf "$out/config/$1"
	mkdir -p "$out/config/$1/crd" "$out/config/$1/webhook"
	install -m 0644 "$cluster_api/$2"/config/crd/bases/*.yaml "$out/config/$1/crd"
	install -m 0644 "$cluster_api/$2"/config/webhook/manifests.yaml "$out/config/$1/webhook"
}
copy_config capi-core core
copy_config capi-kubeadm-bootstrap bootstrap/kubeadm
copy_config capi-kubeadm-control-plane controlplane/kubeadm

cd "$root/hack/kwok"
build kwok "" sigs.k8s.io/kwok/cmd/kwok
