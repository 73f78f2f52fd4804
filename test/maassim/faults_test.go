// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/entity"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// post sends a call that may not be answered.
func (l *lab) post(ctx context.Context, path string, form url.Values) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+"/MAAS/api/2.0/"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", l.oauth(tenantKey, nil))
	return http.DefaultClient.Do(request)
}

func TestInjectedAnswers(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultConflict, Operation: "allocate", Count: 1})
	remove := l.region.Inject(maassim.Fault{
		Kind: maassim.FaultStatus, Operation: "allocate", User: "tenant", AgentName: "t", Skip: 1, Count: 1,
		Status: 504, Body: "rack timed out", Header: http.Header{"X-Test": {"yes"}},
	})
	allocate := func() answer {
		return l.raw(http.MethodPost, "machines/?op=allocate", l.oauth(tenantKey, nil), url.Values{"agent_name": {"t"}, "dry_run": {"true"}})
	}
	first := allocate()
	g.Expect(first.code).To(Equal(http.StatusConflict))
	g.Expect(first.header.Get("Retry-After")).To(Equal("5"))
	g.Expect(first.body).To(ContainSubstring("<title>Error: Conflict Error</title>"))
	g.Expect(allocate().code).To(Equal(200), "the second fault skips one")
	third := allocate()
	g.Expect([]any{third.code, third.body, third.header.Get("X-Test")}).To(Equal([]any{504, "rack timed out", "yes"}))
	g.Expect(allocate().code).To(Equal(200), "counts are used up")
	remove()
	remove()
	g.Expect(l.region.Journal()).To(BeEmpty())
}

func TestDroppedReplyCommits(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultDropReply, Operation: "allocate", Count: 1})
	_, err := l.tenant.Machines.Allocate(&entity.MachineAllocateParams{AgentName: "t"})
	g.Expect(err).To(HaveOccurred())
	found, err := l.tenant.Machines.Get(&entity.MachinesParams{AgentName: []string{"t"}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(HaveLen(1))
	g.Expect(l.region.Calls()).To(ContainElement(maassim.CallCount{
		Call: maassim.Call{User: "tenant", Operation: "allocate", SystemID: "abc123", AgentName: "t"}, Count: 1}))
}

func TestLateCommitAppearsLater(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultLateCommit, Operation: "allocate", Delay: 150 * time.Millisecond, Count: 1})
	_, err := l.tenant.Machines.Allocate(&entity.MachineAllocateParams{AgentName: "t"})
	g.Expect(err).To(HaveOccurred())
	found, err := l.tenant.Machines.Get(&entity.MachinesParams{AgentName: []string{"t"}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeEmpty(), "looking at once finds nothing")
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusAllocated))
	g.Expect(l.state("abc123").AgentName).To(Equal("t"))
}

func TestHangAndDelay(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultHang, Operation: "allocate", Count: 1})
	l.region.Inject(maassim.Fault{Kind: maassim.FaultDelay, Operation: "allocate", Delay: 100 * time.Millisecond, Count: 1})
	for _, want := range []int{maassim.StatusReady, maassim.StatusAllocated} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		response, err := l.post(ctx, "machines/?op=allocate", url.Values{"agent_name": {"t"}})
		if err == nil {
			g.Expect(response.Body.Close()).To(Succeed())
		}
		cancel()
		g.Expect(errors.Is(err, context.DeadlineExceeded)).To(BeTrue(), "%v", err)
		// A client that gave up does not stop delayed work; a hung call never does any.
		g.Eventually(l.status("abc123")).Should(Equal(want))
	}
}
