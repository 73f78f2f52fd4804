// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

func TestEraseIsNeverLessThanTheMinimum(t *testing.T) {
	for _, c := range []struct{ asked, fallback, minimum, want infrav1.ReleaseErase }{
		{"", "", "", infrav1.ReleaseEraseQuick},
		{"", infrav1.ReleaseEraseFull, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseFull},
		{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseFull, infrav1.ReleaseEraseSecure, infrav1.ReleaseEraseSecure},
		{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone},
		{infrav1.ReleaseEraseFull, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseFull},
	} {
		p := &pass{machine: &infrav1.MaasMachine{}, identity: &scope.Identity{Object: &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "i"}}}}
		p.machine.Spec.Release.Erase = c.asked
		p.identity.Object.Spec.Release = infrav1.IdentityRelease{EraseDefault: c.fallback, EraseMinimum: c.minimum}
		if got := p.erase(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
