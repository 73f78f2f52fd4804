// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// faultTable is where operators read the rows.
const faultTable = "../../docs/book/maas-faults.md"

// row says what people see and what happens when some calls end in some ways.
type row struct {
	calls, troubles []string
	// sees are conditions that show, of the MaasMachine unless they name the identity; briefly are some that may, until the next
	// poll.
	sees, briefly []string
	happens       string
	// goesOn is true where machines come and go even while the trouble stays.
	goesOn bool
}

// Names of several troubles, as the table writes them.
var (
	lost     = []string{"answer lost after the commit", "answer lost, commit late"}
	killed   = []string{"killed right after", "killed, commit late"}
	asked    = []string{"409 with Retry-After", "503 with Retry-After"}
	refused  = []string{"401", "403"}
	stays    = []string{"401 that stays", "403 that stays"}
	hang     = []string{"hang past the deadline"}
	conflict = []string{"409 without Retry-After"}
	broken   = []string{"500"}
)

// lookUps are the questions of a machine that has no server yet.
var lookUps = []string{"list by token", "list matching", "list devices"}

const (
	unreachable        = "ServerClaimed=MaasUnreachable"
	credentialsRefused = "ServerClaimed=CredentialsRefused"
	sameAgain          = "The next process looks at MAAS and the stored status, and goes on where the dead one was."
	nothingYet         = "Nothing was changed; asked again."
	afterWait          = "Nothing was changed; asked again after the time MAAS names."
	untilLifted        = "Nothing is changed until it is lifted; then it goes on by itself."
)

// rows are the whole table. Each call and trouble is in exactly one.
var rows = []row{
	{calls: []string{"whoami"}, troubles: slices.Concat(lost, conflict, asked, broken, hang),
		sees: []string{unreachable, "identity Ready=MaasUnreachable"}, happens: "Nothing is asked of an account that is not known; asked again within seconds."},
	{calls: []string{"whoami"}, troubles: slices.Concat(refused, stays),
		sees: []string{credentialsRefused, "identity CredentialsValid=CredentialsRefused"}, happens: untilLifted},
	{calls: []string{"list zones"}, troubles: slices.Concat(conflict, asked, broken, hang), goesOn: true,
		sees: []string{"identity Ready=MaasUnreachable"}, happens: "The zones known before stay; machines go on; asked again."},
	{calls: []string{"list zones"}, troubles: slices.Concat(refused, stays), goesOn: true,
		sees: []string{"identity CredentialsValid=CredentialsRefused"}, happens: "The zones known before stay; machines go on as long as MAAS takes their calls."},
	{calls: lookUps, troubles: slices.Concat(conflict, broken, hang), sees: []string{unreachable}, happens: nothingYet},
	{calls: lookUps, troubles: asked, sees: []string{unreachable}, happens: afterWait},
	{calls: lookUps, troubles: refused, sees: []string{credentialsRefused}, happens: nothingYet},
	{calls: []string{"list by ID"}, troubles: slices.Concat(conflict, broken, hang), briefly: []string{unreachable}, happens: "The next poll asks again."},
	{calls: []string{"list by ID"}, troubles: asked, briefly: []string{unreachable}, happens: "The poll after the time MAAS names asks again."},
	{calls: []string{"list by ID"}, troubles: refused, briefly: []string{credentialsRefused}, happens: "The next poll asks again."},
	{calls: append([]string{"list zones", "list by ID"}, lookUps...), troubles: lost, goesOn: true, briefly: []string{unreachable},
		happens: "Nothing was changed; asked again, often at once on a new connection."},
	{calls: append([]string{"list by ID"}, lookUps...), troubles: stays, sees: []string{credentialsRefused}, happens: untilLifted},
	{calls: []string{"list by owner", "query events"}, troubles: slices.Concat(lost, conflict, asked, broken, hang, refused, stays), goesOn: true,
		happens: "Machines go on: what is in transition is read by ID at each poll. The audit is late by that much."},
	{calls: []string{"read machine"}, troubles: slices.Concat(lost, conflict, asked, broken, hang), briefly: []string{"Released=MaasUnreachable"},
		happens: "Before a release MAAS is asked once more whose the server is; without an answer it is not released. Asked again."},
	{calls: []string{"read machine"}, troubles: []string{"401"}, briefly: []string{"Released=CredentialsRefused"}, happens: "The server is neither switched off nor released; asked again."},
	{calls: []string{"read machine"}, troubles: []string{"403"}, briefly: []string{"Released=OwnershipUnclear"}, happens: "The server is neither switched off nor released; asked again."},
	{calls: []string{"read machine"}, troubles: []string{"401 that stays"}, sees: []string{"Released=CredentialsRefused"}, happens: untilLifted},
	{calls: []string{"read machine"}, troubles: []string{"403 that stays"},
		sees: []string{"Released=OwnershipUnclear"}, happens: "The server is not touched until MAAS says again that it is ours."},
	{calls: []string{"allocate"}, troubles: slices.Concat(lost, broken, hang, []string{"503 with Retry-After"}),
		sees: []string{"ServerClaimed=AllocateOutcomeUnknown"}, happens: "MAAS is searched for the token until the allocation can no longer appear; only then it is asked anew. What is found is taken in."},
	{calls: []string{"allocate"}, troubles: []string{"409 with Retry-After"}, sees: []string{unreachable}, happens: afterWait},
	{calls: []string{"allocate"}, troubles: conflict,
		sees: []string{"ServerClaimed=NoServerAvailable"}, happens: "No server fits now; noticed within a poll when one is freed."},
	{calls: []string{"allocate"}, troubles: slices.Concat(refused, stays), sees: []string{credentialsRefused}, happens: untilLifted},
	{calls: []string{"annotate"}, troubles: slices.Concat(lost, conflict, broken, hang, []string{"503 with Retry-After"}),
		happens: "The server is read; if it is not annotated, it is annotated again: the same annotations do no harm."},
	{calls: []string{"annotate"}, troubles: []string{"409 with Retry-After"}, sees: []string{unreachable}, happens: afterWait},
	{calls: []string{"annotate"}, troubles: []string{"401", "401 that stays"}, sees: []string{credentialsRefused}, happens: untilLifted},
	{calls: []string{"annotate"}, troubles: []string{"403", "403 that stays"},
		sees: []string{"ServerClaimed=OwnershipUnclear"}, happens: "Nothing is deployed on a server that is not annotated. It goes on when MAAS takes the annotations."},
	{calls: []string{"deploy"}, troubles: []string{"answer lost after the commit", "hang past the deadline"},
		happens: "The server is read: Deploying goes on."},
	{calls: []string{"deploy"}, troubles: []string{"answer lost, commit late", "500", "503 with Retry-After"},
		sees: []string{"Deployed=DeployOutcomeUnknown"}, happens: "While the server is still Allocated nothing is sent until the deployment can no longer appear; then it is sent again."},
	{calls: []string{"deploy"}, troubles: conflict, happens: "The server's state is read again before anything else."},
	{calls: []string{"deploy"}, troubles: []string{"409 with Retry-After"}, sees: []string{"Deployed=MaasUnreachable"}, happens: afterWait},
	{calls: []string{"deploy"}, troubles: []string{"401", "401 that stays"}, sees: []string{"Deployed=CredentialsRefused"}, happens: untilLifted},
	{calls: []string{"deploy"}, troubles: []string{"403", "403 that stays"},
		sees: []string{"Deployed=OwnershipUnclear"}, happens: "Locked or no longer ours: nothing is changed until MAAS takes it."},
	{calls: []string{"power off", "release with erase", "release without erase"}, troubles: slices.Concat(lost, broken, hang, []string{"503 with Retry-After"}),
		happens: "The order is in `status.openOrder`. The server is read; it is not released again, or to anybody else, before the order can no longer take effect. `ReleaseOutcomeUnknown` shows while that is waited for."},
	{calls: []string{"power off", "release with erase", "release without erase"}, troubles: conflict, happens: "The server's state is read again before anything else."},
	{calls: []string{"power off", "release with erase", "release without erase"}, troubles: []string{"409 with Retry-After"},
		sees: []string{"Released=MaasUnreachable"}, happens: afterWait},
	{calls: []string{"power off", "release with erase", "release without erase"}, troubles: []string{"401", "401 that stays"},
		sees: []string{"Released=CredentialsRefused"}, happens: "The finalizer stays, nothing is changed. " + untilLifted},
	{calls: []string{"power off", "release with erase", "release without erase"}, troubles: []string{"403", "403 that stays"},
		sees: []string{"Released=OwnershipUnclear"}, happens: "Locked or no longer ours: the finalizer stays, nothing is changed until MAAS takes it."},
	{calls: sceneNames(), troubles: killed, happens: sameAgain},
}

