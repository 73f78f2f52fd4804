// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTemplatesHaveNoTransitionRules: a rule that compares with what was cannot tell the topology controller's dry runs from changes,
// which is why only the webhook keeps templates as they are.
func TestTemplatesHaveNoTransitionRules(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repo, "config", "crd", "bases", "*templates.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d CRDs of templates found: %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Clean(file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), "x-kubernetes-validations") && strings.Contains(file, "maasmachinetemplates") {
			t.Errorf("%s has no rules at all: the test does not read what it should", file)
		}
		if strings.Contains(string(content), "oldSelf") {
			t.Errorf("%s has a rule that compares with the old object", file)
		}
	}
}
