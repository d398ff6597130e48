#!/usr/bin/env bash
# again.sh COMMAND... - a command that needs the network, up to four times: mirrors and registries fail for seconds, and then do not.
for pause in 5 20 60; do
  "$@" && exit 0
  echo "failed, again in $pause s: $*" >&2
  sleep $pause
done
exec "$@"
