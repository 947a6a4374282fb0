#!/bin/sh
# Submits a job over HTTP and waits until it ends. Needs curl and jq.
#
#     sh submit.sh echo '{"hello": "world"}'
set -eu
for program in curl jq; do
  command -v "$program" >/dev/null || { echo "the program $program is not installed" >&2; exit 69; }
done
server=${THREADQ_SERVER:-http://127.0.0.1:8080}
ask() {
  curl -sS --fail-with-body ${THREADQ_API_TOKEN:+-H "Authorization: Bearer $THREADQ_API_TOKEN"} "$@"
}
payload=${2:-}
body=$(jq -n --arg type "$1" --argjson payload "${payload:-null}" '{type: $type} + if $payload == null then {} else {payload: $payload} end')
id=$(ask "$server/jobs" -H 'Content-Type: application/json' -d "$body" | jq .job_id)
job=$(ask "$server/jobs/$id?wait=60s")
printf '%s %s %s\n' "$id" "$(printf '%s' "$job" | jq -r .status)" "$(printf '%s' "$job" | jq -c .result)"
[ "$(printf '%s' "$job" | jq -r .status)" = completed ]
