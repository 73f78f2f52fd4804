// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// selfSigned returns a certificate of the loopback address, and its PEM.
func selfSigned(t *testing.T, serial int64) (tls.Certificate, []byte) {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	g.Expect(err).NotTo(HaveOccurred())
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestRotatedKeyAndCAArePickedUp: a running wing goes on when MAAS gets another certificate, and when the account gets another
// key, as soon as identity and Secret say so.
func TestRotatedKeyAndCAArePickedUp(t *testing.T) {
	firstCert, firstCA := selfSigned(t, 1)
	secondCert, secondCA := selfSigned(t, 2)
	var serves atomic.Pointer[tls.Certificate]
	var accepts atomic.Value
	serves.Store(&firstCert)
	accepts.Store("FirstToken")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), accepts.Load().(string)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"username": "capi", "is_superuser": false}`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // It would write of every handshake that is refused.
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*serves.Load()}}, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)

	identity := anIdentity()
	identity.Spec.Endpoint, identity.Spec.CABundle = server.URL+"/MAAS", firstCA
	s := newSetting(t, identity, aSecret("Consumer:FirstToken:TokenSecret"))
	s.identities.(*identities).NewMAAS = func(config maas.Config) (MAAS, error) {
		config.Clock = nil
		return maas.New(config)
	}
	get := func() string {
		_, err := s.identities.Get(t.Context(), "lab")
		if unusable, ok := AsUnusable(err); ok {
			return unusable.Reason
		}
		s.Expect(err).NotTo(HaveOccurred())
		return ""
	}
	change := func(change func(*infrav1.MaasClusterIdentity)) {
		s.Expect(s.objects.Get(t.Context(), client.ObjectKeyFromObject(identity), identity)).To(Succeed())
		identity.Generation++
		change(identity)
		s.Expect(s.objects.Update(t.Context(), identity)).To(Succeed())
	}
	s.Expect(get()).To(BeEmpty())

	serves.Store(&secondCert)
	server.CloseClientConnections()
	change(func(i *infrav1.MaasClusterIdentity) { i.Spec.Release.Scripts = []string{"wipe"} })
	s.Expect(get()).To(Equal(infrav1.MaasUnreachableReason), "the certificate is not the one that is trusted")
	change(func(i *infrav1.MaasClusterIdentity) { i.Spec.CABundle = secondCA })
	s.Expect(get()).To(BeEmpty())

	accepts.Store("SecondToken")
	secret := &corev1.Secret{}
	s.Expect(s.objects.Get(t.Context(), client.ObjectKey{Namespace: wingNamespace, Name: "key"}, secret)).To(Succeed())
	secret.Data[IdentitySecretKey] = []byte("Consumer:WrongToken:TokenSecret")
	s.Expect(s.objects.Update(t.Context(), secret)).To(Succeed())
	s.clock.Step(credentialsMaxAge)
	s.Expect(get()).To(Equal(infrav1.CredentialsRefusedReason))
	secret.Data[IdentitySecretKey] = []byte("Consumer:SecondToken:TokenSecret")
	s.Expect(s.objects.Update(t.Context(), secret)).To(Succeed())
	s.clock.Step(credentialsMaxAge)
	s.Expect(get()).To(BeEmpty())
}
