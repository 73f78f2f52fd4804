// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

// webhookServing is the certificate that all webhook servers of the lab share, and the CA that API servers pin.
type webhookServing struct {
	dir string
	ca  string // base64 of the PEM, as caBundle wants it
}

// newWebhookServing writes tls.crt and tls.key, the names that controller-runtime expects.
func newWebhookServing(dir string) (*webhookServing, error) {
	ca, err := pki.NewCA("lab-webhooks")
	if err != nil {
		return nil, err
	}
	serving, err := ca.Issue(pki.Request{CommonName: "lab-webhooks", Server: true}.Loopback())
	if err != nil {
		return nil, err
	}
	if _, _, err := serving.Write(dir, "tls"); err != nil {
		return nil, fmt.Errorf("writing the webhook certificate: %w", err)
	}
	return &webhookServing{dir: dir, ca: base64.StdEncoding.EncodeToString(ca.CertPEM)}, nil
}

// clientConfig points an API server to path on a webhook server of this machine.
func (w *webhookServing) clientConfig(port int32, path string) map[string]any {
	return map[string]any{"url": fmt.Sprintf("https://127.0.0.1:%d%s", port, path), "caBundle": w.ca}
}

// convertBy makes the API server convert a CRD's versions by the manager on port.
func (w *webhookServing) convertBy(crd *unstructured.Unstructured, port int32) error {
	return unstructured.SetNestedMap(crd.Object, map[string]any{
		"strategy": "Webhook",
		"webhook": map[string]any{
			"conversionReviewVersions": []any{"v1"},
			"clientConfig":             w.clientConfig(port, "/convert"),
		},
	}, "spec", "conversion")
}

// serviceRef is what a webhook configuration names in a real installation.
type serviceRef struct {
	namespace, name string
}

// redirect replaces the Service of each webhook in a Validating- or MutatingWebhookConfiguration by the loopback port that
// portOf gives for it.
func (w *webhookServing) redirect(configuration *unstructured.Unstructured, portOf func(serviceRef) (int32, error)) error {
	hooks, _, err := unstructured.NestedSlice(configuration.Object, "webhooks")
	if err != nil {
		return err
	}
	for i, hook := range hooks {
		fields, ok := hook.(map[string]any)
		if !ok {
			return fmt.Errorf("webhook %d of %s is not an object", i, configuration.GetName())
		}
		service, found, err := unstructured.NestedStringMap(fields, "clientConfig", "service")
		if err != nil || !found {
			return fmt.Errorf("webhook %d of %s names no Service", i, configuration.GetName())
		}
		port, err := portOf(serviceRef{namespace: service["namespace"], name: service["name"]})
		if err != nil {
			return fmt.Errorf("webhook configuration %s: %w", configuration.GetName(), err)
		}
		fields["clientConfig"] = w.clientConfig(port, service["path"])
	}
	return unstructured.SetNestedSlice(configuration.Object, hooks, "webhooks")
}

// readObjects reads all YAML files of a directory.
func readObjects(dir string) ([]*unstructured.Unstructured, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parsed, err := parseObjects(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, parsed...)
	}
	return objects, nil
}
