#!/usr/bin/env bash
# The real thing on one machine: Kafka, PostgreSQL, Dovecot, Postfix and the roles
# apart, until Ctrl-C. Its data is gone afterwards.
. "$(dirname "$0")/common.sh"
cd "$repository"
dir=$(mktemp -d "${TMPDIR:-/tmp}/tributary-stack-XXXXXX")
chmod 755 "$dir"
started=$SECONDS
sleeper=
# The roles first, as long as what they need is there.
finish() {
  trap '' INT TERM
  echo
  echo "stopping"
  [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null || true
  local stopping=() role
  for role in gateway worker router api; do
    stop_pid "$dir/$role/pid" TERM 10 &
    stopping+=($!)
  done
  wait "${stopping[@]}"
  "$here/guard.sh" "$dir" </dev/null
}
trap finish EXIT
trap 'exit 0' INT TERM

cargo build --quiet --workspace --bin tributary
echo "starting Kafka, PostgreSQL, Dovecot and Postfix in $dir"
"$here/kafka.sh" start "$dir/kafka" 19092 19093 &
kafka=$!
"$here/postgres.sh" start "$dir/postgres" 15432 &
postgres=$!
"$here/dovecot.sh" start "$dir/dovecot" 11143 11024 "$here/boxes"
"$here/postfix.sh" start "$dir/postfix" 11025 11024 "$here/boxes"
wait $kafka
wait $postgres

config=$here/stack.toml
export TRIBUTARY_KEYS__FILES="[\"$dir/key\"]" TRIBUTARY_BLOBS__URL="file:$dir/blobs"
(umask 077 && head -c 32 /dev/urandom >"$dir/key")
tributary=target/debug/tributary
"$tributary" migrate --config "$config"
token=$("$tributary" token create --name you --config "$config")

# role NAME PORT: starts a role with its own folder and its own port for operators.
role() {
  mkdir -p "$dir/$1"
  TRIBUTARY_OPS__LISTEN=127.0.0.1:$2 TRIBUTARY_DATA__PATH=$dir/$1 setsid "$tributary" "$1" --config "$config" \
    >"$dir/$1/log" 2>&1 </dev/null &
  echo $! >"$dir/$1/pid"
  wait_port "$2" 20 "$dir/$1/log"
}
role gateway 9090
role worker 9091
role router 9092
role api 9093

cat <<END
ready after $((SECONDS - started)) s. Each role's log: $dir/<role>/log

  gateway     http://127.0.0.1:8080/in/demo     signed webhooks
  api         http://127.0.0.1:8081/v1/tickets
  operators   127.0.0.1:9090 gateway, :9091 worker, :9092 router, :9093 api: /health/ready, /metrics
  Kafka       127.0.0.1:19092
  PostgreSQL  psql -h 127.0.0.1 -p 15432 -U tributary tributary
  SMTP        127.0.0.1:11025      write to support@example.org or it@example.org as anna@example.com
  IMAP        127.0.0.1:11143      anna@example.com, password secret

  TRIBUTARY_TOKEN=$token make demo
  curl -H 'Authorization: Bearer $token' http://127.0.0.1:8081/v1/tickets

Ctrl-C stops all of it.
END
sleep infinity &
sleeper=$!
wait $sleeper
