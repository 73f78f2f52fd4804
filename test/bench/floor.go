// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	maasclient "github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	"golang.org/x/sync/errgroup"
)

// parallel is how many allocates an identity has under way at once by default, and the floor's loops with it.
const parallel = 4

// floor is the straight line: as many loops as the provider may have allocates under way take one machine after the other
// through the three calls nobody can do without. It returns how long after the start each deployment was accepted.
func floor(ctx context.Context, s *site, machines int) ([]time.Duration, error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	if err := s.serve(running, group); err != nil {
		return nil, err
	}
	maas, err := maasclient.GetClient(s.endpoint(), accountKey, "2.0")
	if err != nil {
		return nil, err
	}
	start := time.Now()
	loops, loopsCtx := errgroup.WithContext(running)
	loops.SetLimit(parallel)
	for i := range machines {
		loops.Go(func() error {
			if err := loopsCtx.Err(); err != nil {
				return err
			}
			return straightLine(maas, fmt.Sprintf("floor-%d", i))
		})
	}
	err = loops.Wait()
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, accepted := range s.effected("deploy") {
		took = append(took, accepted.Sub(start))
	}
	if len(took) != machines {
		return nil, fmt.Errorf("the floor deployed %d machines of %d", len(took), machines)
	}
	return took, nil
}

func straightLine(maas *maasclient.Client, token string) error {
	machine, err := maas.Machines.Allocate(&entity.MachineAllocateParams{AgentName: token})
	if err != nil {
		return err
	}
	if _, err := maas.Machine.SetWorkloadAnnotations(machine.SystemID, map[string]string{"claim": token}); err != nil {
		return err
	}
	_, err = maas.Machine.Deploy(machine.SystemID, &entity.MachineDeployParams{
		DistroSeries: "ubuntu/noble", UserData: base64.StdEncoding.EncodeToString([]byte(userData)),
	})
	return err
}
