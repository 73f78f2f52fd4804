# Run `make help` for what there is.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ROOT := $(CURDIR)
BIN := $(ROOT)/bin
LAB_BIN := $(BIN)/lab
TOOLS_BIN := $(BIN)/tools
CONTROLLER_GEN := $(TOOLS_BIN)/controller-gen
KUSTOMIZE := $(TOOLS_BIN)/kustomize
GOLANGCI_LINT := $(TOOLS_BIN)/golangci-lint

# One setting for every build: with and without -trimpath are separate entries of the build cache.
export GOFLAGS := -trimpath -buildvcs=false
# Tests that need a real API server find its binaries here.
export KUBEBUILDER_ASSETS := $(LAB_BIN)

##@ Use it

DEMO := $(BIN)/demo

.PHONY: demo
demo: build controlplane $(DEMO) ## Run the main job end to end in the lab (KEEP=1 leaves the lab up).
	@$(DEMO) $(if $(KEEP),--keep)

.PHONY: lab-up
lab-up: build controlplane $(DEMO) ## Start the lab without tenants and leave it up.
	@$(DEMO) --up

.PHONY: run
run: build $(DEMO) ## Replace the provider of the lab that is up by this checkout's.
	@$(DEMO) --run

.PHONY: lab-down
lab-down: $(DEMO) ## Stop the lab that lab-up or KEEP=1 left up.
	@$(DEMO) --down

.PHONY: $(DEMO)
$(DEMO):
	@cd test && go build -o $@ ./cmd/demo

##@ Test

.PHONY: test
test: test-unit test-integration test-dataplane ## Run all tests; those of a real OVN run where it is installed.

.PHONY: test-unit
test-unit: ## Run the unit tests of the provider.
	go test ./...

# They depend on binaries the test cache does not know of, so that their results are never taken from it.
.PHONY: test-integration
test-integration: build controlplane $(KUSTOMIZE) ## Run the tests against the simulators and real API servers, and a short demo.
	cd test && go test -count=1 -timeout 45m $$(go list ./... | grep -vE '$(DATAPLANE)|$(BUSY)')
	cd test && go test -count=1 -p 1 -timeout 45m $$(go list ./... | grep -E '$(BUSY)')

# The packages that need a machine for themselves: they play many scenes at once.
BUSY := /test/(fabricwing_test|troubles)$$

# The packages that run OVN, one at a time: they measure.
DATAPLANE := /test/(ovnlab|ovn_test|ovnvpc_test|dataplane_test)$$

.PHONY: test-dataplane
test-dataplane: build controlplane ## Run the tests on OVN at the best level this machine can do (REQUIRE_OVN=1 fails where it is not installed).
	@cd test && go test -count=1 -v -run '^TestBest$$' ./ovnlab | sed -n 's/^ *[a-z_]*.go:[0-9]*: \(OVN level\)/==> \1/p'
	cd test && go test -count=1 -p 1 -timeout 45m $$(go list ./... | grep -E '$(DATAPLANE)')

.PHONY: bench
bench: build controlplane ## Measure the manager against its budgets (8 minutes): out/bench.txt and out/bench.json.
	@cd test && go build -o $(BIN)/bench ./cmd/bench
	@$(BIN)/bench

# How often a server moves red, pool, blue, pool for each grade of evidence; make test-dataplane has it move 3 times.
ROUNDS ?= 50

.PHONY: bench-dataplane
bench-dataplane: controlplane ## Measure each grade of evidence on a real OVN, with ROUNDS=50, also under faults (30 minutes): out/dataplane.md.
	@mkdir -p $(ROOT)/out
	cd test && REQUIRE_OVN=1 go test -count=1 -v -timeout 2h ./dataplane_test/ -run '^TestChurn' \
		-args -rounds=$(ROUNDS) -fault-grades=ServiceInterface,Bound,Barrier -report=$(ROOT)/out/dataplane.md

# All settings but the URL are read from the environment, to which make adds the variables of its command line.
MAAS_TIMEOUT ?= 3h

.PHONY: test-conformance-maas
test-conformance-maas: ## Hold a MAAS (MAAS_URL, MAAS_USER_KEY, …; see docs/book/conformance.md) or else the simulator against the facts.
	cd test && $(if $(MAAS_CA),MAAS_CA="$(abspath $(MAAS_CA))") \
		go test -count=1 -v -timeout $(MAAS_TIMEOUT) ./conformance/maas/ -run '^TestConformance$$' -args -url="$${MAAS_URL:-}"

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Lint both modules.
	$(GOLANGCI_LINT) run ./...
	cd test && $(GOLANGCI_LINT) run --config $(ROOT)/.golangci.yml ./...

##@ Generate

.PHONY: generate
generate: $(CONTROLLER_GEN) $(KUSTOMIZE) ## Generate deep copies, CRDs and cluster templates.
	hack/generate.sh

.PHONY: verify
verify: generate $(KUSTOMIZE) ## Fail if generated files, kustomizations or modules are not up to date.
	hack/verify.sh

##@ Build

.PHONY: build
build: ## Build the manager.
	go build -o $(BIN)/manager .

# The next version by default; a release says which it is: make release-manifests VERSION=v0.1.0.
VERSION ?= $(shell sed -n 's/.*"nextVersion": "\(.*\)".*/\1/p' clusterctl-settings.json)
IMG ?= ghcr.io/dpucloud/cluster-api-provider-maas-dpu:$(VERSION)
RELEASE_DIR ?= out/release

.PHONY: release-manifests
release-manifests: $(KUSTOMIZE) ## Write the files of a release (VERSION=v0.1.0 IMG=registry/name:tag RELEASE_DIR=out/release).
	@VERSION="$(VERSION)" IMG="$(IMG)" hack/release-manifests.sh "$(RELEASE_DIR)"
	@wc -c "$(RELEASE_DIR)"/*.yaml

.PHONY: controlplane
controlplane: ## Build the lab's real control plane: etcd, API server, Cluster API, clusterctl, kwok (5-7 minutes when cold).
	@hack/build-controlplane.sh $(LAB_BIN)

$(CONTROLLER_GEN): hack/tools/go.mod
	cd hack/tools && go build -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(KUSTOMIZE): hack/tools/go.mod
	cd hack/tools && go build -o $@ sigs.k8s.io/kustomize/kustomize/v5

$(GOLANGCI_LINT): hack/tools/golangci-lint/go.mod
	cd hack/tools/golangci-lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: clean
clean: ## Remove what was built.
	rm -rf $(BIN) out

##@ Help

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make \033[36m<target>\033[0m\n"} /^[a-zA-Z_-]+:.*?##/ {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)}' $(MAKEFILE_LIST)
