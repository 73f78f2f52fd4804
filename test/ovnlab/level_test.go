// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

const childVariable = "OVNLAB_TEST_CHILD"

// TestRequire: on a machine without OVN a test is skipped with the names of what is missing, or fails where OVN is required.
func TestRequire(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		level, why := ovnlab.Best()
		t.Logf("best: %s, %s", level, why)
		ovnlab.Require(t, ovnlab.StandIn)
		ovnlab.Require(t, ovnlab.Switches)
		return
	}
	for _, c := range []struct {
		require, want string
		fails         bool
	}{
		{"", "SKIPPED, NOT PROVEN: OVN level switches is not possible: missing", false},
		{"1", "REQUIRE_OVN=1, but OVN level switches is not possible: missing", true},
	} {
		g := NewWithT(t)
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRequire$", "-test.v")
		child.Env = []string{"PATH=/nowhere", childVariable + "=1", ovnlab.RequireVariable + "=" + c.require}
		output, err := child.CombinedOutput()
		g.Expect(err != nil).To(Equal(c.fails), string(output))
		g.Expect(string(output)).To(And(ContainSubstring(c.want), ContainSubstring("ovn-northd"), ContainSubstring("ovn-central")))
		g.Expect(string(output)).To(ContainSubstring("best: stand-in, level switches is not possible: missing"))
	}
}

// TestBest: the best level starts, and one that is not the best of all says what the next one lacks.
func TestBest(t *testing.T) {
	g := NewWithT(t)
	level, why := ovnlab.Best()
	said := fmt.Sprintf("OVN level %s", level)
	if why != "" {
		said += "; " + why
	}
	t.Logf("%s. NOT PROVEN: %s", said, level.NotProven()) // make test-dataplane shows this line
	g.Expect(why == "").To(Equal(level == ovnlab.Namespaces))
	g.Expect(ovnlab.Possible(level)).To(Succeed())
	g.Expect(ovnlab.Possible(ovnlab.StandIn)).To(Succeed())
	g.Expect(ovnlab.Possible(7)).NotTo(Succeed())
}
