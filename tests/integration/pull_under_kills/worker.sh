# A pull worker in shell: worker.sh FOLDER NAME. The folder has the addresses of the servers, and gets notes of all answers.
folder=$1
name=$2
newline='
'

# note TOKEN VERDICT [REST OF THE OBJECT]
note() {
  printf '{"worker":"%s","token":"%s","verdict":"%s"%s}\n' "$name" "$1" "$2" "$3" >> "$folder/answers"
}

# post PATH BODY: sets code and body. Asks until a server answers.
post() {
  while :; do
    base=$(shuf -n 1 "$folder/servers")
    reply=$(curl -s --max-time 30 -w '\n%{http_code}' -H 'Content-Type: application/json' -d "$2" "$base$1") || reply=
    code=${reply##*"$newline"}
    body=${reply%"$newline"*}
    case $code in
      '' | 000 | 429 | 503) sleep 0.05 ;;
      *) return ;;
    esac
  done
}

# end TOKEN VERDICT BODY
end() {
  note "$1" "$2"
  post "/attempts/$1/$2" "$3"
  note "$1" "$2" ",\"code\":$code,\"answer\":$body"
}

# run TOKEN ACT ATTEMPTS CRASHES SNOOZES COIN
run() {
  note "$1" begin
  case $2,$3,$4,$5,$6 in
    late,*,0,*,*) sleep 2.6 ;;
    fail,0,*) end "$1" fail '{"error":"not yet","retry_after_ms":1}'; return ;;
    release,*,1) end "$1" release '{}'; return ;;
    snooze,*,*,0,*) end "$1" release '{"delay_ms":1000}'; return ;;
    report,*)
      post "/attempts/$1" '{"progress":{"value":0.5,"message":"'"$name"'"},"log":["half"],"checkpoint":{"by":"'"$name"'"}}'
      note "$1" report ",\"code\":$code,\"answer\":$body"
      ;;
  esac
  end "$1" complete '{"result":{"token":"'"$1"'","by":"shell"}}'
}

while :; do
  post /pull '{"queues":["pull","mixed"],"max":2,"wait_ms":2000,"lease_ms":2000,"worker":"'"$name"'"}'
  if [ "$code" != 200 ]; then
    note '' pull ",\"code\":$code,\"answer\":$body"
    sleep 1
    continue
  fi
  printf '%s' "$body" | jq -r '.jobs[] | [.token, .payload.act, .attempts, .crashes, .snoozes // 0] | @tsv' |
    while read -r token act attempts crashes snoozes; do
      run "$token" "$act" "$attempts" "$crashes" "$snoozes" "$(shuf -n 1 -i 0-1)"
    done
done
