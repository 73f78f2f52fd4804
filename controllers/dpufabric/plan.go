// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"fmt"
	"strings"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// needs are all who could need a fabric, of every fabric.
type needs struct {
	fabric      *infrav1.DPUFabric
	fabrics     []infrav1.DPUFabric
	tenants     []infrav1.TenantVPC
	attachments []infrav1.DPUAttachment
	servers     []infrav1.DPUServer
}

// deletion is what follows for a fabric that is to go.
type deletion struct {
	// neededBy keep the fabric.
	neededBy []string
	// forget are the servers whose memory goes, once nobody needs the fabric.
	forget []infrav1.DPUServer
	done   bool
}

// planDeletion decides whether a fabric may go. An attachment needs the fabric that served it, or would serve it, until it is
// gone: only then is its proof of detachment taken note of.
func planDeletion(seen needs) deletion {
	var d deletion
	for i := range seen.tenants {
		if t := &seen.tenants[i]; t.Spec.FabricName == seen.fabric.Name {
			d.neededBy = append(d.neededBy, fmt.Sprintf("TenantVPC %s/%s", t.Namespace, t.Name))
		}
	}
	for i := range seen.attachments {
		a := &seen.attachments[i]
		owner := scope.SourceOwner(seen.fabrics, a.Spec.Server.Source)
		if a.Status.FabricName == seen.fabric.Name || (owner != nil && owner.Name == seen.fabric.Name) {
			d.neededBy = append(d.neededBy, fmt.Sprintf("DPUAttachment %s/%s", a.Namespace, a.Name))
		}
	}
	for i := range seen.servers {
		if s := &seen.servers[i]; s.Status.Holder != nil && s.Status.Holder.Installation == "" {
			d.neededBy = append(d.neededBy, fmt.Sprintf("DPUServer %s, held for %s/%s", s.Name, s.Status.Holder.Namespace, s.Status.Holder.Name))
		}
	}
	switch {
	case len(d.neededBy) > 0:
	case len(seen.servers) > 0:
		d.forget = seen.servers
	default:
		d.done = true
	}
	return d
}

// enumerate lists a few names and counts the rest, so that messages stay readable.
func enumerate(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}
