// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/spf13/pflag"
)

func parsed(t *testing.T, args ...string) *Options {
	t.Helper()
	options := DefaultOptions()
	flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse(append([]string{"--wing=machine", "--wing-namespace=wing"}, args...)); err != nil {
		t.Fatal(err)
	}
	return options
}

func TestDefaults(t *testing.T) {
	g := NewWithT(t)
	options := parsed(t)
	g.Expect(options.Complete()).To(Succeed())
	g.Expect(options.PollInterval).To(Equal(5 * time.Second))
	g.Expect(options.AuditInterval).To(Equal(10 * time.Minute))
	g.Expect(parsed(t, "--audit-interval=1h").AuditInterval).To(Equal(time.Hour))
}

// TestWhatCannotBe: each refusal names the flag.
func TestWhatCannotBe(t *testing.T) {
	cases := map[string][]string{
		"--wing=cloud is no wing": {"--wing=cloud"},
		"--wing is required":      {"--wing="},
		"--wing-namespace":        {"--wing-namespace="},
		"--poll-interval":         {"--poll-interval=0s"},
		"--audit-interval":        {"--audit-interval=-1s"},
		"--concurrency":           {"--concurrency=0"},
	}
	for text, args := range cases {
		t.Run(text, func(t *testing.T) {
			NewWithT(t).Expect(parsed(t, args...).Complete()).To(MatchError(ContainSubstring(text)))
		})
	}
}
