// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// row is one server as everybody sees it: MAAS, Cluster API, the provider's proof, and the data plane.
type row struct {
	machine    string
	attachment *infrav1.DPUAttachment
	port       *dpfsim.Port
	said       string
}

// Screen writes one line a server and who can reach whom. What the provider says and what the data plane does stand side by
// side: address and VPC are the data plane's, evidence and since the provider's.
func (w *World) Screen(ctx context.Context, out io.Writer) error {
	rows, err := w.rows(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  SERVER\tZONE\tMAAS\tMACHINE\tDPU\tVPC\tSUBNET\tMAC\tADDRESS\tEVIDENCE\tSINCE\tREMARK")
	states := map[string]string{}
	for _, m := range w.MAAS.Machines() {
		states[m.SystemID] = m.StatusName
	}
	for _, s := range w.Servers {
		r := rows[s.SystemID]
		vpc, address := "-", "-"
		if r.port != nil {
			_, vpc, _ = strings.Cut(r.port.VPC, "_")
			address = r.port.Address.String()
		}
		subnet, evidence, since := "-", "-", "-"
		if a := r.attachment; a != nil && len(a.Status.Ports) > 0 {
			subnet = a.Spec.Ports[0].Subnet
			if p := a.Status.Ports[0]; p.State != "" {
				evidence = fmt.Sprintf("%s by %s", p.State, p.Evidence)
				if p.Since != nil {
					since = p.Since.Format(time.TimeOnly)
				}
			}
		}
		remark := s.Trouble
		if r.said != "" && s.Trouble != "" {
			remark += " (" + r.said + ")"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.SystemID, s.Zone, states[s.SystemID],
			orDash(r.machine), orDash(s.DPU.Name), vpc, subnet, orDash(s.TenantMAC), address, evidence, since, remark)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return w.reach(ctx, out)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func (w *World) rows(ctx context.Context) (map[string]*row, error) {
	rows := map[string]*row{}
	for _, s := range w.Servers {
		rows[s.SystemID] = &row{}
	}
	machines, attachments, servers := &infrav1.MaasMachineList{}, &infrav1.DPUAttachmentList{}, &infrav1.DPUServerList{}
	for _, list := range []client.ObjectList{machines, attachments, servers} {
		if err := w.Operator.List(ctx, list); err != nil {
			return nil, err
		}
	}
	for i := range machines.Items {
		if r := rows[machines.Items[i].Status.SystemID]; r != nil {
			r.machine = machines.Items[i].Namespace + "/" + machines.Items[i].Name
		}
	}
	for i := range attachments.Items {
		if r := rows[attachments.Items[i].Spec.Server.SystemID]; r != nil {
			r.attachment = &attachments.Items[i]
		}
	}
	for i := range servers.Items {
		if r := rows[servers.Items[i].Spec.SystemID]; r != nil {
			r.said = string(servers.Items[i].Status.Eligibility)
			for _, c := range servers.Items[i].Status.Conditions {
				if c.Type == infrav1.ReadyCondition && c.Status != "True" {
					r.said += ": " + c.Reason
				}
			}
		}
	}
	ports := w.Fabric.Ports()
	for i := range ports {
		for _, s := range w.Servers {
			if strings.EqualFold(s.TenantMAC, ports[i].HostMAC) {
				rows[s.SystemID].port = &ports[i]
			}
		}
	}
	return rows, nil
}
