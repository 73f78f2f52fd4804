// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	pollEvery = 100 * time.Millisecond
	// soon is for what the wings do by themselves within some poll intervals; upWithin for a machine's whole way up or down.
	soon     = 40 * time.Second
	upWithin = 90 * time.Second
)

// object is one that says how it is.
type object interface {
	client.Object
	conditions.Getter
}

// begin ends the test with the checker's verdict and a look at the wings, after everything else was cleaned up.
func begin(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if verdict := world.Checker.Check(); !verdict.Holds() {
			t.Errorf("invariants are broken:\n%s", verdict)
		}
		wings.steady(t)
	})
}

// eventually waits until check returns "", which otherwise says why not yet.
func eventually(t *testing.T, timeout time.Duration, what string, check func(ctx context.Context) (whyNot string)) {
	t.Helper()
	why := ""
	err := wait.PollUntilContextTimeout(suite, pollEvery, timeout, true, func(context.Context) (bool, error) {
		// Not the poll's own context: its end would be what the last answer says.
		why = check(suite)
		return why == "", nil
	})
	if err != nil {
		t.Fatalf("%s: not so after %s: %s", what, timeout, why)
	}
}

// says is a condition as it should be, and what its message must tell people.
type says struct {
	condition string
	status    metav1.ConditionStatus
	reason    string
	message   []string
}

func no(condition, reason string, message ...string) says {
	return says{condition, metav1.ConditionFalse, reason, message}
}

func unknown(condition, reason string, message ...string) says {
	return says{condition, metav1.ConditionUnknown, reason, message}
}

// because is a reason, whether the condition is False or Unknown for it.
func because(condition, reason string, message ...string) says {
	return says{condition: condition, reason: reason, message: message}
}

func yes(condition string) says { return says{condition: condition, status: metav1.ConditionTrue} }

// expect waits until the object says so.
func expect(t *testing.T, o object, want says) {
	t.Helper()
	expectWithin(t, soon, o, want)
}

func expectWithin(t *testing.T, timeout time.Duration, o object, want says) {
	t.Helper()
	what := fmt.Sprintf("%T %s says %s=%s %s and tells %q", o, o.GetName(), want.condition, want.status, want.reason, want.message)
	eventually(t, timeout, what, func(ctx context.Context) string {
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err.Error()
		}
		if !want.met(conditions.Get(o, want.condition)) {
			return describe(o)
		}
		return ""
	})
}

func (s says) met(got *metav1.Condition) bool {
	if got == nil || s.status != "" && got.Status != s.status || s.reason != "" && got.Reason != s.reason {
		return false
	}
	for _, part := range s.message {
		if !strings.Contains(got.Message, part) {
			return false
		}
	}
	return true
}

func describe(o object) string {
	if len(o.GetConditions()) == 0 {
		return "no conditions yet"
	}
	var b strings.Builder
	for _, c := range o.GetConditions() {
		fmt.Fprintf(&b, "\n  %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

// holds fails if check ever returns a reason during the time given.
func holds(t *testing.T, during time.Duration, what string, check func(ctx context.Context) (broken string)) {
	t.Helper()
	broken := ""
	err := wait.PollUntilContextTimeout(suite, pollEvery, during, true, func(ctx context.Context) (bool, error) {
		broken = check(ctx)
		return broken != "", nil
	})
	if broken != "" {
		t.Fatalf("%s: %s", what, broken)
	}
	if suite.Err() != nil {
		t.Fatal(err)
	}
}

// update changes an object as its operator does.
func update(ctx context.Context, o client.Object, name string, change func()) error {
	return updateKey(ctx, o, client.ObjectKey{Name: name}, change)
}

func updateKey(ctx context.Context, o client.Object, key client.ObjectKey, change func()) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := world.Operator.Get(ctx, key, o); err != nil {
			return err
		}
		change()
		return world.Operator.Update(ctx, o)
	})
}

func change(t *testing.T, o client.Object, f func()) {
	t.Helper()
	if err := updateKey(suite, o, client.ObjectKeyFromObject(o), f); err != nil {
		t.Fatalf("change %T %s: %v", o, o.GetName(), err)
	}
}

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := world.Operator.Create(suite, o); err != nil {
			t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// refused expects that the object is not admitted, with a sentence that tells what to do.
func refused(t *testing.T, o client.Object, tells ...string) {
	t.Helper()
	err := world.Operator.Create(suite, o)
	if err == nil {
		t.Errorf("%T %s was admitted", o, o.GetName())
		return
	}
	for _, part := range tells {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("refusal of %T %s, %q, does not tell %q", o, o.GetName(), err, part)
		}
	}
}

// effects are what our accounts did to servers under tokens of one machine, in order.
func effects(namespace, name, operation string) []maassim.Effect {
	var found []maassim.Effect
	for _, e := range world.MAAS.Journal() {
		token := e.AgentName
		if token == "" {
			token = e.Claim
		}
		if ourAccount(e.User) && e.Operation == operation && maas.Token(token).Fits(namespace, name) {
			found = append(found, e)
		}
	}
	return found
}

// ourAccount says whether a MAAS account is one of the wings'.
func ourAccount(user string) bool {
	return user == demo.Account || slices.ContainsFunc(yards, func(y yard) bool { return y.name == user })
}

// server is a server as MAAS has it.
func server(t *testing.T, systemID string) maassim.MachineState {
	t.Helper()
	for _, m := range world.MAAS.Machines() {
		if m.SystemID == systemID {
			return m
		}
	}
	t.Fatalf("MAAS has no server %q", systemID)
	return maassim.MachineState{}
}
