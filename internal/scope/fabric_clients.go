// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Keys of the Secrets a DPUFabric names.
const (
	// KubeconfigKey of the Secret that reaches the DPF management cluster.
	KubeconfigKey = "kubeconfig"
	// APIKeyKey of the Secret with a claim source's MAAS API key.
	APIKeyKey = "apiKey"
)

const (
	// DefaultFabricTimeout bounds one request to DPF or a DPU cluster.
	DefaultFabricTimeout = 10 * time.Second
	// DefaultFabricPoll is how often the event feed of a claim source is asked.
	DefaultFabricPoll = 5 * time.Second
	// DefaultFabricAudit is how often all servers of a claim source's account are listed.
	DefaultFabricAudit = 10 * time.Minute
	// failureMemory is how long a failure to open a client is repeated without asking again, so that a dead MAAS does not
	// occupy a worker for every object that needs it.
	failureMemory = 5 * time.Second
)

// FabricsOptions are what Fabrics are made from.
type FabricsOptions struct {
	// Client reads DPUFabrics, from a cache.
	Client client.Reader
	// APIReader reads Secrets, uncached and only in Namespace.
	APIReader client.Reader
	// Namespace is the fabric wing's, where the Secrets are that DPUFabrics name.
	Namespace string
	// Installation tells this management cluster from others that share a DPF control plane.
	Installation string
	// Timeout of one request to DPF or a DPU cluster; zero means DefaultFabricTimeout.
	Timeout time.Duration
	// PollInterval is how often a claim source's event feed is asked; zero means DefaultFabricPoll.
	PollInterval time.Duration
	// AuditInterval is how often all servers of a claim source's account are listed; zero means DefaultFabricAudit.
	AuditInterval time.Duration
	// Clock measures time; nil means the real one. Timers are real unless it is a clock.WithTicker.
	Clock clock.PassiveClock
	// Observe, if set, is told of every request to DPF and DPU clusters after it ended. It must not block.
	Observe func(FabricCall)
	// ObserveMaas, if set, is told of every call to a claim source's MAAS after it ended. It must not block.
	ObserveMaas func(maas.Observation)
	// ObservePosture, if set, is told of every reading of a BMC after it ended. It must not block.
	ObservePosture func(PostureCall)
	// PostureRetry is when a BMC is asked again that did not answer well; zero means the default of posture.Readings.
	PostureRetry time.Duration
	// OVNTimeout bounds one question to OVN's databases; zero means ovn.DefaultTimeout.
	OVNTimeout time.Duration
	// ObserveOVN, if set, is told of every question to OVN's databases after it ended. It must not block.
	ObserveOVN func(OVNCall)
}

// NewFabrics returns Fabrics that keep a client as long as the Secret it was made from has the same resourceVersion.
func NewFabrics(options FabricsOptions) Fabrics {
	options.Timeout = cmp.Or(options.Timeout, DefaultFabricTimeout)
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	options.PollInterval = cmp.Or(options.PollInterval, DefaultFabricPoll)
	options.AuditInterval = cmp.Or(options.AuditInterval, DefaultFabricAudit)
	return &fabrics{
		options: options, clock: withTimers(options.Clock), memory: map[string]*fabricMemory{}, wakes: newWakes(namedAttachment),
	}
}

// timers are real, by a clock that has none.
type timers struct {
	clock.RealClock
	passive clock.PassiveClock
}

func (t timers) Now() time.Time                     { return t.passive.Now() }
func (t timers) Since(then time.Time) time.Duration { return t.passive.Since(then) }

func withTimers(passive clock.PassiveClock) clock.WithTicker {
	if full, ok := passive.(clock.WithTicker); ok {
		return full
	}
	return timers{passive: passive}
}

type fabrics struct {
	options FabricsOptions
	clock   clock.WithTicker
	wakes   *wakes
	// polled says that a Poller follows the claims.
	polled atomic.Bool

	mu     sync.Mutex
	memory map[string]*fabricMemory
}

// fabricMemory holds the clients of one DPUFabric.
type fabricMemory struct {
	uid types.UID

	mu          sync.Mutex
	dpf         rememberedClient
	dpuClusters map[types.NamespacedName]rememberedClient
	// watches are the clients that watch, of the DPF management cluster under the zero key.
	watches   map[types.NamespacedName]WatchClient
	verifiers map[string]*rememberedVerifier
	// bmcs are the readings of the DPUs' BMCs; nil until somebody asks.
	bmcs *bmcReadings
	// ovn asks OVN's databases; nil until somebody does.
	ovn *sharedOVN
	// closed says that the fabric is gone.
	closed bool
}

func (f *fabrics) Get(ctx context.Context, name string) (*Fabric, error) {
	object := &infrav1.DPUFabric{}
	if err := f.options.Client.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("read DPUFabric %s: %w", name, err)
		}
		f.forget(name)
		return nil, &UnusableError{Reason: infrav1.FabricNotFoundReason, Message: fmt.Sprintf("there is no DPUFabric %s", name)}
	}
	return f.open(ctx, object)
}

