// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "github.com/canonical/gomaasclient/client"
	_ "github.com/juju/gomaasapi/v2"
	_ "github.com/onsi/gomega"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/spf13/pflag"
	_ "k8s.io/api/admissionregistration/v1"
	_ "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	_ "k8s.io/component-base/featuregate"
	_ "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/utils/clock"
	_ "k8s.io/utils/clock/testing"
	_ "sigs.k8s.io/cluster-api/controllers/clustercache"
	_ "sigs.k8s.io/cluster-api/controllers/remote"
	_ "sigs.k8s.io/cluster-api/util/conditions"
	_ "sigs.k8s.io/cluster-api/util/finalizers"
	_ "sigs.k8s.io/cluster-api/util/flags"
	_ "sigs.k8s.io/cluster-api/util/patch"
	_ "sigs.k8s.io/cluster-api/util/paused"
	_ "sigs.k8s.io/cluster-api/util/predicates"
	_ "sigs.k8s.io/cluster-api/util/topology"
	_ "sigs.k8s.io/controller-runtime"
	_ "sigs.k8s.io/controller-runtime/pkg/client/fake"
	_ "sigs.k8s.io/controller-runtime/pkg/envtest"
	_ "sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	_ "sigs.k8s.io/yaml"
)

func main() {}
