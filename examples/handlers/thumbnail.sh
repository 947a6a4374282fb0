#!/usr/bin/env bash
# Makes a thumbnail by ImageMagick. Payload: {"input": "lake.jpg", "width": 200}
set -euo pipefail
source handlers/common.sh

width=$(field '.width // 200 | numbers')
[[ $width =~ ^[1-9][0-9]{0,3}$ ]] || refuse '"width" is a whole number from 1 to 9999'

case ${path,,} in
  *.jpg | *.jpeg) format=jpeg ;;
  *.png) format=png ;;
  *) refuse "not a JPEG or PNG by its name: $input" ;;
esac

# The format is named and the file comes by standard input: ImageMagick gives file names and contents meanings of its
# own otherwise.
identify "$format:-" <"$path" >/dev/null || refuse "not a readable $format file: $input"
new_scratch
convert -limit memory 256MiB -limit map 512MiB "$format:-" -auto-orient -thumbnail "${width}x" "$format:-" \
  <"$path" >"$scratch"

name=$(basename -- "$path")
output="output/${name%.*}-${width}.${name##*.}"
read -r actual_width height < <(identify -format '%w %h\n' "$format:-" <"$scratch")
bytes=$(stat -c %s -- "$scratch")
mv -- "$scratch" "$output"

jq -cn --arg output "examples/$output" --argjson bytes "$bytes" --argjson width "$actual_width" \
  --argjson height "$height" '{output: $output, bytes: $bytes, width: $width, height: $height}'
