// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
)

// bmcScene is a fabric with a Secret for all BMCs and one for a single card.
func bmcScene(t *testing.T, change func(*infrav1.DPUFabric), objects ...client.Object) (*fabrics, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	fabric := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f"}}
	fabric.Spec.Posture = infrav1.Posture{
		Mode: infrav1.PostureEnforce, CABundle: []byte("ca"), PinnedCertificates: []string{"pin"},
		SecretRef:     &infrav1.LocalSecretReference{Name: "all"},
		DeviceSecrets: []infrav1.DeviceSecret{{DPUDevice: "special", SecretRef: infrav1.LocalSecretReference{Name: "own"}}},
	}
	change(fabric)
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(objects, fabric)...).Build()
	f, ok := NewFabrics(FabricsOptions{Client: c, APIReader: c, Namespace: "wing", Installation: "i"}).(*fabrics)
	if !ok {
		t.Fatal("NewFabrics returns something else")
	}
	return f, c
}

func bmcUser(name, username, password string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "wing", Name: name, UID: types.UID(name)},
		Data:       map[string][]byte{BMCUsernameKey: []byte(username), BMCPasswordKey: []byte(password)},
	}
}

// TestBMCAccess takes the card's own Secret before that of all, and each as it is now.
func TestBMCAccess(t *testing.T) {
	f, c := bmcScene(t, func(*infrav1.DPUFabric) {}, bmcUser("all", "u", "p"), bmcUser("own", "v", "q"))
	common, err := f.bmcAccess(t.Context(), "f", "d1")
	if err != nil || common.Credentials != posture.NewCredentials("u", "p") {
		t.Errorf("the Secret of all was not taken: %v", err)
	}
	if string(common.Trust.CABundle) != "ca" || !slices.Equal(common.Trust.PinnedCertificates, []string{"pin"}) {
		t.Errorf("trust is %+v", common.Trust)
	}
	if own, err := f.bmcAccess(t.Context(), "f", "special"); err != nil || own.Credentials != posture.NewCredentials("v", "q") || own.Version == common.Version {
		t.Errorf("the card's own Secret was not taken: %v", err)
	}
	rotated := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "wing", Name: "all"}, rotated); err != nil {
		t.Fatal(err)
	}
	rotated.Data[BMCPasswordKey] = []byte("next")
	if err := c.Update(t.Context(), rotated); err != nil {
		t.Fatal(err)
	}
	if next, err := f.bmcAccess(t.Context(), "f", "d1"); err != nil || next.Credentials != posture.NewCredentials("u", "next") || next.Version == common.Version {
		t.Errorf("the renewed Secret was not taken: %v", err)
	}
}

// TestBMCAccessMissing says what to write, and never what is written.
func TestBMCAccessMissing(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*infrav1.DPUFabric)
		secret  *corev1.Secret
		reason  string
		message string
	}{
		"no Secret named": {func(f *infrav1.DPUFabric) { f.Spec.Posture.SecretRef = nil }, bmcUser("all", "u", "p"), infrav1.SecretNotFoundReason, "posture.secretRef"},
		"no Secret":       {func(*infrav1.DPUFabric) {}, bmcUser("other", "u", "hunter2"), infrav1.SecretNotFoundReason, "wing/all"},
		"no username":     {func(*infrav1.DPUFabric) {}, bmcUser("all", "", "hunter2"), infrav1.SecretInvalidReason, "key username"},
		"no password":     {func(*infrav1.DPUFabric) {}, bmcUser("all", "hunter2", ""), infrav1.SecretInvalidReason, "key password"},
	} {
		f, _ := bmcScene(t, c.change, c.secret)
		_, err := f.bmcAccess(t.Context(), "f", "d1")
		unusable, ok := AsUnusable(err)
		if !ok || unusable.Reason != c.reason || !strings.Contains(err.Error(), c.message) || strings.Contains(fmt.Sprintf("%+v", err), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAwait wakes each attachment once after the card was read, and keeps the readings as long as the fabric is the same.
func TestAwait(t *testing.T) {
	calls := make(chan PostureCall, 10)
	f, _ := bmcScene(t, func(*infrav1.DPUFabric) {})
	f.options.ObservePosture = func(call PostureCall) { calls <- call }
	object := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f", UID: "1"}}
	memory := f.remember(object)
	all := f.postures(object, memory)
	if f.postures(object, f.remember(object)) != all {
		t.Error("every caller has readings of its own")
	}
	red, blue := types.NamespacedName{Namespace: "red", Name: "a"}, types.NamespacedName{Namespace: "blue", Name: "b"}
	all.Await("d1", red)
	all.Await("d1", red)
	all.Await("d2", blue)
	all.Latest(posture.Card{Device: "d1", SerialNumber: "MT1"}, time.Now(), true)
	select {
	case call := <-calls:
		if call.Fabric != "f" || call.Card.Device != "d1" {
			t.Errorf("told of %+v", call)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the card was not read")
	}
	woken, ok := f.wakes.take()
	if !ok || woken != red {
		t.Errorf("woke %v %t, want %v", woken, ok, red)
	}
	if more, ok := f.wakes.take(); ok {
		t.Errorf("woke %v besides", more)
	}
	again := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f", UID: "2"}}
	if f.postures(again, f.remember(again)) == all {
		t.Error("a fabric that was made anew has the readings of the one before")
	}
}
