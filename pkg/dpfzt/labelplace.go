// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// LabelPlace is the kind of object on which a DPF release takes labels for the Node of one DPU.
type LabelPlace string

// The label places: DPF v26.4 has the first, v26.8 both.
const (
	LabelsOnDPU       LabelPlace = "DPU"
	LabelsOnDPUDevice LabelPlace = "DPUDevice"
)

// labelPlaceMaxAge is how long an answer is used: a DPF is upgraded rarely, and its CRDs are large.
const labelPlaceMaxAge = 5 * time.Minute

const dpuDeviceCRD = "dpudevices.provisioning.dpu.nvidia.com"

var crdKind = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}

// LabelPlaces remembers what the API servers of fabrics offer. The zero value is not usable; make one with NewLabelPlaces.
type LabelPlaces struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	known map[string]knownPlace
}

type knownPlace struct {
	place LabelPlace
	since time.Time
}

// NewLabelPlaces returns an empty memory.
func NewLabelPlaces(c clock.PassiveClock) *LabelPlaces {
	return &LabelPlaces{clock: c, known: map[string]knownPlace{}}
}

// Of returns where labels are to be written on the fabric: on the DPUDevice where its API server has such a field, else on
// the DPU. It decides by the schema served, not by a version's name.
func (p *LabelPlaces) Of(ctx context.Context, fabric string, reader client.Reader) (LabelPlace, error) {
	now := p.clock.Now()
	p.mu.Lock()
	known, ok := p.known[fabric]
	p.mu.Unlock()
	if ok && now.Sub(known.since) < labelPlaceMaxAge {
		return known.place, nil
	}
	place, err := readLabelPlace(ctx, reader)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	p.known[fabric] = knownPlace{place: place, since: now}
	p.mu.Unlock()
	return place, nil
}

func readLabelPlace(ctx context.Context, reader client.Reader) (LabelPlace, error) {
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(crdKind)
	switch err := reader.Get(ctx, client.ObjectKey{Name: dpuDeviceCRD}, crd); {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("the DPF management cluster does not serve DPUDevices: check which cluster the fabric's kubeconfig reaches: %w", err)
	case err != nil:
		return "", fmt.Errorf("read CRD %s: %w", dpuDeviceCRD, err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		return "", fmt.Errorf("read versions of CRD %s: %w", dpuDeviceCRD, err)
	}
	for _, version := range versions {
		object, isMap := version.(map[string]any)
		if !isMap || object["name"] != provisioningv1alpha1.GroupVersion.Version {
			continue
		}
		_, has, err := unstructured.NestedMap(object, "schema", "openAPIV3Schema",
			"properties", "spec", "properties", "cluster", "properties", "nodeLabels")
		if err != nil {
			return "", fmt.Errorf("read schema of CRD %s: %w", dpuDeviceCRD, err)
		}
		if has {
			return LabelsOnDPUDevice, nil
		}
	}
	return LabelsOnDPU, nil
}

// carriers are the objects that may carry labels for a DPU's Node, the preferred one first. Both are looked at wherever they
// carry anything: labels stay where they were written when DPF is upgraded, and others may see the upgrade before we do.
func (m Member) carriers(place LabelPlace) []vpc.Carrier {
	var carriers []vpc.Carrier
	if m.DPU != nil {
		carriers = append(carriers, vpc.Carrier{
			Kind: string(LabelsOnDPU), Annotations: m.DPU.Annotations, Labels: m.DPU.Spec.Cluster.NodeLabels,
		})
	}
	if m.Device == nil {
		return carriers
	}
	device := vpc.Carrier{Kind: string(LabelsOnDPUDevice), Annotations: m.Device.Annotations}
	if m.Device.Spec.Cluster != nil {
		device.Labels = m.Device.Spec.Cluster.NodeLabels
	}
	_, recorded := device.Annotations[vpc.HolderAnnotation]
	switch {
	case place == LabelsOnDPUDevice:
		carriers = append([]vpc.Carrier{device}, carriers...)
	case recorded, len(device.Labels) > 0:
		carriers = append(carriers, device)
	}
	return carriers
}
