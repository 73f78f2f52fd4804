// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// base reads testdata/<name>.yaml: an object that sets every field and is right.
func base(t *testing.T, name string, edits ...edit) *unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), "@user@", adminUser)
	text = strings.ReplaceAll(text, "@hash@", tokenFor(t, "red", "base")[len("v1.")+33:])
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		t.Fatalf("testdata/%s.yaml: %v", name, err)
	}
	for _, change := range edits {
		change(t, object.Object)
	}
	return object
}

func tokenFor(t *testing.T, namespace, name string) string {
	t.Helper()
	token, err := maas.NewToken(rand.Reader, namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// edit changes an object.
type edit func(t *testing.T, object map[string]any)

// set writes a value at a path such as spec.ports[0].name.
func set(path string, value any) edit {
	return func(t *testing.T, object map[string]any) {
		t.Helper()
		parent, last := descend(t, object, path)
		switch at := parent.(type) {
		case map[string]any:
			at[last.key] = value
		case []any:
			at[last.index] = value
		}
	}
}

// unset removes the field at a path.
func unset(path string) edit {
	return func(t *testing.T, object map[string]any) {
		t.Helper()
		parent, last := descend(t, object, path)
		delete(parent.(map[string]any), last.key)
	}
}

type step struct {
	key   string
	index int
	list  bool
}

func parsePath(path string) []step {
	var steps []step
	for _, part := range strings.Split(path, ".") {
		key, rest, _ := strings.Cut(part, "[")
		steps = append(steps, step{key: key})
		for rest != "" {
			var number string
			number, rest, _ = strings.Cut(rest, "]")
			index, err := strconv.Atoi(number)
			if err != nil {
				panic(fmt.Sprintf("path %s: %v", path, err))
			}
			steps = append(steps, step{index: index, list: true})
			rest = strings.TrimPrefix(rest, "[")
		}
	}
	return steps
}

// lookup returns the value at a path, nil where there is none.
func lookup(object any, path string) any {
	for _, s := range parsePath(path) {
		object = child(object, s)
	}
	return object
}

func child(value any, s step) any {
	switch at := value.(type) {
	case map[string]any:
		if !s.list {
			return at[s.key]
		}
	case []any:
		if s.list && s.index < len(at) {
			return at[s.index]
		}
	}
	return nil
}

func descend(t *testing.T, object map[string]any, path string) (any, step) {
	t.Helper()
	steps := parsePath(path)
	var at any = object
	for _, s := range steps[:len(steps)-1] {
		next := child(at, s)
		if next == nil && !s.list {
			created := map[string]any{}
			at.(map[string]any)[s.key] = created
			next = created
		}
		if next == nil {
			t.Fatalf("path %s: nothing there", path)
		}
		at = next
	}
	return at, steps[len(steps)-1]
}
