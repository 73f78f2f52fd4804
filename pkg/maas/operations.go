// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/canonical/gomaasclient/entity"
)

var annotationKeyPattern = regexp.MustCompile(`^[\w.-]{1,255}$`)

// Annotate merges workload annotations into those of a machine that the account owns; an
// empty value removes a key. MAAS deletes all of them when a release ends. It returns the machine as MAAS answered, zero where
// the answer could not be read, which is still success: MAAS accepted the call.
func (c *Client) Annotate(ctx context.Context, systemID string, annotations map[string]string) (Machine, error) {
	const operation = "annotate"
	if err := checkSystemID(operation, systemID); err != nil {
		return Machine{}, err
	}
	call := machineCall(operation, systemID)
	for key := range annotations {
		// MAAS answers 500 to an illegal key, and takes "op" for the operation.
		if !annotationKeyPattern.MatchString(key) || key == "op" {
			return Machine{}, &ArgumentError{Call: call, Problem: fmt.Sprintf("annotation key %q: use up to 255 letters, digits, dots, dashes and underscores", key)}
		}
	}
	if len(annotations) == 0 {
		return Machine{}, nil
	}
	form := url.Values{}
	for key, value := range annotations {
		form.Set(key, value)
	}
	var machine Machine
	err := c.do(ctx, request{Call: call, mutating: true, answerless: true}, func(w wire) error {
		body, err := w.post("machines/"+systemID+"/", "set_workload_annotations", form)
		if err != nil {
			return err
		}
		machine, err = decodeMachine(body)
		return err
	})
	if err != nil || machine.SystemID != systemID {
		return Machine{}, err
	}
	return machine, nil
}

// DeployRequest says what to install on an allocated machine.
type DeployRequest struct {
	// Series in os/series form, e.g. "ubuntu/noble" or "custom/image"; empty means MAAS'
	// default.
	Series string
	// Kernel such as "ga-24.04"; empty means MAAS' default.
	Kernel string
	// InMemory runs the image from memory; it is installed anew at every power-on.
	InMemory bool
	// UserData for cloud-init, as it is. It never appears in an error.
	UserData []byte
	// Token of the claim. MAAS takes it only if the machine is Ready again by then, which
	// the deployment acquires: it is found under the claim at least.
	Token   string
	Comment string
}

// Deploy starts the installation. The machine returned is as of before MAAS acted:
// re-read it. *StateConflictError means that the machine is not (or no longer) in a
// state to deploy from, possibly because an earlier call was accepted.
func (c *Client) Deploy(ctx context.Context, systemID string, deploy DeployRequest) (Machine, error) {
	const operation = "deploy"
	if err := checkSystemID(operation, systemID); err != nil {
		return Machine{}, err
	}
	form := url.Values{}
	setNonEmpty(form, "distro_series", deploy.Series)
	setNonEmpty(form, "hwe_kernel", deploy.Kernel)
	setNonEmpty(form, "agent_name", deploy.Token)
	setNonEmpty(form, "comment", deploy.Comment)
	if deploy.InMemory {
		form.Set("ephemeral_deploy", "true")
	}
	secrets := userDataSecrets(deploy.UserData)
	if deploy.Token != "" {
		secrets = append(secrets, deploy.Token)
	}
	if len(deploy.UserData) > 0 {
		encoded := base64.StdEncoding.EncodeToString(deploy.UserData)
		form.Set("user_data", encoded)
		secrets = append(secrets, encoded)
	}
	var machine Machine
	r := request{Call: machineCall(operation, systemID), mutating: true, secrets: secrets, private: true}
	err := c.do(ctx, r, func(w wire) error {
		body, err := w.post("machines/"+systemID+"/", "deploy", form)
		if err != nil {
			return err
		}
		machine, err = decodeMachine(body)
		return err
	})
	return machine, err
}

// userDataSecrets are the lines of user data, longest first, so that no text of MAAS
// that quotes them reaches an error.
func userDataSecrets(userData []byte) []string {
	var lines []string
	for line := range strings.Lines(string(userData)) {
		lines = append(lines, fold(line))
	}
	slices.SortFunc(lines, func(a, b string) int { return len(b) - len(a) })
	return lines
}

// PowerOff switches a machine off at once. It ends when MAAS has handed the order to the
// BMC: read the power state afterwards. *PowerNotSentError means that MAAS sent nothing.
func (c *Client) PowerOff(ctx context.Context, systemID, comment string) error {
	const operation = "power off"
	if err := checkSystemID(operation, systemID); err != nil {
		return err
	}
	form := url.Values{"stop_mode": {"hard"}}
	setNonEmpty(form, "comment", comment)
	call := machineCall(operation, systemID)
	notSent := false
	err := c.do(ctx, request{Call: call, mutating: true, answerless: true}, func(w wire) error {
		body, err := w.post("machines/"+systemID+"/", "power_off", form)
		notSent = err == nil && null(body)
		return err
	})
	if err == nil && notSent {
		return &PowerNotSentError{Call: call}
	}
	return err
}

