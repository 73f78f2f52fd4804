// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"errors"
)

// startStandIn starts the level StandIn.
func startStandIn(context.Context, Options) (plane, error) {
	return nil, errors.New("not built yet")
}
