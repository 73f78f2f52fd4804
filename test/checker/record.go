// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

var (
	group         = schema.GroupVersion{Group: "infrastructure.cluster.x-k8s.io", Version: "v1beta1"}
	maasMachines  = group.WithResource("maasmachines")
	attachments   = group.WithResource("dpuattachments")
	tenantVPCs    = group.WithResource("tenantvpcs")
	identities    = group.WithResource("maasclusteridentities")
	recordedKinds = []schema.GroupVersionResource{maasMachines, attachments, tenantVPCs, identities}
)

// machineRecord is what one version of a MaasMachine said.
type machineRecord struct {
	Seen                 time.Time
	UID, Namespace, Name string
	Token, SystemID      string
	ProviderID           string
	Provisioned          bool
	Isolated             string
	Ports                int
	Deleted              bool
}

// attachmentRecord is what one version of a DPUAttachment said.
type attachmentRecord struct {
	Seen                 time.Time
	UID, Namespace, Name string
	Source, SystemID     string
	Token, VPC           string
	Asked, Proven        string
	TokenHash            string
	Current              bool // the proof is of this generation
	ProvenAt, ValidUntil time.Time
	Authorized           string
	AuthorizedSince      time.Time
	MACs, DPUs           []string
	Deleted              bool
}

// Recorder remembers every version of the provider's objects that the API server showed, because what is gone cannot be
// asked any more.
type Recorder struct {
	mu          sync.Mutex
	machines    []machineRecord
	attachments []attachmentRecord
	vpcs        map[string]string // namespace/name of the TenantVPC → DPF's namespace_name
	dpfSpace    string
	heldBy      map[string][]string
}

// NewRecorder returns a Recorder that knows what it is given by Note. dpfNamespace is DPF's own.
func NewRecorder(dpfNamespace string) *Recorder {
	return &Recorder{vpcs: map[string]string{}, heldBy: map[string][]string{}, dpfSpace: dpfNamespace}
}

// Record watches the management cluster until ctx ends and returns once the first lists are in. dpfNamespace is DPF's own.
func Record(ctx context.Context, config *rest.Config, dpfNamespace string) (*Recorder, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("checker: %w", err)
	}
	r := NewRecorder(dpfNamespace)
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	for _, resource := range recordedKinds {
		_, err := factory.ForResource(resource).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { r.note(resource, object, false) },
			UpdateFunc: func(_, object any) { r.note(resource, object, false) },
			DeleteFunc: func(object any) { r.note(resource, object, true) },
		})
		if err != nil {
			return nil, fmt.Errorf("checker: watch %s: %w", resource.Resource, err)
		}
	}
	factory.Start(ctx.Done())
	for resource, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("checker: %s could not be listed", resource.Resource)
		}
	}
	return r, nil
}

func (r *Recorder) note(resource schema.GroupVersionResource, object any, deleted bool) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if u, ok := object.(*unstructured.Unstructured); ok {
		r.remember(resource, u, deleted)
	}
}

// kinds are the resources recorded, by kind.
var kinds = map[string]schema.GroupVersionResource{
	"MaasMachine": maasMachines, "DPUAttachment": attachments, "TenantVPC": tenantVPCs, "MaasClusterIdentity": identities,
}

// Note records what an object is as of now, or was last where it is gone, for whoever sees every version himself. Kinds the
// invariants do not speak of are left out.
func (r *Recorder) Note(object *unstructured.Unstructured, deleted bool) {
	if resource, known := kinds[object.GetKind()]; known && object.GroupVersionKind().GroupVersion() == group {
		r.remember(resource, object, deleted)
	}
}

func (r *Recorder) remember(resource schema.GroupVersionResource, u *unstructured.Unstructured, deleted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch resource {
	case maasMachines:
		r.machines = append(r.machines, readMachine(u, deleted))
	case attachments:
		r.attachments = append(r.attachments, readAttachment(u, deleted))
	case tenantVPCs:
		if name := text(u, "status", "vpcName"); name != "" {
			r.vpcs[u.GetNamespace()+"/"+u.GetName()] = r.dpfSpace + "_" + name
		}
	case identities:
		r.heldBy[u.GetName()] = nil
		held, _, _ := unstructured.NestedSlice(u.Object, "status", "held")
		for _, entry := range held {
			if server, ok := entry.(map[string]any); ok {
				r.heldBy[u.GetName()] = append(r.heldBy[u.GetName()], fmt.Sprint(server["systemID"]))
			}
		}
	}
}

