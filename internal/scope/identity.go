// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// IdentitySecretKey is the key of an identity's Secret that holds the MAAS API key.
	IdentitySecretKey = "apiKey"

	// credentialsMaxAge is for how long credentials are used before the Secret is read again.
	credentialsMaxAge = 5 * time.Second
	// probeTimeout bounds the question who we are, so that a hung MAAS does not hold those who wait for the answer.
	probeTimeout = 10 * time.Second
	// probePatience is for how long those who come meanwhile wait for that answer.
	probePatience = 5 * time.Second
	// probeBackoff is for how long a failed question is not asked again.
	probeBackoff = 5 * time.Second
	// secretTimeout bounds the reading of a Secret.
	secretTimeout = 10 * time.Second
)

// MAAS is what the machine wing asks of MAAS; *maas.Client implements it.
type MAAS interface {
	WhoAmI(ctx context.Context) (maas.Account, error)
	Warehouse
	Machine(ctx context.Context, systemID string) (maas.Machine, error)
	MachinesByID(ctx context.Context, systemIDs ...string) ([]maas.Machine, error)
	MachinesByToken(ctx context.Context, token string) ([]maas.Machine, error)
	MachinesByTokens(ctx context.Context, tokens ...string) ([]maas.Machine, error)
	MachinesOwnedBy(ctx context.Context, username string) ([]maas.Machine, error)
	Devices(ctx context.Context, systemID string) ([]maas.Device, error)
	Events(ctx context.Context, after int64, query maas.EventQuery) ([]maas.Event, error)
	ConfirmClaim(ctx context.Context, account, token, systemID string) (maas.Machine, maas.Ownership, error)
	Allocate(ctx context.Context, token string, constraints maas.Constraints, comment string) (maas.Machine, error)
	Annotate(ctx context.Context, systemID string, annotations map[string]string) (maas.Machine, error)
	Deploy(ctx context.Context, systemID string, deploy maas.DeployRequest) (maas.Machine, error)
	PowerOff(ctx context.Context, systemID, comment string) error
	Release(ctx context.Context, systemID string, release maas.ReleaseRequest) error
}

// Identities turns MaasClusterIdentities into clients. Errors are UnusableErrors where people can do something about them.
type Identities interface {
	// Get returns the named identity once MAAS has said whose key it is. It says nothing about who may use it: see
	// NamespaceAllowed, which stops new claims only.
	Get(ctx context.Context, name string) (*Identity, error)

	// FabricAccess returns the way to the TenantVPCs, DPUAttachments and DPUServers of an identity.
	FabricAccess(ctx context.Context, identity *infrav1.MaasClusterIdentity) (*FabricAccess, error)

	// Wakes are MaasMachines to be reconciled now, of which only namespace and name are set. It has one reader.
	Wakes() <-chan event.GenericEvent

	// Poller reads the machines that somebody waits for and fills Wakes, as part of a manager. Without it, whoever asks reads.
	Poller() manager.Runnable
}

// Identity is one MAAS account, ready to be used. It is valid for one reconcile: credentials rotate.
type Identity struct {
	// Object is the MaasClusterIdentity as read from the cache. Not to be changed.
	Object *infrav1.MaasClusterIdentity

	// MAAS is asked as the account.
	MAAS MAAS

	// Account is the MAAS user name that MAAS says the key belongs to.
	Account string

	// Readings are machines read for everybody who waits for one.
	Readings *Readings

	// Stock is what the account has and could be given.
	Stock *Stock

	// Allocations say who may ask for a server now.
	Allocations *Turns
}

// IdentityOptions say how identities are read.
type IdentityOptions struct {
	// Client reads identities from the cache; it is also the fabric client of identities without fabricAccess.
	Client client.Client

	// APIReader reads Secrets, and DPUAttachments where a cache may be behind.
	APIReader client.Reader

	// Namespace is the machine wing's own, where the Secrets are.
	Namespace string

	// PollInterval is how often machines in transition are read.
	PollInterval time.Duration

	// Observe is told of every call to MAAS. May be nil.
	Observe func(maas.Observation)

	// ObserveReading is told how many machines a shared reading asked for. May be nil.
	ObserveReading func(identity string, machines int)

	// ObserveFallback is told when a poll had to do without MAAS' event feed. May be nil.
	ObserveFallback func(identity string)

	// Forgotten is told of identities that no longer exist. May be nil.
	Forgotten func(identity string)

	// Clock defaults to the real one.
	Clock clock.WithTicker

	// NewMAAS makes the client; nil means maas.New. Tests put a fake here.
	NewMAAS func(maas.Config) (MAAS, error)
}

