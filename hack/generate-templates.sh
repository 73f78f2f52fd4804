#!/usr/bin/env bash
# Builds the cluster templates, as clusterctl reads them, from the kustomizations in templates/flavors. kustomize drops comments and
# quotes: the comment at the head of a flavour's kustomization goes to the head of its template; a variable that is the whole value of
# a label or annotation is quoted again, for numbers are no strings; and a list with one variable for all of its items is a list again.
set -euo pipefail

cd "$(dirname "$0")/.."
for kustomization in templates/flavors/*/kustomization.yaml; do
	dir=$(dirname "$kustomization")
	flavour=$(basename "$dir")
	case $flavour in
	base | components) continue ;;
	default) template=templates/cluster-template.yaml ;;
	*) template=templates/cluster-template-$flavour.yaml ;;
	esac
	built=$(bin/tools/kustomize build "$dir")
	{
		sed '/^#/!q' "$kustomization" | sed '/^#/!d'
		printf '# Its variables, timers and user data are explained in docs/book/flavors.md. Made from %s by "make generate".\n' "$dir"
		sed -E -e 's|^( *[a-z0-9./-]+/[a-z0-9-]+: )(\$\{.*\})$|\1"\2"|' -e "s|'(\[\\$\{[^']*\}\])'\$|\1|" <<<"$built"
	} >"$template"
done
