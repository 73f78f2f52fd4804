// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// NamespaceAllowed reports whether allowed admits the namespace: by name, or by a selector over its labels. Absent admits none.
func NamespaceAllowed(ctx context.Context, reader client.Reader, allowed *infrav1.AllowedNamespaces, namespace string) (bool, error) {
	if allowed == nil {
		return false, nil
	}
	if slices.Contains(allowed.Names, namespace) {
		return true, nil
	}
	if allowed.Selector == nil {
		return false, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(allowed.Selector)
	if err != nil {
		return false, fmt.Errorf("allowedNamespaces.selector: %w", err)
	}
	object := &corev1.Namespace{}
	if err := reader.Get(ctx, client.ObjectKey{Name: namespace}, object); err != nil {
		return false, fmt.Errorf("read namespace %s: %w", namespace, err)
	}
	return selector.Matches(labels.Set(object.Labels)), nil
}