// NewIdentities returns Identities that keep one client for each identity, generation and version of its Secret.
func NewIdentities(options IdentityOptions) Identities {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.NewMAAS == nil {
		options.NewMAAS = func(config maas.Config) (MAAS, error) { return maas.New(config) }
	}
	return &identities{
		IdentityOptions: options,
		accounts:        map[types.UID]*account{},
		fabrics:         map[types.UID]*remoteFabric{},
		wakes:           newWakes(namedMachine),
	}
}

type identities struct {
	IdentityOptions

	mu       sync.Mutex
	accounts map[types.UID]*account
	fabrics  map[types.UID]*remoteFabric
	wakes    *wakes
}

// Wakes implements Identities.
func (i *identities) Wakes() <-chan event.GenericEvent { return i.wakes.out }

// Get implements Identities.
func (i *identities) Get(ctx context.Context, name string) (*Identity, error) {
	object := &infrav1.MaasClusterIdentity{}
	if err := i.Client.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		if apierrors.IsNotFound(err) {
			i.drop(name)
			return nil, &UnusableError{Reason: infrav1.IdentityNotFoundReason,
				Message: fmt.Sprintf("MaasClusterIdentity %s does not exist: create it or name another", name)}
		}
		return nil, fmt.Errorf("read MaasClusterIdentity %s: %w", name, err)
	}
	kept := i.keep(object)
	if err := kept.enter(ctx, i.Clock); err != nil {
		return nil, err
	}
	defer kept.leave()
	if err := i.connect(ctx, object, kept); err != nil {
		return nil, err
	}
	if err := i.probe(ctx, object, kept); err != nil {
		return nil, err
	}
	kept.allocations.resize(int(ptr.Deref(object.Spec.MaxParallelAllocates, 4)))
	return &Identity{
		Object: object, MAAS: kept.client, Account: kept.name, Readings: kept.readings, Stock: kept.stock, Allocations: kept.allocations,
	}, nil
}

// connect makes a client if there is none for this generation and version of the Secret.
func (i *identities) connect(ctx context.Context, object *infrav1.MaasClusterIdentity, kept *account) error {
	now := i.Clock.Now()
	if kept.client != nil && kept.generation == object.Generation && now.Sub(kept.secretRead) < credentialsMaxAge {
		return nil
	}
	secret, err := i.secret(ctx, object.Spec.SecretRef.Name)
	if err != nil {
		// Without its Secret an identity is not used, also not with what was read before.
		kept.forget()
		return err
	}
	kept.secretRead = now
	if kept.client != nil && kept.generation == object.Generation && kept.secretVersion == secret.ResourceVersion {
		return nil
	}
	kept.forget()
	made, err := i.NewMAAS(maas.Config{
		Endpoint: object.Spec.Endpoint, CABundle: object.Spec.CABundle,
		APIKey:          maas.NewAPIKey(string(secret.Data[IdentitySecretKey])),
		Timeout:         seconds(object.Spec.Deadlines.CallSeconds),
		AllocateTimeout: seconds(object.Spec.Deadlines.AllocateSeconds),
		Admit:           kept.pulse.admit, Observe: i.observe(kept), Clock: i.Clock,
	})
	if err != nil {
		return &UnusableError{Reason: infrav1.SecretInvalidReason, Err: err,
			Message: fmt.Sprintf("MaasClusterIdentity %s or its Secret %s cannot be used", object.Name, secret.Name)}
	}
	kept.client, kept.generation, kept.secretVersion = made, object.Generation, secret.ResourceVersion
	if closer, ok := made.(interface{ Close() }); ok {
		kept.close = closer.Close
	}
	kept.readings.serve(made)
	kept.stock.serve(made)
	return nil
}

