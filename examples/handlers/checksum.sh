#!/usr/bin/env bash
# Computes a file's SHA-256. Payload: {"input": "access.log"}
set -euo pipefail
source handlers/common.sh

sum=$(sha256sum <"$path")
jq -cn --arg input "$input" --arg sha256 "${sum%% *}" --argjson bytes "$(stat -c %s -- "$path")" \
  '{input: $input, sha256: $sha256, bytes: $bytes}'
