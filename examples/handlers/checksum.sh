#!/usr/bin/env bash
# Computes the SHA-256 of a file. Payload: {"input": "access.log"}
set -euo pipefail
source handlers/common.sh
need sha256sum

sum=$(sha256sum <"$path")
jq -cn --arg input "$input" --arg sha256 "${sum%% *}" --argjson bytes "$(stat -c %s -- "$path")" \
  '{input: $input, sha256: $sha256, bytes: $bytes}'
