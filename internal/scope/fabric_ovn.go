// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc/ovn"
)

// OVNCAKey of the Secret with the TLS material for OVN's databases; the others are corev1.TLSCertKey and corev1.TLSPrivateKeyKey.
const OVNCAKey = "ca.crt"

// OVNCall describes one finished question to a fabric's OVN databases.
type OVNCall struct {
	// Fabric is the name of the DPUFabric.
	Fabric string
	ovn.Call
}

// ovnVersion tells clients apart that are not made from the same.
type ovnVersion struct {
	southbound, northbound, secret string
}

// ovn returns the fabric's OVN databases, nil if it names none, and what asks whether they answer, which returns what failed by
// database, nil for what answers.
func (f *fabrics) ovn(object *infrav1.DPUFabric, memory *fabricMemory) (OVNDatabases, func(context.Context) map[string]error) {
	named := object.Spec.Backend.OVNVPC.OVN
	if named == nil {
		memory.setOVN(nil)
		return nil, nil
	}
	lazy := &lazyOVN{open: func(ctx context.Context) (*sharedOVN, error) { return f.openOVN(ctx, object, memory) }}
	return lazy, func(ctx context.Context) map[string]error {
		client, err := lazy.get(ctx)
		if err != nil {
			return map[string]error{ovn.Southbound: err}
		}
		return client.probe(ctx, named.Northbound != "")
	}
}

// openOVN returns the one client of a fabric, made anew where the endpoints or the Secret have changed.
func (f *fabrics) openOVN(ctx context.Context, object *infrav1.DPUFabric, memory *fabricMemory) (*sharedOVN, error) {
	named := object.Spec.Backend.OVNVPC.OVN
	config := ovn.Config{Southbound: named.Southbound, Northbound: named.Northbound, Timeout: f.options.OVNTimeout, Clock: f.clock}
	version := ovnVersion{southbound: named.Southbound, northbound: named.Northbound}
	if named.TLSSecretRef != nil {
		secret, certificate, err := f.secret(ctx, named.TLSSecretRef.Name, corev1.TLSCertKey, "OVN of DPUFabric "+object.Name)
		if err != nil {
			return nil, err
		}
		config.Certificate, config.Key, config.CA = certificate, secret.Data[corev1.TLSPrivateKeyKey], secret.Data[OVNCAKey]
		for _, key := range []string{corev1.TLSPrivateKeyKey, OVNCAKey} {
			if len(secret.Data[key]) == 0 {
				return nil, &UnusableError{
					Reason:  infrav1.SecretInvalidReason,
					Message: fmt.Sprintf("Secret %s/%s has no key %s: write it", secret.Namespace, secret.Name, key),
				}
			}
		}
		version.secret = versionOf(secret)
	}
	name := object.Name
	config.Observe = func(call ovn.Call) {
		if f.options.ObserveOVN != nil {
			f.options.ObserveOVN(OVNCall{Fabric: name, Call: call})
		}
	}

	memory.mu.Lock()
	defer memory.mu.Unlock()
	switch {
	case memory.closed:
		return nil, &UnusableError{Reason: infrav1.FabricNotFoundReason, Message: fmt.Sprintf("there is no DPUFabric %s any more", name)}
	case memory.ovn != nil && memory.ovn.version == version:
		return memory.ovn, nil
	}
	client, err := ovn.New(config)
	if err != nil {
		return nil, ovnUnusable(object, f.options.Namespace, err)
	}
	if memory.ovn != nil {
		memory.ovn.client.Close()
	}
	memory.ovn = newSharedOVN(client, f.clock, version, config.Timeout)
	return memory.ovn, nil
}

// ovnUnusable says where what is wrong was written.
func ovnUnusable(object *infrav1.DPUFabric, namespace string, err error) error {
	if ref := object.Spec.Backend.OVNVPC.OVN.TLSSecretRef; ref != nil {
		return &UnusableError{
			Reason:  infrav1.SecretInvalidReason,
			Message: fmt.Sprintf("Secret %s/%s, or an endpoint of OVN of DPUFabric %s, is not usable", namespace, ref.Name, object.Name), Err: err,
		}
	}
	return &UnusableError{
		Reason:  infrav1.OVNUnreachableReason,
		Message: fmt.Sprintf("an endpoint of OVN of DPUFabric %s is not usable", object.Name), Err: err,
	}
}

// setOVN replaces the fabric's client.
func (m *fabricMemory) setOVN(next *sharedOVN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ovn != nil {
		m.ovn.client.Close()
	}
	m.ovn = next
}

// lazyOVN opens the databases once, when they are needed first: it serves one pass.
type lazyOVN struct {
	open func(context.Context) (*sharedOVN, error)

	mu     sync.Mutex
	opened bool
	shared *sharedOVN
	err    error
}

func (l *lazyOVN) get(ctx context.Context) (*sharedOVN, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.opened {
		l.shared, l.err = l.open(ctx)
		l.opened = ctx.Err() == nil
	}
	return l.shared, l.err
}

// Reading implements OVNDatabases.
func (l *lazyOVN) Reading(ctx context.Context, notBefore time.Time) vpc.OVN {
	shared, err := l.get(ctx)
	if err != nil {
		return vpc.OVN{Err: err, Started: notBefore}
	}
	return shared.reading(ctx, notBefore)
}

// Raise implements OVNDatabases.
func (l *lazyOVN) Raise(ctx context.Context) (int64, error) {
	shared, err := l.get(ctx)
	if err != nil {
		return 0, err
	}
	return shared.raise(ctx)
}
