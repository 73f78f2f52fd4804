// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bmcsim"
)

const (
	bmcSecretName = "dpu-bmcs"
	bmcUsername   = "capi-reader"
	bmcPassword   = "only for the lab"
)

// startBMCs puts up a BMC for every DPU, as zero trust wants them, and writes their addresses down for DPF.
func (w *World) startBMCs(_, _ context.Context) error {
	site, err := bmcsim.New()
	if err != nil {
		return err
	}
	w.BMCs = site
	for i := range w.Servers {
		d := &w.Servers[i].DPU
		if d.Name == "" {
			continue
		}
		bmc, err := site.Add(bmcsim.Card{SerialNumber: d.Serial, MAC: d.PF0MAC, Username: bmcUsername, Password: bmcPassword})
		if err != nil {
			return err
		}
		d.BMC = bmc.Address()
		w.bmcs = append(w.bmcs, bmc)
	}
	return nil
}

// askPosture has a fabric ask the BMCs.
func (w *World) askPosture(fabric *infrav1.DPUFabric) {
	fabric.Spec.Posture = infrav1.Posture{
		Mode: w.options.Posture, CABundle: w.BMCs.CA(), SecretRef: &infrav1.LocalSecretReference{Name: bmcSecretName},
	}
}

func bmcSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: fabricNamespace, Name: bmcSecretName},
		Data:       map[string][]byte{"username": []byte(bmcUsername), "password": []byte(bmcPassword)},
	}
}

// checkPosture holds that nobody got a server whose posture was not verified, and that nothing was written to a BMC. It returns
// how many attachments are verified.
func (w *World) checkPosture(ctx context.Context) (verified int, err error) {
	if w.options.Posture != infrav1.PostureEnforce {
		return 0, nil
	}
	list := &infrav1.DPUAttachmentList{}
	if err := w.Operator.List(ctx, list); err != nil {
		return 0, fmt.Errorf("list DPUAttachments: %w", err)
	}
	for i := range list.Items {
		a := &list.Items[i]
		if a.Status.State != infrav1.AttachmentStateAttached {
			continue
		}
		posture := conditions.Get(a, infrav1.PostureVerifiedCondition)
		if posture == nil || posture.Status != metav1.ConditionTrue || posture.Reason != infrav1.PostureVerifiedReason {
			return verified, fmt.Errorf("DPUAttachment %s/%s is attached, and its posture is not verified: %+v", a.Namespace, a.Name, posture)
		}
		verified++
	}
	for _, bmc := range w.bmcs {
		for _, r := range bmc.Requests() {
			if r.Method != http.MethodGet && !strings.HasPrefix(r.Path, "/redfish/v1/SessionService/Sessions") {
				return verified, fmt.Errorf("BMC %s got %s %s", bmc.Address(), r.Method, r.Path)
			}
		}
	}
	return verified, nil
}
