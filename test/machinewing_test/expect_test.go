// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// until waits until something is so; whatever was killed meanwhile is started again.
func (w *world) until(done func() bool, what string) {
	w.Helper()
	w.Eventually(func() bool {
		w.supervise()
		return done()
	}).WithTimeout(patience).WithPolling(10*time.Millisecond).Should(BeTrue(), func() string { return what + w.describe() })
	if w.watch != nil {
		w.checkNow()
	}
}

// noise is what every line of a log says.
var noise = regexp.MustCompile(`"(controller|controllerGroup|controllerKind|reconcileID|level|Machine|Cluster)"=("[^"]*"|\d+|\{[^}]*\}) ?`)

// describe says where everything stands.
func (w *world) describe() string {
	var b strings.Builder
	for _, m := range w.machines() {
		fmt.Fprintf(&b, "\n%s/%s: server %q, avoided %v, deleted %v", m.Namespace, m.Name, m.Status.SystemID, m.Status.AvoidedServers, m.DeletionTimestamp != nil)
		for _, c := range m.Status.Conditions {
			fmt.Fprintf(&b, "\n  %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	for _, s := range w.region.Machines() {
		fmt.Fprintf(&b, "\n%s %s owner %q power %s %v", s.SystemID, s.StatusName, s.Owner, s.Power, s.Annotations)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for _, line := range w.lines {
		if !strings.Contains(line, `"level"=5`) {
			lines = append(lines, noise.ReplaceAllString(line, ""))
		}
	}
	b.WriteString("\n" + strings.Join(lines[max(0, len(lines)-20):], "\n"))
	return b.String()
}

// quiet holds that the machine wing changes nothing in MAAS for a while.
func (w *world) quiet() {
	w.Helper()
	ours := func() int {
		n := 0
		for _, effect := range w.region.Journal() {
			if effect.User == w.options.account {
				n++
			}
		}
		return n
	}
	before := ours()
	w.Consistently(ours).WithTimeout(10*w.options.poll).WithPolling(w.options.poll).Should(Equal(before), "MAAS is left alone")
}

func provisioned(m *infrav1.MaasMachine) bool {
	return m != nil && ptr.Deref(m.Status.Initialization.Provisioned, false)
}

func (w *world) provisioned() bool { w.Helper(); return provisioned(w.machine()) }

func (w *world) gone() bool { w.Helper(); return w.machine() == nil }

// says reports whether a condition of the machine has a reason.
func (w *world) says(condition, reason string) func() bool {
	return func() bool {
		m := w.machine()
		return m != nil && conditions.GetReason(m, condition) == reason
	}
}

// identitySays reports whether a condition of the identity has a reason.
func (w *world) identitySays(condition, reason string) func() bool {
	return func() bool { return conditions.GetReason(w.identity("identity"), condition) == reason }
}

// live takes the machine up and down and expects that nothing is left.
func (w *world) live() {
	w.Helper()
	w.until(w.provisioned, "up")
	w.expectUp()
	w.down()
}

// down deletes the machine and expects that nothing is left.
func (w *world) down() {
	w.Helper()
	w.remove()
	w.until(w.gone, "down")
	w.expectDown()
}

// expectUp holds what the checker cannot know: which server the one provisioned machine has.
func (w *world) expectUp() {
	w.Helper()
	m := w.machine()
	owned := w.owned(w.options.account)
	w.Expect(len(owned)).To(Equal(1), "servers held")
	w.Expect(owned[0].SystemID).To(Equal(m.Status.SystemID))
	w.Expect(owned[0].StatusName).To(Equal("Deployed"))
	w.Expect(owned[0].Claim).To(Equal(m.Spec.Claim.Token))
	w.Expect(m.Spec.ProviderID).To(Equal("maas:///" + owned[0].SystemID))
	w.Expect(w.attached()).To(HaveLen(len(m.Spec.Ports)), "attachments")
}

// expectDown expects that all servers are free and clean and that nothing is left of the claims.
func (w *world) expectDown() {
	w.Helper()
	w.Expect(len(w.owned(w.options.account))).To(BeZero(), "servers left behind")
	for _, m := range w.region.Machines() {
		if m.Owner == "" {
			w.Expect(m.StatusName).To(Equal("Ready"), m.SystemID)
			w.Expect(m.Dirty).To(BeFalse(), m.SystemID+" was given back dirty")
		}
	}
	w.Expect(w.attached()).To(BeEmpty(), "attachments")
}

// attached are the servers of the world's own site that have a DPUAttachment.
func (w *world) attached() []string {
	w.Helper()
	var ids []string
	for _, a := range w.attachments() {
		if strings.HasPrefix(a.Spec.Server.SystemID, w.prefix) {
			ids = append(ids, a.Spec.Server.SystemID)
		}
	}
	return ids
}

// deployments are the deploys of our account by server.
func (w *world) deployments() map[string]int {
	deployed := map[string]int{}
	for _, effect := range w.region.Journal() {
		if effect.Operation == "deploy" && effect.User == w.options.account {
			deployed[effect.SystemID]++
		}
	}
	return deployed
}

// see notes what conditions ever said, and any secret that ever showed in a status.
func (w *world) see(object client.Object, _ bool) {
	u := w.api.asUnstructured(object)
	status, _ := u.Object["status"].(map[string]any)
	text, err := json.Marshal(status)
	if err != nil {
		text = []byte(err.Error())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := object.(type) {
	case *infrav1.MaasMachine:
		for _, c := range o.Status.Conditions {
			w.shown[fmt.Sprintf("%s=%s", c.Type, c.Reason)] = true
		}
		if o.Spec.Claim != nil {
			w.tokens[o.Spec.Claim.Token] = true
		}
	case *infrav1.MaasClusterIdentity:
		for _, c := range o.Status.Conditions {
			w.shown[fmt.Sprintf("identity %s=%s", c.Type, c.Reason)] = true
		}
	}
	w.statuses[fmt.Sprintf("status of %s %s", u.GetKind(), u.GetName())+string(text)] = true
}

// showed reports whether any version of an object ever said something, as see writes it.
func (w *world) showed(what string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shown[what]
}

// teller takes the events of the machine wing.
type teller struct {
	mu     sync.Mutex
	events []string
}

// Eventf implements events.EventRecorder.
func (t *teller) Eventf(regarding, _ runtime.Object, kind, reason, action, note string, args ...any) {
	name := ""
	if object, ok := regarding.(client.Object); ok {
		name = object.GetName()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, fmt.Sprintf("%s %s %s %s: %s", name, kind, reason, action, fmt.Sprintf(note, args...)))
}

// told are the events whose reason is this.
func (t *teller) told(reason string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var told []string
	for _, event := range t.events {
		if strings.Fields(event)[2] == reason {
			told = append(told, event)
		}
	}
	return told
}

// logger keeps every line a process logs, up to the verbosity from which client-go prints what it reads.
func (w *world) logger(name string) logr.Logger {
	return funcr.New(func(prefix, args string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.lines = append(w.lines, fmt.Sprintf("%s %s %s %s", time.Now().Format("05.000"), name, prefix, args))
	}, funcr.Options{Verbosity: 6})
}

// expectNoSecrets searches all that people can read for tokens, keys and user data.
func (w *world) expectNoSecrets() {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tells.mu.Lock()
	defer w.tells.mu.Unlock()
	readable := append(append([]string(nil), w.lines...), w.tells.events...)
	for status := range w.statuses {
		readable = append(readable, status)
	}
	for _, m := range w.region.Machines() {
		readable = append(readable, fmt.Sprint("annotations of ", m.SystemID, m.Annotations))
	}
	secrets := []string{"0key0", "join0me0with0this"}
	for token := range w.tokens {
		secrets = append(secrets, token)
	}
	for _, text := range readable {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				w.Errorf("a secret can be read: %s", text)
			}
		}
	}
}

// keepLogs writes what a failed world logged, its calls and MAAS' journal into the folder named by MACHINEWING_LOGS, if any.
func (w *world) keepLogs() {
	dir := os.Getenv("MACHINEWING_LOGS")
	if dir == "" || !w.Failed() {
		return
	}
	var b strings.Builder
	w.mu.Lock()
	for _, line := range w.lines {
		fmt.Fprintln(&b, noise.ReplaceAllString(line, ""))
	}
	w.mu.Unlock()
	for _, c := range w.gate.history() {
		fmt.Fprintf(&b, "call %s %s %s %s -> %d %s\n", c.at.Format("05.000"), c.process, c.operation, c.systemID, c.code, c.fault)
	}
	for _, e := range w.region.Journal() {
		fmt.Fprintf(&b, "effect %s %s %s %s %d -> %d\n", e.Time.Format("05.000"), e.User, e.Operation, e.SystemID, e.From, e.To)
	}
	name := filepath.Join(dir, strings.ReplaceAll(w.Name(), "/", "_")+".log")
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		w.Errorf("keep the logs: %v", err)
	}
}

// journal are the effects of an operation on a server, by anybody.
func (s *site) journal(operation, systemID string) []maassim.Effect {
	var found []maassim.Effect
	for _, effect := range s.region.Journal() {
		if effect.Operation == operation && effect.SystemID == systemID {
			found = append(found, effect)
		}
	}
	return found
}

// calls are the calls of the machine wing of an operation, in order.
func (w *world) calls(o operation) []call {
	var calls []call
	for _, c := range w.gate.history() {
		if c.process != "" && c.operation == o {
			calls = append(calls, c)
		}
	}
	return calls
}