func readMachine(u *unstructured.Unstructured, deleted bool) machineRecord {
	provisioned, _, _ := unstructured.NestedBool(u.Object, "status", "initialization", "provisioned")
	ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports")
	isolated, _ := condition(u, "Isolated")
	return machineRecord{
		Seen: time.Now(), UID: string(u.GetUID()), Namespace: u.GetNamespace(), Name: u.GetName(),
		Token: text(u, "spec", "claim", "token"), SystemID: text(u, "status", "systemID"), ProviderID: text(u, "spec", "providerID"),
		Provisioned: provisioned, Isolated: isolated, Ports: len(ports), Deleted: deleted,
	}
}

func readAttachment(u *unstructured.Unstructured, deleted bool) attachmentRecord {
	observed, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	authorized, since := condition(u, "Authorized")
	record := attachmentRecord{
		Seen: time.Now(), UID: string(u.GetUID()), Namespace: u.GetNamespace(), Name: u.GetName(),
		Source: text(u, "spec", "server", "source"), SystemID: text(u, "spec", "server", "systemID"),
		Token: text(u, "spec", "server", "token"), VPC: text(u, "spec", "vpcName"),
		Asked: text(u, "spec", "state"), Proven: text(u, "status", "state"), TokenHash: text(u, "status", "tokenHash"),
		Current: observed == u.GetGeneration(), ProvenAt: moment(u, "status", "provenAt"), ValidUntil: moment(u, "status", "validUntil"),
		Authorized: authorized, AuthorizedSince: since, Deleted: deleted,
	}
	ports, _, _ := unstructured.NestedSlice(u.Object, "status", "ports")
	for _, entry := range ports {
		port, _ := entry.(map[string]any)
		if mac, ok := port["mac"].(string); ok {
			record.MACs = append(record.MACs, mac)
		}
		if dpu, ok := port["dpu"].(string); ok && !slices.Contains(record.DPUs, dpu) {
			record.DPUs = append(record.DPUs, dpu)
		}
	}
	return record
}

func text(u *unstructured.Unstructured, path ...string) string {
	value, _, _ := unstructured.NestedString(u.Object, path...)
	return value
}

func moment(u *unstructured.Unstructured, path ...string) time.Time {
	parsed, err := time.Parse(time.RFC3339, text(u, path...))
	if err != nil {
		return time.Time{}
	}
	return parsed
}

func condition(u *unstructured.Unstructured, kind string) (status string, since time.Time) {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, entry := range conditions {
		c, _ := entry.(map[string]any)
		if c["type"] == kind {
			at, _ := time.Parse(time.RFC3339, fmt.Sprint(c["lastTransitionTime"]))
			return fmt.Sprint(c["status"]), at
		}
	}
	return "", time.Time{}
}

// snapshot is a consistent copy of all that was recorded.
type snapshot struct {
	machines    []machineRecord
	attachments []attachmentRecord
	vpcs        map[string]string
	held        map[string]bool
}

func (r *Recorder) snapshot() snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := snapshot{
		machines: slices.Clone(r.machines), attachments: slices.Clone(r.attachments),
		vpcs: map[string]string{}, held: map[string]bool{},
	}
	for key, value := range r.vpcs {
		s.vpcs[key] = value
	}
	for _, systemIDs := range r.heldBy {
		for _, systemID := range systemIDs {
			s.held[systemID] = true
		}
	}
	return s
}

// living returns the last version of each machine that still exists.
func (s snapshot) living() []machineRecord {
	last := map[string]machineRecord{}
	for _, m := range s.machines {
		last[m.UID] = m
	}
	var living []machineRecord
	for _, m := range last {
		if !m.Deleted {
			living = append(living, m)
		}
	}
	return living
}

// claims are the living machines of some snapshots by token, each counted once.
func claims(snapshots ...snapshot) map[string]map[string]bool {
	byToken := map[string]map[string]bool{}
	for _, s := range snapshots {
		for _, m := range s.living() {
			if m.Token == "" {
				continue
			}
			if byToken[m.Token] == nil {
				byToken[m.Token] = map[string]bool{}
			}
			byToken[m.Token][m.UID] = true
		}
	}
	return byToken
}

// owner returns the machine a token was stored in, living or gone.
func (s snapshot) owner(token string) (machineRecord, bool) {
	for i := len(s.machines) - 1; i >= 0; i-- {
		if s.machines[i].Token == token {
			return s.machines[i], true
		}
	}
	return machineRecord{}, false
}

// vpcOf returns the VPC, in DPF's form, that the attachments of a token ask for.
func (s snapshot) vpcOf(token string) (vpc string, asked bool) {
	for _, a := range s.attachments {
		if a.Token == token {
			return s.vpcs[a.Namespace+"/"+a.VPC], true
		}
	}
	return "", false
}
