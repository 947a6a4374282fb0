# Sourced by the other handlers in this folder: reads the payload and finds the input file.
#
# A handler starts in the folder of the configuration file, with the payload as JSON on standard input. Exit code 65 fails
# the job without a retry; any other exit code but 0 fails the attempt.

# Fails the attempt if one of these programs is not installed.
need() {
  local program
  for program; do
    if ! command -v "$program" >/dev/null; then
      printf 'the program %s is not installed: run script/setup server\n' "$program" >&2
      exit 69
    fi
  done
}

# Fails the job without a retry. The line is stored as the error of the job.
refuse() {
  printf '%s\n' "$1" >&2
  exit 65
}

# Runs a jq filter on the payload. Prints nothing if the payload has no such value.
field() {
  jq -r "$1" <<<"$payload" 2>/dev/null || true
}

need jq
payload=$(cat)
jq -e 'type == "object"' <<<"$payload" >/dev/null 2>&1 || refuse 'the payload is not a JSON object'

input=$(field '.input | strings')
[[ -n $input ]] || refuse 'the payload has no "input": the name of a file in examples/input'

# The real path is checked, so that "..", an absolute path or a link cannot lead out of the folder.
folder=$(realpath -e input)
path=$(realpath -e -- "$folder/$input" 2>/dev/null) || refuse "no such file in examples/input: $input"
[[ $input != /* && $path == "$folder"/* && -f $path ]] || refuse "not a file in examples/input: $input"

# Sets `scratch` to a new file for the result. A job can run twice, even at the same time, so a handler writes its result to
# a scratch file and renames it.
new_scratch() {
  mkdir -p output
  scratch=$(mktemp output/.scratch.XXXXXX)
  trap 'rm -f -- "$scratch"' EXIT
}
