// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	managerAttempts = 3
	probeTimeout    = 2 * time.Second
	managerMemory   = "GOGC=50"
)

// capiProvider is one of Cluster API's managers as clusterctl would install it.
type capiProvider struct {
	binary string
	// label is the value of cluster.x-k8s.io/provider.
	label string
	// contracts says whether its CRDs carry the labels by which other providers find the version for a contract; core's
	// own CRDs do not need them.
	contracts bool
	args      []string
}

var capiProviders = []capiProvider{
	{binary: "capi-core", label: "cluster-api", args: []string{"--feature-gates=ClusterTopology=true"}},
	{binary: "capi-kubeadm-bootstrap", label: "bootstrap-kubeadm", contracts: true},
	{binary: "capi-kubeadm-control-plane", label: "control-plane-kubeadm", contracts: true, args: []string{"--feature-gates=ClusterTopology=true"}},
}

// capiInstallation is a provider with its manifests and the ports of one attempt to start it.
type capiInstallation struct {
	capiProvider
	crds, hooks []*unstructured.Unstructured
	ports       managerPorts
}

// startCAPI installs all CRDs, for each manager watches some of another's, then starts the managers beside each other and
// registers their webhooks.
func (l *Lab) startCAPI(ctx context.Context, c *cluster) error {
	installations := make([]*capiInstallation, 0, len(capiProviders))
	for _, provider := range capiProviders {
		installation, err := l.loadCAPIProvider(provider)
		if err != nil {
			return err
		}
		if err := l.installCRDs(ctx, c, installation); err != nil {
			return err
		}
		installations = append(installations, installation)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, installation := range installations {
		group.Go(func() error {
			if err := l.startCAPIProvider(ctx, c, installation); err != nil {
				return fmt.Errorf("%s: %w", installation.binary, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// loadCAPIProvider reads what the build has put beside the binaries.
func (l *Lab) loadCAPIProvider(provider capiProvider) (*capiInstallation, error) {
	config := filepath.Join(l.options.Bin, "config", provider.binary)
	installation := &capiInstallation{capiProvider: provider}
	var err error
	if installation.crds, err = readObjects(filepath.Join(config, "crd")); err != nil {
		return nil, err
	}
	if installation.hooks, err = readObjects(filepath.Join(config, "webhook")); err != nil {
		return nil, err
	}
	if len(installation.crds) == 0 || len(installation.hooks) == 0 {
		return nil, fmt.Errorf("no manifests in %s: run hack/build-controlplane.sh", config)
	}
	return installation, nil
}

// installCRDs chooses new ports and applies the CRDs, which name the one for conversion.
func (l *Lab) installCRDs(ctx context.Context, c *cluster, installation *capiInstallation) error {
	var err error
	if installation.ports, err = freeManagerPorts(); err != nil {
		return err
	}
	for _, crd := range installation.crds {
		labels := maps.Clone(crd.GetLabels())
		if labels == nil {
			labels = map[string]string{}
		}
		labels["cluster.x-k8s.io/provider"] = installation.label
		labels["clusterctl.cluster.x-k8s.io"] = ""
		if installation.contracts {
			labels["cluster.x-k8s.io/v1beta1"] = "v1beta1"
			labels["cluster.x-k8s.io/v1beta2"] = "v1beta2"
		}
		crd.SetLabels(labels)
		if err := l.webhooks.convertBy(crd, installation.ports.webhook); err != nil {
			return err
		}
	}
	return applyObjects(ctx, c.server.Admin(), installation.crds)
}

func (l *Lab) startCAPIProvider(ctx context.Context, c *cluster, installation *capiInstallation) error {
	for attempt := 1; ; attempt++ {
		err := l.startManager(ctx, manager{
			name: installation.binary, binary: l.binary(installation.binary), kubeconfig: c.kubeconfig, args: installation.args,
			tier: controlplane.TierController, ports: installation.ports,
		})
		if err == nil {
			break
		}
		if !errors.Is(err, proc.ErrAddressInUse) || attempt == managerAttempts {
			return err
		}
		if err := l.installCRDs(ctx, c, installation); err != nil {
			return err
		}
	}
	return l.registerWebhooks(ctx, c.server.Admin(), installation.hooks, installation.binary+"-",
		func(serviceRef) (int32, error) { return installation.ports.webhook, nil })
}

// registerWebhooks applies copies of the configurations that call back on loopback, with prefix before their names: the
// manifests of all of Cluster API's providers use the same two.
func (l *Lab) registerWebhooks(ctx context.Context, cluster *rest.Config, hooks []*unstructured.Unstructured, prefix string, portOf func(serviceRef) (int32, error)) error {
	redirected := make([]*unstructured.Unstructured, 0, len(hooks))
	for _, hook := range hooks {
		hook = hook.DeepCopy()
		hook.SetName(prefix + hook.GetName())
		if err := l.webhooks.redirect(hook, portOf); err != nil {
			return err
		}
		redirected = append(redirected, hook)
	}
	return applyObjects(ctx, cluster, redirected)
}

// manager is a controller-runtime manager with Cluster API's usual flags.
type manager struct {
	name, binary, kubeconfig string
	args, env                []string
	tier                     int
	ports                    managerPorts
}

// managerPorts are where a manager listens.
type managerPorts struct {
	webhook, health, diagnostics int32
}

func freeManagerPorts() (managerPorts, error) {
	ports, err := proc.FreePorts(3)
	if err != nil {
		return managerPorts{}, err
	}
	return managerPorts{webhook: ports[0], health: ports[1], diagnostics: ports[2]}, nil
}

// startManager returns when the manager reports ready, which includes its webhook server.
func (l *Lab) startManager(ctx context.Context, m manager) error {
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	_, err := l.supervisor.Start(ctx, proc.Spec{
		Name: m.name, Path: m.binary, Tier: m.tier, Env: append([]string{managerMemory}, m.env...),
		Args: append([]string{
			"--kubeconfig=" + m.kubeconfig,
			fmt.Sprintf("--webhook-port=%d", m.ports.webhook), "--webhook-cert-dir=" + l.webhooks.dir,
			fmt.Sprintf("--health-addr=127.0.0.1:%d", m.ports.health),
			fmt.Sprintf("--diagnostics-address=127.0.0.1:%d", m.ports.diagnostics), "--insecure-diagnostics",
		}, m.args...),
		Ready: func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", m.ports.health), nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }()
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("readyz answered %s", response.Status)
			}
			return nil
		},
	})
	return err
}
