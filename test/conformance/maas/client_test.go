// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/node"
	. "github.com/onsi/gomega"
)

// bounded gives each call of a client that knows no context a deadline.
type bounded struct {
	*suite
	next http.RoundTripper
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(b.ctx, b.callTimeout)
	response, err := b.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	response.Body = ending{response.Body, cancel}
	return response, nil
}

// ending lets go of a call's context once its body is read.
type ending struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (e ending) Close() error {
	defer e.cancel()
	return e.ReadCloser.Close()
}

// clientLibrary is a claim's life through gomaasclient, which the provider's own client is built on.
func clientLibrary(s *suite, t *testing.T) {
	s.run(t, "takes, annotates, finds and releases", func(c *check) {
		id, token := c.oneMachine(), c.token()
		key := c.user.key
		maas, err := client.GetClientWithTransport(c.url, key.consumer+":"+key.token+":"+key.secret, "2.0",
			bounded{c.suite, c.wire.http.Transport})
		c.Expect(err).NotTo(HaveOccurred())
		me, err := maas.Users.Whoami()
		c.Expect(err).NotTo(HaveOccurred())
		c.Expect(me.UserName).To(Equal(c.user.name))

		c.touched.Store(true)
		m, err := maas.Machines.Allocate(&entity.MachineAllocateParams{SystemID: id, AgentName: token})
		c.Expect(err).NotTo(HaveOccurred())
		c.Expect(m.Status).To(Equal(node.StatusAllocated))
		_, err = maas.Machine.SetWorkloadAnnotations(id, map[string]string{"conformance": "1"})
		c.Expect(err).NotTo(HaveOccurred())
		found, err := maas.Machines.Get(&entity.MachinesParams{AgentName: []string{token}})
		c.Expect(err).NotTo(HaveOccurred())
		c.Expect(found).To(HaveLen(1))
		c.Expect(found[0].SystemID).To(Equal(id))
		c.Expect(found[0].Owner).To(Equal(c.user.name))
		c.Expect(found[0].WorkloadAnnotations).To(BeEquivalentTo(map[string]string{"conformance": "1"}))
		events, err := maas.Events.Get(&entity.EventParams{ID: id, Limit: "1"})
		c.Expect(err).NotTo(HaveOccurred())
		c.Expect(events.Events).To(HaveLen(1))
		_, err = maas.Machine.Release(id, &entity.MachineReleaseParams{Comment: c.prefix})
		c.Expect(err).NotTo(HaveOccurred())
		c.free(id)
	})
}
