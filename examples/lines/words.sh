#!/bin/sh
# Counts the words of a text: {"text": "a b a"} gives {"a": 2, "b": 1}. A program that stays (protocol = "lines").
# Needs jq, which is started for each job; jq -c writes one line.
while IFS= read -r job; do
  printf '%s\n' "$job" | jq -c '{progress: 0.5, message: "attempt \(.attempt)"}'
  printf '%s\n' "$job" | jq -c '
    if (.payload | type) != "object" or (.payload.text | type) != "string"
    then {error: "the payload has no text", permanent: true}
    else {result: (reduce (.payload.text | splits("\\s+") | select(. != "")) as $word ({}; .[$word] += 1))}
    end'
done
