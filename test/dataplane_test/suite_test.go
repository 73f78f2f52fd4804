// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dataplane_test shows with frames what the provider says of isolation: its fabric wing runs against the DPF simulator,
// which drives a real OVN, and whatever a server's port gives out is captured. Without OVN's packages its tests are skipped, or
// fail with REQUIRE_OVN=1.
package dataplane_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

var (
	rounds = flag.Int("rounds", 3, "how often a server moves red, pool, blue, pool for each grade of evidence; 50 is the long form")
	grades = flag.String("grades", "ServiceInterface,Bound,Barrier", "the grades of evidence to run with")
	faulty = flag.String("fault-grades", "Barrier", "the grades of evidence to run with under faults")
	report = flag.String("report", "", "a file for the tables")
)

// timeScale makes the simulated DPF this much faster than its lab timing, so that what is measured is the provider and OVN.
const timeScale = 0.1

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	flag.Parse()
	code := m.Run()
	if *report != "" {
		if err := os.WriteFile(*report, []byte(strings.Join(published, "\n")), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if shared != nil {
		if err := shared.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// published are the tables of all tests.
var published []string

// publish logs a table, and keeps it for the report.
func publish(t *testing.T, title, table string) {
	t.Helper()
	t.Log(title + "\n" + table)
	published = append(published, "## "+title+"\n\n"+table)
}

// shared is the site at level Switches, which tests use one after the other; each leaves it as it found it.
var shared *site

// cast are the servers of the shared site: two of each tenant, which stay, and one that moves.
type cast struct {
	red, blue [2]*server
	mover     *server
}

var players cast

func (c cast) staying() []*server { return []*server{c.red[0], c.red[1], c.blue[0], c.blue[1]} }

func (c cast) all() []*server { return append(c.staying(), c.mover) }

// onSwitches is the shared site with its servers.
func onSwitches(t *testing.T) (*site, cast) {
	t.Helper()
	ovnlab.Require(t, ovnlab.Switches)
	if shared != nil {
		return shared, players
	}
	ctx := t.Context()
	s, err := startSite(ctx, ovnlab.Switches)
	if err != nil {
		t.Fatal(err)
	}
	shared = s
	if players, err = s.castPlayers(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("level %s: %s", s.ovn.Level(), s.ovn.Level().NotProven())
	return s, players
}

// castPlayers racks five servers and attaches the four that stay.
func (s *site) castPlayers(ctx context.Context) (c cast, err error) {
	group, ctx := errgroup.WithContext(ctx)
	for i := range 2 {
		group.Go(func() (err error) {
			c.red[i], err = s.settleIn(ctx, fmt.Sprintf("red-%d", i+1), "red", 1+i)
			return err
		})
		group.Go(func() (err error) {
			c.blue[i], err = s.settleIn(ctx, fmt.Sprintf("blue-%d", i+1), "blue", 3+i)
			return err
		})
	}
	group.Go(func() (err error) {
		c.mover, err = s.rack(ctx, "mover", 5)
		return err
	})
	if err := group.Wait(); err != nil {
		return c, err
	}
	// A host keeps no address of a VPC it has left; that of its frames is one that neither tenant has given away.
	c.mover.station.Address = sameAddress(200)
	return c, nil
}

// chosen are the grades of a flag.
func chosen(flag string) (out []infrav1.EvidenceGrade) {
	for name := range strings.SplitSeq(flag, ",") {
		out = append(out, infrav1.EvidenceGrade(name))
	}
	return out
}

// prove switches the fabric to a grade and waits until the servers that stay are proven with it.
func (s *site) prove(ctx context.Context, grade infrav1.EvidenceGrade, servers []*server) error {
	if err := s.setGrade(ctx, grade); err != nil {
		return err
	}
	for _, sv := range servers {
		err := s.until(ctx, fmt.Sprintf("%s is proven with grade %s", sv.name, grade), func(ctx context.Context) (bool, error) {
			attached, err := s.says(ctx, sv, infrav1.AttachmentStateAttached)
			return attached && sv.attachment.Status.Ports[0].Evidence == grade, err
		})
		if err != nil {
			return fmt.Errorf("%w; its Attached condition: %s", err, s.reason(sv))
		}
	}
	return nil
}
