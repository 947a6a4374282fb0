#!/usr/bin/env bash
# Makes a thumbnail with ImageMagick. Payload: {"input": "lake.jpg", "width": 200}
set -euo pipefail
source handlers/common.sh
need identify convert

width=$(field '.width // 200 | numbers')
[[ $width =~ ^[1-9][0-9]{0,3}$ ]] || refuse '"width" must be a whole number from 1 to 9999'

case ${path,,} in
  *.jpg | *.jpeg) format=jpeg ;;
  *.png) format=png ;;
  *) refuse "not a JPEG or PNG, by its file name: $input" ;;
esac

# The format is given and the file is read from standard input, because ImageMagick interprets file names and detects
# formats that run other programs.
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
