#!/usr/bin/env bash
# Fails if what is generated or derived is not what is committed: generated code and CRDs, kustomizations, and every module's
# requirements. `make verify` generates first. All findings are shown, not only the first.
set -euo pipefail

cd "$(dirname "$0")/.."
failed=0
complain() {
	printf 'verify: %s\n' "$1" >&2
	failed=1
}

changed=$(git status --porcelain)
if [[ -n $changed ]]; then
	printf '%s\n' "$changed" >&2
	complain "the checkout differs from the last commit: commit what 'make generate' wrote, or remove what does not belong here"
fi

while IFS= read -r kustomization; do
	dir=$(dirname "$kustomization")
	bin/tools/kustomize build "$dir" >/dev/null || complain "kustomize cannot build $dir"
done < <(git ls-files 'config/*kustomization.yaml')

while IFS= read -r mod; do
	dir=$(dirname "$mod")
	(cd "$dir" && go mod tidy -diff) >&2 || complain "$mod is not tidy: run 'go mod tidy' in $dir"
done < <(git ls-files 'go.mod' '*/go.mod')

exit $failed
