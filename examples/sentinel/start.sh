#!/bin/sh
# Starts a Redis or a Sentinel: start.sh redis|sentinel [LINE...]. Both write into their own file who the master is. So at its
# first start each gets a copy of its file, with these lines added, and keeps the copy in its volume.
set -eu
kind=$1
shift
file=/data/$kind.conf
if [ ! -e "$file" ]; then
  cp "/etc/redis/$kind.conf" "$file.new"
  printf '%s\n' "$@" >>"$file.new"
  mv "$file.new" "$file"
fi
if [ "$kind" = sentinel ]; then
  exec redis-server "$file" --sentinel
fi
exec redis-server "$file"
