// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

const (
	joinInterval = 200 * time.Millisecond
	// tokenPatience covers the moment until an API server has seen a new token.
	tokenPatience = 15 * time.Second

	bootstrapGroup = "system:bootstrappers"
)

// discover finds the cluster and checks what kubeadm checks: that the CA it is told there is a pinned one, and that the API
// server which that CA vouches for accepts the token.
func (r *Rack) discover(ctx context.Context, installed *node) error {
	discovery := installed.config.join.Discovery.BootstrapToken
	var ca []byte
	var last error
	err := wait.PollUntilContextTimeout(ctx, joinInterval, r.options.JoinTimeout, true, func(ctx context.Context) (bool, error) {
		ca, last = controlplane.Discover(ctx, installed.endpoint)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("kubeadm join: no API server answers at %s: %w", installed.endpoint, last)
	}
	hash, err := pki.PublicKeyHash(ca)
	if err != nil || !slices.Contains(discovery.CACertHashes, hash) {
		return fmt.Errorf("kubeadm join: the CA at %s has none of the pinned public key hashes", installed.endpoint)
	}
	if err := checkToken(ctx, installed.endpoint, ca, discovery.Token, min(tokenPatience, r.options.JoinTimeout)); err != nil {
		return err
	}
	if installed.cluster = r.cluster(installed.endpoint); installed.cluster == nil {
		return fmt.Errorf("kubeadm join: the lab knows no cluster at %s", installed.endpoint)
	}
	return nil
}

// checkToken lets the API server say who the bearer of the token is.
func checkToken(ctx context.Context, endpoint string, ca []byte, token string, patience time.Duration) error {
	clients, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + endpoint, BearerToken: token, Timeout: callTimeout, TLSClientConfig: rest.TLSClientConfig{CAData: ca},
	})
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, joinInterval, patience, true, func(ctx context.Context) (bool, error) {
		review, err := clients.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return false, nil // not yet, or never: the wait's end tells
		}
		return slices.Contains(review.Status.UserInfo.Groups, bootstrapGroup), nil
	})
	if err != nil {
		return fmt.Errorf("kubeadm join: the API server at %s does not accept the bootstrap token", endpoint)
	}
	return nil
}
