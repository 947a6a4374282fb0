#!/usr/bin/env bash
# Compresses a file with gzip. Payload: {"input": "access.log"}
set -euo pipefail
source handlers/common.sh
need gzip

new_scratch
gzip -9 -n -c <"$path" >"$scratch"

output="output/$(basename -- "$path").gz"
before=$(stat -c %s -- "$path")
after=$(stat -c %s -- "$scratch")
mv -- "$scratch" "$output"

jq -cn --arg output "examples/$output" --argjson before "$before" --argjson after "$after" \
  '{output: $output, bytes_before: $before, bytes_after: $after,
    ratio: (if $after > 0 then $before * 100 / $after | round / 100 else null end)}'