// PowerOn switches a deployed machine on. On an allocated one MAAS would take it for the
// start of a deployment, so that the status is read first; the user data that MAAS
// stored is lost with this call.
func (c *Client) PowerOn(ctx context.Context, systemID, comment string) error {
	const operation = "power on"
	machine, err := c.Machine(ctx, systemID)
	if err != nil {
		return err
	}
	call := machineCall(operation, systemID)
	if machine.Status != StatusDeployed {
		return &StateConflictError{Call: call, Message: "the machine is " + machine.Status.String() + ", not Deployed"}
	}
	return c.do(ctx, request{Call: call, mutating: true, answerless: true}, func(w wire) error {
		_, err := w.maas.Machine.PowerOn(systemID, &entity.MachinePowerOnParams{Comment: comment})
		return err
	})
}

// QueryPower asks the BMC, which takes up to a minute and a thread of MAAS: never in a
// loop. Machine.PowerState is free and at most about five minutes old.
func (c *Client) QueryPower(ctx context.Context, systemID string) (PowerState, error) {
	const operation = "query power"
	if err := checkSystemID(operation, systemID); err != nil {
		return PowerUnknown, err
	}
	state := PowerUnknown
	r := request{Call: machineCall(operation, systemID), timeout: c.allocateTimeout}
	err := c.do(ctx, r, func(w wire) error {
		answer, err := w.maas.Machine.GetPowerState(systemID)
		if err != nil {
			return err
		}
		switch got := PowerState(answer.State); got {
		case PowerOn, PowerOff, PowerError:
			state = got
		}
		return nil
	})
	return state, err
}

// Abort ends a running deployment (the machine is Allocated again, powered off) or an
// erasure.
func (c *Client) Abort(ctx context.Context, systemID, comment string) error {
	const operation = "abort"
	if err := checkSystemID(operation, systemID); err != nil {
		return err
	}
	return c.do(ctx, request{Call: machineCall(operation, systemID), mutating: true, answerless: true}, func(w wire) error {
		_, err := w.maas.Machine.Abort(systemID, comment)
		return err
	})
}

// MarkBroken releases a machine WITHOUT erasing it, forgets its claim token and takes it
// out of use until an administrator marks it fixed.
func (c *Client) MarkBroken(ctx context.Context, systemID, comment string) error {
	const operation = "mark broken"
	if err := checkSystemID(operation, systemID); err != nil {
		return err
	}
	return c.do(ctx, request{Call: machineCall(operation, systemID), mutating: true, answerless: true}, func(w wire) error {
		_, err := w.maas.Machine.MarkBroken(systemID, comment)
		return err
	})
}

// Erase says how disks are erased on release.
type Erase string

// The ways to erase. MAAS may be configured to erase on every release, also for None.
const (
	// EraseNone asks for no erasure.
	EraseNone Erase = "None"
	// EraseQuick wipes the beginning and end of each disk.
	EraseQuick Erase = "Quick"
	// EraseSecure uses the disk's own secure erase, else overwrites.
	EraseSecure Erase = "Secure"
	// EraseFull overwrites each disk; this can take hours.
	EraseFull Erase = "Full"
)

// ReleaseRequest says how to release.
type ReleaseRequest struct {
	// Erase must be given.
	Erase Erase
	// Scripts are names of release scripts (MAAS 3.5 and later).
	Scripts []string
	Comment string
}

// Release gives a machine back. MAAS answers success for a machine that is Ready or
// Releasing, whoever released it: success proves only that a release is or was under way.
func (c *Client) Release(ctx context.Context, systemID string, release ReleaseRequest) error {
	const operation = "release"
	if err := checkSystemID(operation, systemID); err != nil {
		return err
	}
	call := machineCall(operation, systemID)
	// MAAS splits the scripts at commas and drops all but the last of a repeated parameter.
	params := &entity.MachineReleaseParams{Comment: release.Comment, Scripts: strings.Join(release.Scripts, ",")}
	switch release.Erase {
	case EraseNone:
	case EraseQuick:
		params.Erase, params.QuickErase = true, true
	case EraseSecure:
		params.Erase, params.SecureErase = true, true
	case EraseFull:
		params.Erase = true
	default:
		return &ArgumentError{Call: call, Problem: "erase is none of None, Quick, Secure, Full"}
	}
	return c.do(ctx, request{Call: call, mutating: true, answerless: true}, func(w wire) error {
		_, err := w.maas.Machine.Release(systemID, params)
		return err
	})
}

func setNonEmpty(form url.Values, key, value string) {
	if value != "" {
		form.Set(key, value)
	}
}
