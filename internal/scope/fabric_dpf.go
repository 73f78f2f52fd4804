// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// Targets of a FabricCall.
const (
	// TargetDPF is the DPF management cluster.
	TargetDPF = "dpf"
	// TargetDPUCluster is a DPU cluster.
	TargetDPUCluster = "dpucluster"
)

// FabricCall describes one finished request to DPF or a DPU cluster.
type FabricCall struct {
	// Fabric is the name of the DPUFabric.
	Fabric string
	// Target is TargetDPF or TargetDPUCluster.
	Target string
	// Method is the HTTP method.
	Method string
	// Code is the HTTP status, 0 if there was no answer.
	Code int
	// Duration from sending to the header of the answer.
	Duration time.Duration
}

// ErrReadOnly is the cause when a DPU cluster's client was about to send anything but a GET.
var ErrReadOnly = errors.New("DPU clusters are only read")

// rememberedClient is a client and the version of the Secret it was made from.
type rememberedClient struct {
	version string
	client  client.Client
}

// NewFabricScheme returns the kinds that are read from DPF and DPU clusters.
func NewFabricScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, coordinationv1.AddToScheme,
		provisioningv1alpha1.AddToScheme, svcv1alpha1.AddToScheme, vpcv1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the kinds of DPF: %w", err)
		}
	}
	return scheme, nil
}

// dpfClient returns the client of the DPF management cluster.
func (f *fabrics) dpfClient(ctx context.Context, object *infrav1.DPUFabric, memory *fabricMemory) (client.Client, error) {
	name := object.Spec.Backend.OVNVPC.KubeconfigSecretRef.Name
	secret, kubeconfig, err := f.secret(ctx, name, KubeconfigKey, "DPUFabric "+object.Name)
	if err != nil {
		return nil, err
	}
	memory.mu.Lock()
	defer memory.mu.Unlock()
	version := versionOf(secret)
	if memory.dpf.client != nil && memory.dpf.version == version {
		return memory.dpf.client, nil
	}
	c, err := f.newClient(kubeconfig, object.Name, TargetDPF)
	if err != nil {
		return nil, dpfSecretInvalid(secret, err)
	}
	memory.dpf = rememberedClient{version: version, client: c}
	return c, nil
}

func versionOf(secret *corev1.Secret) string {
	return string(secret.UID) + "/" + secret.ResourceVersion
}

func dpfSecretInvalid(secret *corev1.Secret, err error) error {
	return &UnusableError{
		Reason:  infrav1.SecretInvalidReason,
		Message: fmt.Sprintf("key %s of Secret %s/%s is not usable", KubeconfigKey, secret.Namespace, secret.Name), Err: err,
	}
}

// newClient makes a client from a kubeconfig, without any request yet.
func (f *fabrics) newClient(kubeconfig []byte, fabric, target string) (client.Client, error) {
	config, options, err := f.config(kubeconfig, fabric, target)
	if err != nil {
		return nil, err
	}
	config.Timeout = f.options.Timeout
	silence := &silence{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &silentTransport{next: next, silence: silence, clock: f.options.Clock}
	})
	c, err := client.New(config, options)
	if err != nil {
		return nil, errUnreadablePEM
	}
	return c, nil
}

// newWatchClient makes a client whose requests last as long as their contexts.
func (f *fabrics) newWatchClient(kubeconfig []byte, fabric, target string) (client.WithWatch, error) {
	config, options, err := f.config(kubeconfig, fabric, target)
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(config, options)
	if err != nil {
		return nil, errUnreadablePEM
	}
	return c, nil
}

var errUnreadablePEM = &KubeconfigError{Problem: "holds certificates or keys that cannot be read: write the content of PEM files, base64-encoded"}

func (f *fabrics) config(kubeconfig []byte, fabric, target string) (*rest.Config, client.Options, error) {
	config, err := RESTConfigFromKubeconfig(kubeconfig)
	if err != nil {
		return nil, client.Options{}, err
	}
	scheme, err := NewFabricScheme()
	if err != nil {
		return nil, client.Options{}, err
	}
	config.QPS, config.Burst = 100, 200
	config.UserAgent = "cluster-api-provider-maas-dpu/fabric"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &observedTransport{next: next, fabrics: f, fabric: fabric, target: target}
	})
	return config, client.Options{Scheme: scheme, Mapper: fabricMapper(scheme)}, nil
}

// fabricMapper knows the kinds by heart: asking an API server for them, which a client does at its first request, would hold every
// worker up for longer than any request may take while that server does not answer.
func fabricMapper(scheme *runtime.Scheme) meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(scheme.PrioritizedVersionsAllGroups())
	clusterScoped := map[schema.GroupKind]bool{
		corev1.SchemeGroupVersion.WithKind("Node").GroupKind():          true,
		vpcv1alpha1.GroupVersion.WithKind("IsolationClass").GroupKind(): true,
	}
	// Read, untyped, for what the served version of a kind can hold.
	mapper.Add(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, meta.RESTScopeRoot)
	for kind := range scheme.AllKnownTypes() {
		if clusterScoped[kind.GroupKind()] {
			mapper.Add(kind, meta.RESTScopeRoot)
		} else {
			mapper.Add(kind, meta.RESTScopeNamespace)
		}
	}
	return mapper
}

// observedTransport tells of each request, and keeps DPU clusters read-only whatever the credentials allow.
type observedTransport struct {
	next           http.RoundTripper
	fabrics        *fabrics
	fabric, target string
}

func (t *observedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if t.target == TargetDPUCluster && request.Method != http.MethodGet {
		return nil, ErrReadOnly
	}
	options := t.fabrics.options
	start := options.Clock.Now()
	response, err := t.next.RoundTrip(request)
	if options.Observe != nil {
		call := FabricCall{Fabric: t.fabric, Target: t.target, Method: request.Method, Duration: options.Clock.Since(start)}
		if response != nil {
			call.Code = response.StatusCode
		}
		options.Observe(call)
	}
	return response, err
}

// FabricError says in the API's reasons why DPF or a DPU cluster could not be asked. doing goes into the sentence, for example
// "list DPUVPCs". It is the answer "unknown"; nil stays nil.
func FabricError(fabric, doing string, err error) error {
	if err == nil {
		return nil
	}
	if unusable, ok := AsUnusable(err); ok {
		return unusable
	}
	unusable := &UnusableError{Reason: infrav1.FabricUnreachableReason, Err: err}
	switch {
	case apierrors.IsUnauthorized(err):
		unusable.Reason = infrav1.CredentialsRefusedReason
		unusable.Message = fmt.Sprintf("fabric %s refuses the credentials: renew the kubeconfig", fabric)
		// The body of a 401 is nobody's business.
		unusable.Err = nil
	case apierrors.IsForbidden(err):
		unusable.Reason = infrav1.CredentialsRefusedReason
		unusable.Message = fmt.Sprintf("fabric %s does not let its account %s: apply config/dpf there", fabric, doing)
	default:
		unusable.Message = fmt.Sprintf("fabric %s could not be asked to %s; nothing is changed until it answers", fabric, doing)
		unusable.Err = steadyCause(err)
	}
	return unusable
}

// steadyCause is the cause in words that are the same at each try: the network's errors name a port of ours that is another one
// each time, and a condition that changes wakes everybody who watches it.
func steadyCause(err error) error {
	var network *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", network.Op, network.Err)
	}
	return err
}
