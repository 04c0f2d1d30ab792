#!/usr/bin/env bash
# Generate the Python code of every contract into services/enxerto, or into the folder given as the first argument.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-../services}"
python="${PYTHON:-python}"
mapfile -t contracts < <(find enxerto -name '*.proto' | sort)
# The Open Inference Protocol keeps its own package name on the wire and lives beside the service in Python.
contracts+=(enxerto/inference/oip/open_inference.proto)
mapfile -t services < <(printf '%s\n' "${contracts[@]}" | grep -E '(_service|/oip/.*)\.proto$')
include=(-I. -Ienxerto/inference/oip=inference -Ithird_party)
"$python" -m grpc_tools.protoc "${include[@]}" --python_out="$out" --mypy_out="quiet:$out" "${contracts[@]}"
"$python" -m grpc_tools.protoc "${include[@]}" --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" "${services[@]}"
# Nothing is written by hand beside these; inference/oip has modules of its own.
for folder in type/v1 registry/v1 training/v1 inference/v1; do
  printf '"""Generated from protos/ by protos/generate.sh; never edited."""\n' > "$out/enxerto/$folder/__init__.py"
done
