#!/usr/bin/env bash
# Generates what is generated: deep copies and CRDs of our API, the minimal DPF CRDs the lab
# installs, and the cluster templates.
set -euo pipefail

cd "$(dirname "$0")/.."
gen=bin/tools/controller-gen

$gen object:headerFile=hack/boilerplate.go.txt paths='./api/...;./pkg/dpfzt/...'
$gen crd paths=./api/... output:crd:dir=config/crd/bases
$gen crd paths=./pkg/dpfzt/... output:crd:dir=test/dpfsim/crds
hack/generate-templates.sh
