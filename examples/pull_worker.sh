#!/bin/sh
# A pull worker: takes jobs from a threadq server with curl and jq, and runs them.
#
#     THREADQ_SERVER=http://127.0.0.1:8080 THREADQ_WORKER_TOKEN=... ./pull_worker.sh shell
server=${THREADQ_SERVER:-http://127.0.0.1:8080}
queue=${1:-shell}
lease_ms=${LEASE_MS:-15000}

# Sends a request and prints the body of the response. curl sends it again while the server is unavailable: to repeat any of
# these requests is harmless. The token is read from stdin, so that the list of processes does not show it.
post() {
    printf 'header = "Authorization: Bearer %s"\n' "$THREADQ_WORKER_TOKEN" |
        curl --silent --show-error --fail-with-body --config - --max-time 75 --retry 5 --retry-connrefused \
            --header 'Content-Type: application/json' --data-binary "$2" "$server$1"
}

# Your code: gets the job as JSON, and prints the result as JSON. It reports to the attempt at "$2".
work() {
    total=$(printf '%s' "$1" | jq '.payload.n // 3 | if type == "number" then . else error("no number") end') || return 1
    pause=$(printf '%s' "$1" | jq '.payload.seconds // 1')
    n=0
    while [ "$n" -lt "$total" ]; do
        sleep "$pause"
        n=$((n + 1))
        value=$(jq --null-input "$n / $total")
        answer=$(post "$2" "{\"progress\": {\"value\": $value, \"message\": \"step $n of $total\"}}") || return 1
        [ "$(printf '%s' "$answer" | jq .cancel)" = false ] || return 3
    done
    printf '{"done": %s}' "$total"
}

run() {
    attempt=/attempts/$(printf '%s' "$1" | jq --raw-output .token)
    # Extends the lease while work is busy, so that no other worker gets the job.
    (while sleep "$((lease_ms / 3000 + 1))" && post "$attempt" '{}' > /dev/null; do :; done) &
    extender=$!
    result=$(work "$1" "$attempt")
    case $? in
        0) post "$attempt/complete" "{\"result\": $result}" ;;
        3) post "$attempt/release" '{}' ;;
        *) post "$attempt/fail" '{"error": "the work failed"}' ;;
    esac
    kill "$extender" 2> /dev/null
}

while :; do
    request="{\"queues\": [\"$queue\"], \"wait_ms\": 30000, \"lease_ms\": $lease_ms, \"worker\": \"$(uname -n)\"}"
    if answer=$(post /pull "$request"); then
        job=$(printf '%s' "$answer" | jq --compact-output '.jobs[0] // empty')
        [ -z "$job" ] || run "$job"
    else
        sleep 5
    fi
done
