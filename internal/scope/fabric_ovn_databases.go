// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// OVNDatabases are a fabric's OVN databases.
type OVNDatabases interface {
	// Reading is what the southbound database said in a reading that started no earlier than notBefore. It is shared by all who
	// ask; why it could not be read is in it.
	Reading(ctx context.Context, notBefore time.Time) vpc.OVN

	// Raise increments NB_Global.nb_cfg and returns its value. One increment serves all who asked before it was sent: whatever the
	// southbound database showed to any of them is older than the value.
	Raise(ctx context.Context) (int64, error)
}
