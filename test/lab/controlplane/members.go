// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

// maxReply is more than etcd says of a few members.
const maxReply = 1 << 20

// EtcdMember is what etcd says of one of its members.
type EtcdMember struct {
	ID uint64
	// Name is empty until the member has started.
	Name string
	// PeerURLs are known from the start, ClientURLs once it has started.
	PeerURLs, ClientURLs []string
	// Learner is true while it has no vote.
	Learner bool
}

// label names the member to one that joins; etcd compares only peer URLs.
func (m EtcdMember) label() string {
	if m.Name != "" {
		return m.Name
	}
	return "unstarted-" + strconv.FormatUint(m.ID, 16)
}

// Membership changes who is a member of an etcd cluster, through the members it was made for.
type Membership struct {
	endpoints []string
	client    *http.Client
}

// NewMembership speaks to the cluster through any of the client URLs. ca is etcd's.
func NewMembership(ca *pki.CA, clientURLs []string) (*Membership, error) {
	identity, err := ca.Issue(pki.Request{CommonName: "kubeadm-etcd-client", Client: true})
	if err != nil {
		return nil, err
	}
	client, err := clientFor(ca.CertPEM, identity)
	if err != nil {
		return nil, err
	}
	return &Membership{endpoints: clientURLs, client: client}, nil
}

// memberMessage is a member in etcd's JSON, where 64-bit numbers are strings.
type memberMessage struct {
	ID         string   `json:"ID"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

type membersMessage struct {
	Members []memberMessage `json:"members"`
	Member  memberMessage   `json:"member"`
}

func (m memberMessage) member() (EtcdMember, error) {
	id, err := strconv.ParseUint(m.ID, 10, 64)
	if err != nil {
		return EtcdMember{}, fmt.Errorf("etcd names a member %q", m.ID)
	}
	return EtcdMember{ID: id, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner}, nil
}

// List returns the members as a majority knows them.
func (m *Membership) List(ctx context.Context) ([]EtcdMember, error) {
	reply, err := m.call(ctx, "list", struct{}{})
	if err != nil {
		return nil, err
	}
	members := make([]EtcdMember, 0, len(reply.Members))
	for _, message := range reply.Members {
		member, err := message.member()
		if err != nil {
			return nil, err
		}
		members = append(members, member)
	}
	return members, nil
}

// AddLearner announces a member that will listen there. It has no vote.
func (m *Membership) AddLearner(ctx context.Context, peerURL string) (EtcdMember, error) {
	reply, err := m.call(ctx, "add", map[string]any{"peerURLs": []string{peerURL}, "isLearner": true})
	if err != nil {
		return EtcdMember{}, err
	}
	return reply.Member.member()
}

// Promote gives a learner its vote. etcd refuses while the learner lags behind.
func (m *Membership) Promote(ctx context.Context, id uint64) error {
	_, err := m.call(ctx, "promote", map[string]any{"ID": strconv.FormatUint(id, 10)})
	return err
}

// Healthy asks every member that has started whether it can commit.
func (m *Membership) Healthy(ctx context.Context, members []EtcdMember) error {
	for _, member := range members {
		if len(member.ClientURLs) == 0 {
			continue
		}
		if err := get(ctx, m.client, member.ClientURLs[0]+"/health"); err != nil {
			return fmt.Errorf("etcd member %s: %w", member.Name, err)
		}
	}
	return nil
}

// call takes the first answer that any of the endpoints gives.
func (m *Membership) call(ctx context.Context, verb string, message any) (*membersMessage, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	errs := []error{fmt.Errorf("etcd members: %s", verb)}
	for _, endpoint := range m.endpoints {
		reply, err := m.post(ctx, endpoint+"/v3/cluster/member/"+verb, body)
		if err == nil {
			return reply, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (m *Membership) post(ctx context.Context, url string, body []byte) (*membersMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := m.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s: %s", url, response.Status, content)
	}
	reply := &membersMessage{}
	return reply, json.Unmarshal(content, reply)
}
