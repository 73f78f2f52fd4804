// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

// ProviderOptions say what of the provider under test is installed.
type ProviderOptions struct {
	// Kustomizations are directories, absolute or relative to the checkout, whose builds together are what an operator
	// would apply; default config/default and config/fabric. Everything in them is applied as it is, except that
	//   - each Deployment becomes a process of its own ServiceAccount with the container's arguments and plain environment,
	//   - Services, and certificate requests to cert-manager, are replaced by loopback ports and the lab's CA.
	Kustomizations []string
	// Binary is the manager; default <Repo>/bin/manager.
	Binary string
	// ExtraArgs are added to every process' arguments and win over those of the Deployment.
	ExtraArgs []string
	// Env is added to every process' environment.
	Env []string
}

// replaced are the kinds that need a network, a certificate manager or a monitoring stack the lab does not have.
var replaced = []string{"Deployment", "Service", "Certificate", "Issuer", "ServiceMonitor"}

// ownFlags are set by the lab: in a Deployment they describe the Pod's network and files.
var ownFlags = []string{
	"--kubeconfig", "--webhook-port", "--webhook-cert-dir", "--health-addr", "--diagnostics-address", "--insecure-diagnostics",
}

// wing is one Deployment of the provider, run as a process.
type wing struct {
	deployment *appsv1.Deployment
	// services select the wing's Pods, webhook configurations name them.
	services []serviceRef
	ports    managerPorts
	// process is what the process is called.
	process string
}

func (w *wing) name() string { return w.deployment.Name }

