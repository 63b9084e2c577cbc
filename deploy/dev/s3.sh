#!/usr/bin/env bash
# An object storage that speaks S3 (versitygw), with its objects as files in DIR/objects.
#   s3.sh start DIR PORT BUCKET     again on the same DIR: the same objects
#   s3.sh stop DIR
# Whoever comes is `tributary` with the key `tributary-secret`, in us-east-1.
. "$(dirname "$0")/common.sh"

start() {
  local dir=$1 port=$2 server=$repository/.dev/versitygw
  [ -x "$server" ] || fail "no object storage in .dev/versitygw: run make deps"
  mkdir -p "$dir/objects/$3"
  ROOT_ACCESS_KEY_ID=tributary ROOT_SECRET_ACCESS_KEY=tributary-secret setsid "$server" \
    --port "127.0.0.1:$port" --quiet posix "$dir/objects" >>"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  wait_port "$port" 20 "$dir/log"
}

case ${1:-} in
  start) start "${@:2}" ;;
  stop) stop_pid "$2/pid" TERM 5 ;;
  *) fail "start DIR PORT BUCKET, or stop DIR" ;;
esac
