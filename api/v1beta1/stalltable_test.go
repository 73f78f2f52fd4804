// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const stallTable = "../../docs/stall-table.md"

// TestStallTable holds docs/stall-table.md to the exported constants: each reason has one row, no row has a reason that does not
// exist, no cell is empty, and every condition named is one of the API's. A reason that is no condition's is one of avoidedServers.
func TestStallTable(t *testing.T) {
	reasons, conditions := constants(t, "Reason"), constants(t, "Condition")
	if len(reasons) == 0 || len(conditions) == 0 {
		t.Fatal("no constants found: the test does not read what it should")
	}
	rows := stallRows(t)
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if _, found := rows[reason]; !found {
			t.Errorf("%s: no row for reason %s (%s): say what it means, who acts and how long is normal", stallTable, reason, reasons[reason])
		}
	}
	word := regexp.MustCompile("`([A-Za-z]+)`")
	for _, reason := range slices.Sorted(maps.Keys(rows)) {
		cells := rows[reason]
		if _, found := reasons[reason]; !found {
			t.Errorf("%s: reason %s is no constant of the API: remove the row", stallTable, reason)
		}
		named := word.FindAllStringSubmatch(cells[1], -1)
		if len(named) == 0 && cells[1] != "avoidedServers" {
			t.Errorf("%s: reason %s names no condition", stallTable, reason)
		}
		for _, condition := range named {
			if _, found := conditions[condition[1]]; !found {
				t.Errorf("%s: reason %s names condition %s, which does not exist", stallTable, reason, condition[1])
			}
		}
	}
}

// constants maps the values of the package's string constants whose names end so to their names.
func constants(t *testing.T, suffix string) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, name := range spec.Names {
				literal, ok := spec.Values[i].(*ast.BasicLit)
				if !ok || literal.Kind != token.STRING || !name.IsExported() || !strings.HasSuffix(name.Name, suffix) {
					continue
				}
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				if other, taken := values[value]; taken {
					t.Errorf("%s and %s are both %q: one reason, one constant", other, name.Name, value)
				}
				values[value] = name.Name
			}
			return true
		})
	}
	return values
}

// stallRows are the rows of the table by reason. A row is | `Reason` | conditions | meaning | who acts | how long is normal |.
func stallRows(t *testing.T) map[string][]string {
	t.Helper()
	content, err := os.ReadFile(filepath.FromSlash(stallTable))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for number, line := range strings.Split(string(content), "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 5 {
			t.Errorf("%s:%d: %d cells, want 5", stallTable, number+1, len(cells))
			continue
		}
		for i := range cells {
			if cells[i] = strings.TrimSpace(cells[i]); cells[i] == "" {
				t.Errorf("%s:%d: cell %d is empty", stallTable, number+1, i+1)
			}
		}
		reason := strings.Trim(cells[0], "`")
		if _, twice := rows[reason]; twice {
			t.Errorf("%s:%d: reason %s has two rows", stallTable, number+1, reason)
		}
		rows[reason] = cells
	}
	return rows
}
