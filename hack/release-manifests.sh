#!/usr/bin/env bash
# Writes the files of a release into $1: what clusterctl finds in a provider's repository, and the fabric wing beside it.
# VERSION is the release, IMG its manager with a tag or digest. The same checkout, VERSION and IMG give the same bytes.
set -euo pipefail

cd "$(dirname "$0")/.."
out=${1:?usage: VERSION=v0.1.0 IMG=registry/name:v0.1.0 hack/release-manifests.sh folder}
kustomize=${KUSTOMIZE:-bin/tools/kustomize}
# What the Deployments in config/ name.
placeholder=cluster-api-provider-maas-dpu:dev

fail() {
	printf 'release-manifests: %s\n' "$1" >&2
	exit 1
}

[[ ${VERSION:-} =~ ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$ ]] ||
	fail "VERSION is '${VERSION:-}': write a semantic version, for example v0.1.0"
series="major: ${BASH_REMATCH[1]} minor: ${BASH_REMATCH[2]}"
grep -A1 -E '^- major: ' metadata.yaml | paste -sd' ' | tr -s ' ' | grep -qE -- "- $series( |\$)" ||
	fail "metadata.yaml has no release series '$series': add it with the contract it fulfils"
[[ ${IMG:-} =~ ^[a-z0-9][^[:space:]\&|]*[:@][^/[:space:]\&|]+$ ]] ||
	fail "IMG is '${IMG:-}': write an image with a tag or digest"

# Files of an earlier run under names that are no more must not be released.
mkdir -p "$out"
find "$out" -maxdepth 1 -type f -name '*.yaml' -delete

components() { # file kustomization: one Deployment, with the image of the release
	"$kustomize" build "$2" >"$out/$1"
	[[ $(grep -cF "image: $placeholder" "$out/$1") == 1 ]] || fail "$2 does not name the image $placeholder exactly once"
	sed -i "s|image: $placeholder|image: $IMG|" "$out/$1"
}
components infrastructure-components.yaml config/release/infrastructure
components fabric-components.yaml config/release/fabric
"$kustomize" build config/crd >"$out/crds.yaml"
grep -q 'cluster.x-k8s.io/provider' "$out/fabric-components.yaml" &&
	fail "fabric-components.yaml carries the provider label: an upgrade by clusterctl would delete what has it"

cp metadata.yaml "$out/"
shopt -s nullglob
for template in templates/cluster-template*.yaml templates/clusterclass-*.yaml; do
	cp "$template" "$out/"
done
chmod 0644 "$out"/*.yaml