func sceneNames() []string {
	var names []string
	for i := range scenes {
		names = append(names, scenes[i].name)
	}
	return names
}

// rowOf is the row of a cell.
func rowOf(scene, trouble string) (row, bool) {
	for _, r := range rows {
		if slices.Contains(r.calls, scene) && slices.Contains(r.troubles, trouble) {
			return r, true
		}
	}
	return row{}, false
}

// String is the row as the table has it.
func (r row) String() string {
	sees := "nothing"
	switch {
	case len(r.sees) > 0:
		sees = "`" + strings.Join(r.sees, "`, `") + "`"
	case len(r.briefly) > 0:
		sees = "at most for a poll `" + strings.Join(r.briefly, "`, `") + "`"
	}
	calls := strings.Join(r.calls, ", ")
	if len(r.calls) == len(scenes) {
		calls = "any call"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |", calls, strings.Join(r.troubles, "; "), sees, r.happens)
}

// TestFaultTable holds docs/book/maas-faults.md to the rows the matrix plays, and the rows to the matrix.
func TestFaultTable(t *testing.T) {
	cells := map[string]int{}
	for _, r := range rows {
		for _, c := range r.calls {
			for _, trouble := range r.troubles {
				cells[c+"/"+trouble]++
			}
		}
	}
	for _, s := range scenes {
		for _, trouble := range troubles {
			if n := cells[s.name+"/"+trouble.name]; n != 1 {
				t.Errorf("%s/%s is in %d rows, want 1", s.name, trouble.name, n)
			}
		}
	}
	text, err := os.ReadFile(faultTable)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n|---|---|---|---|\n")
	var wanted []string
	for _, r := range rows {
		wanted = append(wanted, r.String())
	}
	written := strings.Split(table, "\n")[:min(len(rows), strings.Count(table, "\n"))]
	for i, line := range wanted {
		if i >= len(written) || written[i] != line {
			t.Fatalf("row %d of %s is not what the matrix plays; it should be\n%s", i+1, faultTable, line)
		}
	}
	if rest := strings.TrimPrefix(table, strings.Join(wanted, "\n")); strings.HasPrefix(strings.TrimPrefix(rest, "\n"), "|") {
		t.Errorf("%s has more rows than the matrix", faultTable)
	}
}
