// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package flavors_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const everyFlavour = "In every flavour"

// TestTables holds the tables of docs/book/flavors.md against the variables and defaults that clusterctl finds in the templates.
func TestTables(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "book", "flavors.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := tables(t, string(page))
	templates, err := filepath.Glob(filepath.Join("..", "..", "templates", "cluster-template*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(templates) != len(flavours) {
		t.Errorf("%d templates, and %d flavours brought up here", len(templates), len(flavours))
	}
	for _, template := range templates {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(template), "cluster-template"), ".yaml")
		name = strings.TrimPrefix(name, "-")
		if name == "" {
			name = "default"
		}
		t.Run(name, func(t *testing.T) {
			documented := maps.Clone(sections[everyFlavour])
			for variable, value := range sections[name] {
				if _, twice := documented[variable]; twice {
					t.Errorf("%s is in the tables of %s and of every flavour", variable, name)
				}
				documented[variable] = value
			}
			found := listed(t, template)
			for _, variable := range slices.Sorted(maps.Keys(found)) {
				value, ok := documented[variable]
				switch {
				case !ok:
					t.Errorf("%s is in no table", variable)
				case value != found[variable]:
					t.Errorf("%s has the default %q in the table, %q in the template", variable, value, found[variable])
				}
				delete(documented, variable)
			}
			if len(documented) > 0 {
				t.Errorf("documented, and not in the template: %v", slices.Sorted(maps.Keys(documented)))
			}
		})
	}
}

var (
	heading  = regexp.MustCompile(`^## (.+)$`)
	tableRow = regexp.MustCompile("^\\| `([A-Z][A-Z0-9_]+)` \\| (?:`([^`]*)`)? ?\\| (.+) \\|$")
)

// tables are the defaults by section and variable.
func tables(t *testing.T, page string) map[string]map[string]string {
	t.Helper()
	sections := map[string]map[string]string{}
	var section string
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if match := heading.FindStringSubmatch(line); match != nil {
			section = match[1]
			sections[section] = map[string]string{}
		}
		if !strings.HasPrefix(line, "| `") || strings.ToUpper(line[3:6]) != line[3:6] {
			continue
		}
		match := tableRow.FindStringSubmatch(line)
		if match == nil {
			t.Errorf("not a row of variable, default and meaning: %s", line)
			continue
		}
		sections[section][match[1]] = match[2]
	}
	return sections
}

var listedVariable = regexp.MustCompile(`^  - (\w+)(?:\s+\(defaults to "?(.*?)"?\))?$`)

// listed are the variables of a template with their defaults. Name and namespace are what the command line says.
func listed(t *testing.T, template string) map[string]string {
	t.Helper()
	home := t.TempDir()
	command := exec.CommandContext(t.Context(), filepath.Join("..", "..", "bin", "lab", "clusterctl"), "generate", "cluster", "red",
		"--target-namespace", "tenant", "--from", template, "--list-variables")
	command.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"), "CLUSTERCTL_DISABLE_VERSIONCHECK=true")
	var complaint bytes.Buffer
	command.Stderr = &complaint
	output, err := command.Output()
	if err != nil {
		t.Fatalf("clusterctl: %v: %s", err, complaint.String())
	}
	variables := map[string]string{}
	for line := range strings.Lines(string(output)) {
		if match := listedVariable.FindStringSubmatch(strings.TrimRight(line, " \n")); match != nil {
			variables[match[1]] = match[2]
		}
	}
	if len(variables) == 0 {
		t.Fatalf("clusterctl lists no variables: %s", output)
	}
	for _, said := range []string{"CLUSTER_NAME", "NAMESPACE"} {
		if _, ok := variables[said]; ok {
			variables[said] = ""
		}
	}
	return variables
}