func (f *fabrics) ForSource(ctx context.Context, source string) (*Fabric, error) {
	list := &infrav1.DPUFabricList{}
	if err := f.options.Client.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list DPUFabrics: %w", err)
	}
	object := SourceOwner(list.Items, source)
	if object == nil {
		return nil, &UnusableError{Reason: infrav1.SourceUnknownReason, Message: fmt.Sprintf("no DPUFabric has a claim source %s", source)}
	}
	return f.open(ctx, object)
}

// SourceOwner returns the fabric to which a claim source's name belongs: the oldest that has it, of two equally old ones the
// first by name. It returns nil where none has it.
func SourceOwner(all []infrav1.DPUFabric, source string) *infrav1.DPUFabric {
	var owner *infrav1.DPUFabric
	for i := range all {
		fabric := &all[i]
		if claimSource(fabric, source) == nil {
			continue
		}
		if owner == nil || fabric.CreationTimestamp.Before(&owner.CreationTimestamp) ||
			(fabric.CreationTimestamp.Equal(&owner.CreationTimestamp) && fabric.Name < owner.Name) {
			owner = fabric
		}
	}
	return owner
}

func claimSource(fabric *infrav1.DPUFabric, name string) *infrav1.ClaimSource {
	for i := range fabric.Spec.ClaimSources {
		if fabric.Spec.ClaimSources[i].Name == name {
			return &fabric.Spec.ClaimSources[i]
		}
	}
	return nil
}

func (f *fabrics) open(ctx context.Context, object *infrav1.DPUFabric) (*Fabric, error) {
	if object.Spec.Backend.OVNVPC == nil {
		return nil, &UnusableError{
			Reason:  infrav1.FabricNotReadyReason,
			Message: fmt.Sprintf("DPUFabric %s has no backend.ovnVPC, the only backend there is", object.Name),
		}
	}
	memory := f.remember(object)
	dpf, err := f.dpfClient(ctx, object, memory)
	if err != nil {
		return nil, err
	}
	fabric := &Fabric{Object: object, DPF: dpf}
	fabric.DPUCluster = func(ctx context.Context, dpuCluster types.NamespacedName) (client.Reader, error) {
		return f.dpuClusterReader(ctx, fabric, memory, dpuCluster)
	}
	fabric.Watch = func(ctx context.Context) (WatchClient, error) {
		return f.dpfWatch(ctx, object, memory)
	}
	fabric.WatchDPUCluster = func(ctx context.Context, dpuCluster types.NamespacedName) (WatchClient, error) {
		return f.dpuClusterWatch(ctx, fabric, memory, dpuCluster)
	}
	fabric.Verifier = func(ctx context.Context, source string) (Verifier, error) {
		return f.verifier(ctx, object, memory, source)
	}
	fabric.Posture = f.postures(object, memory)
	fabric.OVN, fabric.ProbeOVN = f.ovn(object, memory)
	return fabric, nil
}

// remember returns the memory of a fabric; one that was deleted and made again starts anew.
func (f *fabrics) remember(object *infrav1.DPUFabric) *fabricMemory {
	f.mu.Lock()
	defer f.mu.Unlock()
	memory, ok := f.memory[object.Name]
	if !ok || memory.uid != object.UID {
		memory.close()
		memory = &fabricMemory{
			uid:         object.UID,
			dpuClusters: map[types.NamespacedName]rememberedClient{},
			watches:     map[types.NamespacedName]WatchClient{},
			verifiers:   map[string]*rememberedVerifier{},
		}
		f.memory[object.Name] = memory
	}
	return memory
}

func (f *fabrics) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.memory[name].close()
	delete(f.memory, name)
}

func (m *fabricMemory) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.verifiers {
		v.close()
	}
	if m.bmcs != nil {
		m.bmcs.Close()
	}
	m.closed = true
	if m.ovn != nil {
		m.ovn.client.Close()
	}
}

// secret reads a Secret of the fabric wing's namespace and one key of it.
func (f *fabrics) secret(ctx context.Context, name, key, whose string) (*corev1.Secret, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	secret := &corev1.Secret{}
	err := f.options.APIReader.Get(ctx, client.ObjectKey{Namespace: f.options.Namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil, &UnusableError{
			Reason:  infrav1.SecretNotFoundReason,
			Message: fmt.Sprintf("%s needs Secret %s/%s, which does not exist: create it with key %s", whose, f.options.Namespace, name, key),
		}
	case err != nil:
		return nil, nil, fmt.Errorf("read Secret %s/%s: %w", f.options.Namespace, name, err)
	}
	value := secret.Data[key]
	if len(value) == 0 {
		return nil, nil, &UnusableError{
			Reason:  infrav1.SecretInvalidReason,
			Message: fmt.Sprintf("Secret %s/%s has no key %s: write it", f.options.Namespace, name, key),
		}
	}
	return secret, value, nil
}
