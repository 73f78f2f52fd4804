// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package posture_test reads simulated BMCs, good ones and bad ones.
package posture_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bmcsim"
)

const (
	username = "root"
	password = "correct horse"
	patience = 30 * time.Second
)

// system is a site whose CA is one of the system's.
var system *bmcsim.Site

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "posture")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if system, err = bmcsim.New(); err != nil {
		panic(err)
	}
	defer func() { _ = system.Close() }()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, system.CA(), 0o600); err != nil {
		panic(err)
	}
	// Read once by crypto/x509, before the first connection.
	for key, value := range map[string]string{"SSL_CERT_FILE": file, "SSL_CERT_DIR": dir} {
		if err := os.Setenv(key, value); err != nil {
			panic(err)
		}
	}
	return m.Run()
}

// yard is a site and how it is reached.
type yard struct {
	*WithT
	t    *testing.T
	site *bmcsim.Site
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{WithT: NewWithT(t), t: t}
	y.SetDefaultEventuallyTimeout(patience)
	y.SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	var err error
	y.site, err = bmcsim.New()
	y.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { y.Expect(y.site.Close()).To(Succeed()) })
	return y
}

// card puts up a BMC and says how it is known to DPF.
func (y *yard) card(n int) (*bmcsim.BMC, posture.Card) {
	y.t.Helper()
	serial := fmt.Sprintf("MT%05d", n)
	bmc, err := y.site.Add(bmcsim.Card{SerialNumber: serial, MAC: "58:A2:E1:00:00:01", Username: username, Password: password})
	y.Expect(err).NotTo(HaveOccurred())
	return bmc, posture.Card{Device: fmt.Sprintf("mt%05d", n), SerialNumber: serial, BMC: bmc.Address()}
}

// access is what is right for all cards of the yard.
func (y *yard) access() posture.Access {
	return posture.Access{Trust: posture.Trust{CABundle: y.site.CA()}, Credentials: posture.NewCredentials(username, password), Version: "1"}
}

// limits are generous, so that a busy machine is not taken for a slow BMC.
var limits = posture.Limits{Request: 10 * time.Second, Total: 30 * time.Second}

// short are for BMCs that do not answer anyhow.
var short = posture.Limits{Request: 300 * time.Millisecond, Total: 2 * time.Second}

func (y *yard) read(card posture.Card, access posture.Access, limits posture.Limits) posture.Reading {
	y.t.Helper()
	return posture.Read(y.t.Context(), card, access, limits, time.Now)
}

// answers are those of all checks, in their order: "yes no unknown".
func answers(reading posture.Reading) map[posture.Check]answer.Answer {
	all := map[posture.Check]answer.Answer{}
	for _, check := range posture.Checks {
		all[check] = reading.Result(check).Answer
	}
	return all
}

// all has the same answer for every check.
func all(a answer.Answer) map[posture.Check]answer.Answer {
	same := map[posture.Check]answer.Answer{}
	for _, check := range posture.Checks {
		same[check] = a
	}
	return same
}

// except is all Yes but for one.
func except(check posture.Check, a answer.Answer) map[posture.Check]answer.Answer {
	most := all(answer.Yes)
	most[check] = a
	return most
}

// desk hands out access that a test can change.
type desk struct {
	mu     sync.Mutex
	access posture.Access
	err    error
	asked  int
}

func (d *desk) set(change func(*desk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *desk) get(context.Context, string) (posture.Access, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return d.access, d.err
}
