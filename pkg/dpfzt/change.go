// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// ChangedError says that the object was not as it was read any more, so that nothing was written. Read it again.
type ChangedError struct {
	Kind, Name string
	Err        error
}

// Error implements error.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s %s changed since it was read, nothing was written: %v", e.Kind, e.Name, e.Err)
}

// Unwrap returns the API server's answer.
func (e *ChangedError) Unwrap() error { return e.Err }

// errForeignValue says that a label has a value that is not ours to overwrite.
var errForeignValue = errors.New("the label has another value than expected")

// operation of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Write makes the change on the member's carrier in one JSON patch, which the API server refuses if the object is not exactly as
// it was read. It never applies: two attachments would share a field manager.
func Write(ctx context.Context, c client.Client, member Member, carrier vpc.Carrier, change vpc.Change) error {
	object, target, err := member.carrierObject(carrier.Kind)
	if err != nil {
		return err
	}
	patch, err := labelPatch(object.GetResourceVersion(), target, object.GetAnnotations(), change)
	if err != nil {
		return &ChangedError{Kind: carrier.Kind, Name: object.GetName(), Err: err}
	}
	err = c.Patch(ctx, object, client.RawPatch(types.JSONPatchType, patch))
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		return &ChangedError{Kind: carrier.Kind, Name: object.GetName(), Err: err}
	default:
		return fmt.Errorf("change labels of %s %s: %w", carrier.Kind, object.GetName(), err)
	}
}

// labelTarget is where an object keeps labels for the Node.
type labelTarget struct {
	labels map[string]string
	// parent is missing in the object if parentMissing.
	parent        string
	parentMissing bool
}

// carrierObject returns a copy of the object, since a patch overwrites what is passed in.
func (m Member) carrierObject(kind string) (client.Object, labelTarget, error) {
	const parent = "/spec/cluster"
	switch {
	case kind == string(LabelsOnDPUDevice) && m.Device != nil:
		target := labelTarget{parent: parent, parentMissing: m.Device.Spec.Cluster == nil}
		if m.Device.Spec.Cluster != nil {
			target.labels = m.Device.Spec.Cluster.NodeLabels
		}
		return m.Device.DeepCopy(), target, nil
	case kind == string(LabelsOnDPU) && m.DPU != nil:
		return m.DPU.DeepCopy(), labelTarget{
			labels: m.DPU.Spec.Cluster.NodeLabels, parent: parent,
			parentMissing: m.DPU.Spec.Cluster.Name == "" && m.DPU.Spec.Cluster.Namespace == "" && m.DPU.Spec.Cluster.NodeLabels == nil,
		}, nil
	default:
		return nil, labelTarget{}, fmt.Errorf("there is no %s to carry the labels of the card", kind)
	}
}

// labelPatch is the JSON patch of a change. Absence of a key needs no test of its own: the resource version stands for
// everything that was read.
func labelPatch(resourceVersion string, target labelTarget, annotations map[string]string, change vpc.Change) ([]byte, error) {
	operations := []operation{{Op: "test", Path: "/metadata/resourceVersion", Value: resourceVersion}}
	labels, err := labelOperations(target, change)
	if err != nil {
		return nil, err
	}
	operations = append(operations, labels...)
	record, err := change.Holder.Encode()
	if err != nil {
		return nil, err
	}
	holderPath := "/metadata/annotations/" + escape(vpc.HolderAnnotation)
	switch old, there := annotations[vpc.HolderAnnotation]; {
	case len(annotations) == 0:
		operations = append(operations, operation{Op: "add", Path: "/metadata/annotations", Value: map[string]string{vpc.HolderAnnotation: record}})
	case there:
		operations = append(operations, operation{Op: "test", Path: holderPath, Value: old}, operation{Op: "replace", Path: holderPath, Value: record})
	default:
		operations = append(operations, operation{Op: "add", Path: holderPath, Value: record})
	}
	return json.Marshal(operations)
}

func labelOperations(target labelTarget, change vpc.Change) ([]operation, error) {
	const field = "nodeLabels"
	path := target.parent + "/" + field
	set := map[string]string{}
	var operations []operation
	for _, key := range slices.Sorted(maps.Keys(change.Set)) {
		switch value, there := target.labels[key]; {
		case !there:
			set[key] = change.Set[key]
		case value != change.Set[key]:
			return nil, fmt.Errorf("%s: %w", key, errForeignValue)
		default:
			operations = append(operations, operation{Op: "test", Path: path + "/" + escape(key), Value: value})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(change.Remove)) {
		value, there := target.labels[key]
		if !there {
			continue
		}
		if value != change.Remove[key] {
			return nil, fmt.Errorf("%s: %w", key, errForeignValue)
		}
		operations = append(operations,
			operation{Op: "test", Path: path + "/" + escape(key), Value: value}, operation{Op: "remove", Path: path + "/" + escape(key)})
	}
	switch {
	case len(set) == 0:
	case target.parentMissing:
		operations = append(operations, operation{Op: "add", Path: target.parent, Value: map[string]any{field: set}})
	case len(target.labels) == 0:
		operations = append(operations, operation{Op: "add", Path: path, Value: set})
	default:
		for _, key := range slices.Sorted(maps.Keys(set)) {
			operations = append(operations, operation{Op: "add", Path: path + "/" + escape(key), Value: set[key]})
		}
	}
	return operations, nil
}

// escape writes a key as one step of a JSON pointer.
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