func (i *identities) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	if err := i.APIReader.Get(ctx, client.ObjectKey{Namespace: i.Namespace, Name: name}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, &UnusableError{Reason: infrav1.SecretNotFoundReason,
				Message: fmt.Sprintf("Secret %s does not exist in the machine wing's namespace: create it there with the key %s", name, IdentitySecretKey)}
		}
		return nil, fmt.Errorf("read Secret %s of the machine wing's namespace: %w", name, err)
	}
	if len(secret.Data[IdentitySecretKey]) == 0 {
		return nil, &UnusableError{Reason: infrav1.SecretInvalidReason,
			Message: fmt.Sprintf("Secret %s has no key %s: write the MAAS API key there", name, IdentitySecretKey)}
	}
	return secret, nil
}

// observe tells of the calls of an account.
func (i *identities) observe(kept *account) func(maas.Observation) {
	return func(o maas.Observation) {
		kept.pulse.ended(o)
		if i.Observe != nil {
			i.Observe(o)
		}
	}
}

// probe asks MAAS once who the key belongs to, and again where MAAS has stopped to answer: until it does, those who need it are
// told so at once.
func (i *identities) probe(ctx context.Context, object *infrav1.MaasClusterIdentity, kept *account) error {
	if failed := kept.failed.Load(); failed != nil && i.Clock.Now().Sub(failed.at) < probeBackoff {
		return failed.err
	}
	if kept.name != "" && !kept.pulse.hangs() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	who, err := kept.client.WhoAmI(ctx)
	switch {
	case err != nil:
		err = UnusableMAAS(object.Name, err)
	case who.Superuser && !ptr.Deref(object.Spec.AllowAdmin, false):
		err = &UnusableError{Reason: infrav1.AccountTooPowerfulReason, Message: fmt.Sprintf(
			"the MAAS account %s of MaasClusterIdentity %s is an administrator, whom MAAS does not keep from other people's servers: use an ordinary account, or set allowAdmin",
			who.Username, object.Name)}
	case object.Status.Account != "" && who.Username != object.Status.Account:
		err = &UnusableError{Reason: infrav1.AccountChangedReason, Message: fmt.Sprintf(
			"the key of MaasClusterIdentity %s belongs to MAAS account %s, its servers to %s: put a key of %s into its Secret, or create another identity for %s",
			object.Name, who.Username, object.Status.Account, object.Status.Account, who.Username)}
	default:
		kept.name = who.Username
		kept.failed.Store(nil)
		kept.pulse.alive()
		return nil
	}
	kept.failed.Store(&failure{err: err, at: i.Clock.Now()})
	return err
}

// UnusableMAAS says why MAAS cannot be used, from one of the errors of package maas.
func UnusableMAAS(identity string, err error) *UnusableError {
	var skew *maas.ClockSkewError
	var config *maas.ConfigError
	unusable := &UnusableError{Err: err, Reason: infrav1.MaasUnreachableReason,
		Message: fmt.Sprintf("MAAS of MaasClusterIdentity %s does not answer as it should; nothing is changed until it does", identity)}
	switch {
	case errors.As(err, &skew):
		unusable.Reason = infrav1.ClockSkewReason
		unusable.Message = fmt.Sprintf("MAAS of MaasClusterIdentity %s refuses our clock", identity)
		unusable.Err = nil // The error's text counts the seconds, which would change at every try.
	case maas.IsUnauthorized(err), maas.IsForbidden(err):
		unusable.Reason = infrav1.CredentialsRefusedReason
		unusable.Message = fmt.Sprintf("MAAS of MaasClusterIdentity %s does not accept the API key: write a valid one into its Secret", identity)
	case errors.As(err, &config):
		unusable.Reason = infrav1.SecretInvalidReason
		unusable.Message = fmt.Sprintf("MaasClusterIdentity %s or its Secret cannot be used", identity)
	}
	return unusable
}

func seconds(value *int32) time.Duration {
	return time.Duration(cmp.Or(ptr.Deref(value, 0), 0)) * time.Second
}
