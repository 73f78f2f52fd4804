// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

// TestVariablesTable holds the table of docs/book/clusterclass.md to the class: each variable has one row, with its default, and
// with what a change does, which follows from the rules and patches of the class.
func TestVariablesTable(t *testing.T) {
	class := theClass(t)
	rows := tableRows(t)
	for _, variable := range class.Spec.Variables {
		row, found := rows[variable.Name]
		if !found {
			t.Errorf("variable %s has no row", variable.Name)
			continue
		}
		delete(rows, variable.Name)
		if want := defaultCell(variable); row[1] != want {
			t.Errorf("variable %s: the default is said to be %q, it is %q", variable.Name, row[1], want)
		}
		if want := changeCell(class, variable); row[3] != want {
			t.Errorf("variable %s: a change is said to be %q, it is %q", variable.Name, row[3], want)
		}
		if row[2] == "" {
			t.Errorf("variable %s: nothing is said about it", variable.Name)
		}
		for _, value := range variable.Schema.OpenAPIV3Schema.Enum {
			if !strings.Contains(row[2], strings.Trim(string(value.Raw), `"`)) {
				t.Errorf("variable %s: value %s is not named", variable.Name, value.Raw)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		t.Errorf("variable %s is not in the class", name)
	}
}

// theClass is the class that is shipped.
func theClass(t *testing.T) *clusterv1.ClusterClass {
	t.Helper()
	for _, object := range classObjects(t) {
		if object.GetKind() == "ClusterClass" {
			class := &clusterv1.ClusterClass{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, class); err != nil {
				t.Fatal(err)
			}
			return class
		}
	}
	t.Fatal("no ClusterClass found")
	return nil
}

// tableRows are the cells of the table by variable.
func tableRows(t *testing.T) map[string][]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repo, "docs", "book", "clusterclass.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	name := regexp.MustCompile("^`([A-Za-z]+)`$")
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		match := name.FindStringSubmatch(cells[0])
		if len(cells) != 4 || match == nil {
			continue
		}
		if rows[match[1]] != nil {
			t.Errorf("variable %s has two rows", match[1])
		}
		rows[match[1]] = cells
	}
	return rows
}

func defaultCell(variable clusterv1.ClusterClassVariable) string {
	switch value := variable.Schema.OpenAPIV3Schema.Default; {
	case variable.Required != nil && *variable.Required:
		return "required"
	case value == nil:
		return ""
	default:
		return "`" + strings.Trim(string(value.Raw), `"`) + "`"
	}
}

// changeCell is what the class makes of a change: rules that compare with the old value refuse it, and patches of templates that
// machines are made from roll it out.
func changeCell(class *clusterv1.ClusterClass, variable clusterv1.ClusterClassVariable) string {
	for _, rule := range variable.Schema.OpenAPIV3Schema.XValidations {
		if strings.Contains(rule.Rule, "oldSelf") {
			return "is refused"
		}
	}
	machines := []string{"MaasMachineTemplate", "KubeadmConfigTemplate", "KubeadmControlPlaneTemplate"}
	for _, patch := range class.Spec.Patches {
		for _, definition := range patch.Definitions {
			for _, change := range definition.JSONPatches {
				if slices.Contains(machines, definition.Selector.Kind) && uses(patch, change, variable.Name) {
					return "rolls out"
				}
			}
		}
	}
	return "machines to come"
}

// uses reports that a value depends on a variable.
func uses(patch clusterv1.ClusterClassPatch, change clusterv1.JSONPatch, variable string) bool {
	if change.ValueFrom == nil {
		return false
	}
	name := regexp.MustCompile(`\.` + variable + `\b`)
	return change.ValueFrom.Variable == variable || strings.HasPrefix(change.ValueFrom.Variable, variable+".") ||
		name.MatchString(change.ValueFrom.Template) || name.MatchString(patch.EnabledIf)
}
