// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Discovery is what --node-group-auto-discovery=clusterapi:... says: which of the cluster's objects are looked at.
type Discovery struct {
	Namespace, ClusterName string
	// Labels are those the scalable objects must have.
	Labels labels.Set
}

// ParseDiscovery reads the value of the flag.
func ParseDiscovery(flag string) (Discovery, error) {
	discovery := Discovery{Labels: labels.Set{}}
	kind, pairs, found := strings.Cut(flag, ":")
	if !found || kind != "clusterapi" {
		return discovery, fmt.Errorf("%q is not of the form clusterapi:key=value,key=value", flag)
	}
	for pair := range strings.SplitSeq(pairs, ",") {
		if pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		if !found || strings.Contains(value, "=") {
			return discovery, fmt.Errorf("%q is not of the form key=value", pair)
		}
		switch key {
		case "namespace":
			discovery.Namespace = value
		case "clusterName":
			discovery.ClusterName = value
		default:
			discovery.Labels[key] = value
		}
	}
	return discovery, nil
}

// admits says whether a scalable object is looked at.
func (d Discovery) admits(namespace, clusterName string, has map[string]string) bool {
	return (d.Namespace == "" || d.Namespace == namespace) &&
		(d.ClusterName == "" || d.ClusterName == clusterName) &&
		d.Labels.AsSelector().Matches(labels.Set(has))
}
