// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"crypto/tls"
	"io"
	"log"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

const newKey = "rotating-consumer2:rotating-token2:rotating-secret2"

var rotatingYard = yard{name: "rotating", servers: 2}

// testRotated gives the account a new key and then MAAS a certificate of another authority, while a machine runs and another
// waits. What runs goes on, the operator is told what to write, and once it is written all goes on without a restart.
func testRotated(t *testing.T) {
	door := newFront(t)
	n := rotatingYard.open(t, func(identity *infrav1.MaasClusterIdentity) {
		identity.Spec.Endpoint, identity.Spec.CABundle = door.address, door.trust(t)
	}, rotatingYard.name)[0]
	identity := rotatingYard.identity()
	running := n.upPlain("running")

	world.MAAS.RotateKey(rotatingYard.name, newKey)
	look(t, identity)
	expect(t, identity, no(infrav1.CredentialsValidCondition, infrav1.CredentialsRefusedReason, "write a valid one into its Secret"))
	waiting := n.createMachine("waiting")
	expect(t, waiting.object(), because(infrav1.ServerClaimedCondition, infrav1.CredentialsRefusedReason, "write a valid one into its Secret"))
	if taken := effects(n.name, waiting.name, "allocate"); len(taken) > 0 {
		t.Errorf("server %s was taken without a valid key", taken[0].SystemID)
	}
	setSecret(t, demo.MachineNamespace, rotatingYard.name, apiKey, newKey)
	expect(t, identity, yes(infrav1.ReadyCondition))
	waiting.waitUpPlain()

	renewed := door.trust(t)
	look(t, identity)
	expect(t, identity, because(infrav1.ReadyCondition, infrav1.MaasUnreachableReason))
	waiting.ask()
	expect(t, waiting.object(), unknown(infrav1.ServerClaimedCondition, infrav1.MaasUnreachableReason, "nothing is changed until it does"))
	change(t, identity, func() { identity.Spec.CABundle = renewed })
	expect(t, identity, yes(infrav1.ReadyCondition))
	waiting.waitDown(upWithin)
	expect(t, running.object(), yes(infrav1.ReadyCondition))
	running.down()
	for _, m := range []*machine{running, waiting} {
		m.once("allocate", "deploy", "release")
	}
}

// look has the identity's account tried at once.
func look(t *testing.T, identity *infrav1.MaasClusterIdentity) {
	t.Helper()
	change(t, identity, func() { metav1.SetMetaDataAnnotation(&identity.ObjectMeta, "operator/look", time.Now().String()) })
}

// front is one more door of the lab's MAAS, whose certificate can be changed.
type front struct {
	address     string
	server      *httptest.Server
	certificate atomic.Pointer[tls.Config]
}

// newFront opens the door. Nobody can trust it before trust was called.
func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{server: httptest.NewUnstartedServer(world.MAAS.Handler())}
	f.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.certificate.Load(), nil }}
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // Clients that do not trust it are expected.
	f.server.StartTLS()
	t.Cleanup(f.server.Close)
	f.address = f.server.URL + "/MAAS"
	return f
}

// trust gives the door a certificate of a new authority, ends all connections, and returns what the authority is verified with.
func (f *front) trust(t *testing.T) (caBundle []byte) {
	t.Helper()
	ca, err := pki.NewCA("rotated")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "maas", Server: true}.Loopback())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	f.certificate.Store(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}})
	f.server.CloseClientConnections()
	return ca.CertPEM
}
