# Sourced by the handlers beside it: reads the payload and finds the input file.
#
# A handler starts in the folder of the configuration file, with the payload's JSON on standard input. Exit code 65
# means that trying again is of no use, any other that it may be.

# Ends the job for good with a line that says why; threadq keeps it as the job's error.
refuse() {
  printf '%s\n' "$1" >&2
  exit 65
}

# Runs a jq filter on the payload; an empty answer when it has no value there.
field() {
  jq -r "$1" <<<"$payload" 2>/dev/null || true
}

payload=$(cat)
jq -e 'type == "object"' <<<"$payload" >/dev/null 2>&1 || refuse 'the payload is no JSON object'

input=$(field '.input | strings')
[[ -n $input ]] || refuse 'the payload has no "input": the name of a file in examples/input'

# The real path decides, so that neither "..", an absolute path nor a link leads out of the folder.
folder=$(realpath -e input)
path=$(realpath -e -- "$folder/$input" 2>/dev/null) || refuse "no such file in examples/input: $input"
[[ $input != /* && $path == "$folder"/* && -f $path ]] || refuse "not a file in examples/input: $input"

# Sets `scratch` to a new file for the result. A job can run twice, also at the same time, so that a handler writes its
# result aside and then renames it.
new_scratch() {
  mkdir -p output
  scratch=$(mktemp output/.scratch.XXXXXX)
  trap 'rm -f -- "$scratch"' EXIT
}
