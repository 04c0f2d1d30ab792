#!/usr/bin/env bash
# Fail when the committed code is not what the contracts generate.
set -euo pipefail
cd "$(dirname "$0")"
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
for folder in type/v1 registry/v1 training/v1 inference/v1 inference/oip; do
  mkdir -p "$fresh/enxerto/$folder"
done
./generate.sh "$fresh"
stale=0
while IFS= read -r file; do
  if ! cmp -s "$fresh/$file" "../services/$file"; then
    echo "stale: services/$file; run \`make generate\`" >&2
    stale=1
  fi
done < <(cd "$fresh" && find enxerto -type f | sort)
"${PYTHON:-python}" reference.py --check || stale=1
exit "$stale"
