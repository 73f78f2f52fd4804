// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// faultBook is where operators read the rows.
const faultBook = "../../docs/book/fabric-faults.md"

// String is the row as the book has it.
func (r noProofRow) String() string {
	return fmt.Sprintf("| %s | %s | `%s` | %s |", r.trouble.name, r.at, r.sees, r.happens)
}

// String is the row as the book has it.
func (r driftRow) String() string {
	off := "no"
	switch {
	case r.powerOff:
		off = "at once"
	case r.sees == driftSees:
		off = "when the proof is too old"
	}
	sees := "`" + r.sees + "`"
	if r.again != nil {
		sees = "at most for a moment `" + doubtSees + "`"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |", r.name, sees, off, r.happens)
}

// TestTheBook holds the book to the rows that are played.
func TestTheBook(t *testing.T) {
	text, err := os.ReadFile(faultBook)
	if err != nil {
		t.Fatal(err)
	}
	var noProof, drift []string
	for _, r := range noProofOf {
		noProof = append(noProof, r.String())
	}
	for _, r := range driftRows {
		drift = append(drift, r.String())
	}
	for head, wanted := range map[string][]string{
		"| What is away | When | The operator sees | What happens |":       noProof,
		"| What changes | The operator sees | `PowerOff` | What happens |": drift,
	} {
		_, table, found := strings.Cut(string(text), head+"\n|---|---|---|---|\n")
		table, _, _ = strings.Cut(table, "\n\n")
		if written := strings.TrimSpace(table); !found || written != strings.Join(wanted, "\n") {
			t.Errorf("the table %q of %s is not what is played; it should be\n%s", head, faultBook, strings.Join(wanted, "\n"))
		}
	}
}