// InstallProvider installs the provider from its own manifests and starts its processes. It returns when they are ready and
// their webhooks are registered. Calling it again replaces what is applied; processes that still run are stopped first.
func (l *Lab) InstallProvider(ctx context.Context, options ProviderOptions) error {
	options = l.complete(options)
	manifests, err := l.loadProvider(options)
	if err != nil {
		return err
	}
	for _, w := range manifests.wings {
		if err := l.StopProcess(ctx, w.name()); err != nil {
			return err
		}
	}
	if err := manifests.choosePorts(l.webhooks); err != nil {
		return err
	}
	if err := applyObjects(ctx, l.Management(), manifests.objects); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, w := range manifests.wings {
		group.Go(func() error { return l.startWing(groupCtx, w, options) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return l.registerWebhooks(ctx, l.Management(), manifests.hooks, "", manifests.webhookPort)
}

// complete fills what the caller left out.
func (l *Lab) complete(options ProviderOptions) ProviderOptions {
	if len(options.Kustomizations) == 0 {
		options.Kustomizations = []string{filepath.Join("config", "default"), filepath.Join("config", "fabric")}
	}
	if options.Binary == "" {
		options.Binary = filepath.Join(l.options.Repo, "bin", "manager")
	}
	return options
}

// StopProcess ends the named process, as a crash test or a re-installation wants it. No such process is no error.
func (l *Lab) StopProcess(ctx context.Context, name string) error {
	for _, p := range l.Processes() {
		if p.Name() == name {
			return p.Stop(ctx)
		}
	}
	return nil
}

// providerManifests are the provider's objects, sorted by what the lab does with them.
type providerManifests struct {
	objects, crds, hooks []*unstructured.Unstructured
	wings                []*wing
}

func (l *Lab) loadProvider(options ProviderOptions) (*providerManifests, error) {
	manifests := &providerManifests{}
	var services []*corev1.Service
	for _, path := range options.Kustomizations {
		built, err := build(l.inRepo(path))
		if err != nil {
			return nil, err
		}
		for _, object := range built {
			if err := manifests.sort(object, &services); err != nil {
				return nil, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
			}
		}
	}
	for _, service := range services {
		for _, w := range manifests.wings {
			selected := labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(w.deployment.Spec.Template.Labels))
			if service.Namespace == w.deployment.Namespace && selected {
				w.services = append(w.services, serviceRef{namespace: service.Namespace, name: service.Name})
			}
		}
	}
	if len(manifests.wings) == 0 {
		return nil, fmt.Errorf("no Deployment in %s: nothing to run", strings.Join(options.Kustomizations, ", "))
	}
	return manifests, nil
}

func (m *providerManifests) sort(object *unstructured.Unstructured, services *[]*corev1.Service) error {
	switch kind := object.GetKind(); kind {
	case "Deployment":
		deployment := &appsv1.Deployment{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, deployment); err != nil {
			return err
		}
		if len(deployment.Spec.Template.Spec.Containers) != 1 {
			return fmt.Errorf("has %d containers, the lab runs one", len(deployment.Spec.Template.Spec.Containers))
		}
		m.wings = append(m.wings, &wing{deployment: deployment, process: deployment.Name})
	case "Service":
		service := &corev1.Service{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, service); err != nil {
			return err
		}
		*services = append(*services, service)
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
		m.hooks = append(m.hooks, object)
	default:
		if slices.Contains(replaced, kind) {
			return nil
		}
		m.objects = append(m.objects, object)
		if kind == kindCRD {
			m.crds = append(m.crds, object)
		}
	}
	return nil
}

// choosePorts gives each wing new ports, and CRDs that are converted by a webhook the one to call.
func (m *providerManifests) choosePorts(serving *webhookServing) error {
	for _, w := range m.wings {
		var err error
		if w.ports, err = freeManagerPorts(); err != nil {
			return err
		}
	}
	for _, crd := range m.crds {
		service, found, err := unstructured.NestedStringMap(crd.Object, "spec", "conversion", "webhook", "clientConfig", "service")
		if err != nil || !found {
			continue // the path is absent or of another type where no conversion is asked for
		}
		port, err := m.webhookPort(serviceRef{namespace: service["namespace"], name: service["name"]})
		if err != nil {
			return fmt.Errorf("CRD %s: %w", crd.GetName(), err)
		}
		if err := serving.convertBy(crd, port); err != nil {
			return err
		}
	}
	return nil
}

// webhookPort finds the wing behind a Service. A configuration that names an unknown one would fail in a real cluster too.
func (m *providerManifests) webhookPort(service serviceRef) (int32, error) {
	for _, w := range m.wings {
		if slices.Contains(w.services, service) {
			return w.ports.webhook, nil
		}
	}
	return 0, fmt.Errorf("the Service %s/%s selects no Deployment of the provider", service.namespace, service.name)
}

// startWing runs a Deployment's container as a process with the rights of its ServiceAccount.
func (l *Lab) startWing(ctx context.Context, w *wing, options ProviderOptions) error {
	pod := w.deployment.Spec.Template.Spec
	kubeconfig, err := l.ServiceAccountKubeconfig(ctx, l.Management(), w.deployment.Namespace, pod.ServiceAccountName)
	if err != nil {
		return err
	}
	container := pod.Containers[0]
	for attempt := 1; ; attempt++ {
		err = l.startManager(ctx, manager{
			name: w.process, binary: options.Binary, kubeconfig: kubeconfig, tier: controlplane.TierProvider,
			args:  append(shippedArgs(container.Args), options.ExtraArgs...),
			env:   append(shippedEnv(container.Env, w.deployment), options.Env...),
			ports: w.ports,
		})
		if err == nil {
			l.remember(w.process, w.ports)
			return nil
		}
		if !errors.Is(err, proc.ErrAddressInUse) || attempt == managerAttempts {
			return err
		}
		if w.ports, err = freeManagerPorts(); err != nil {
			return err
		}
	}
}

// remember keeps where a process listens.
func (l *Lab) remember(process string, ports managerPorts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wings[process] = ports
}

func (l *Lab) portsOf(process string) (ports managerPorts, started bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ports, started = l.wings[process]
	return ports, started
}

// MetricsURL returns where a process of the provider, named as its Deployment, serves its metrics; empty before it was
// started.
func (l *Lab) MetricsURL(process string) string {
	ports, started := l.portsOf(process)
	if !started {
		return ""
	}
	return fmt.Sprintf("http://127.0.0.1:%d/metrics", ports.diagnostics)
}

// shippedArgs drops what the lab sets itself.
func shippedArgs(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		flag, _, _ := strings.Cut(arg, "=")
		return slices.Contains(ownFlags, flag)
	})
}

// shippedEnv keeps plain values and the one field reference that makes sense without a Pod.
func shippedEnv(variables []corev1.EnvVar, deployment *appsv1.Deployment) []string {
	var env []string
	for _, variable := range variables {
		value := variable.Value
		if from := variable.ValueFrom; from != nil {
			if from.FieldRef == nil || from.FieldRef.FieldPath != "metadata.namespace" {
				continue
			}
			value = deployment.Namespace
		}
		env = append(env, variable.Name+"="+value)
	}
	return env
}
