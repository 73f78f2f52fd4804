// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package answer

import "testing"

func TestAnswer(t *testing.T) {
	var zero Answer
	if zero != Unknown {
		t.Errorf("the zero value is %s, which somebody who forgot to ask would take for an answer", zero)
	}
	for a, want := range map[Answer]string{Unknown: "unknown", No: "no", Yes: "yes", Yes + 1: "unknown"} {
		if got := a.String(); got != want {
			t.Errorf("String of %d is %q, want %q", int(a), got, want)
		}
	}
}
