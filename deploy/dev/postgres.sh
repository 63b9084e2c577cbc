#!/usr/bin/env bash
# PostgreSQL on loopback, superuser "tributary" without a password.
#   postgres.sh start DIR PORT     again on the same DIR: the same data
#   postgres.sh stop DIR
#   postgres.sh crash DIR          stops at once, in the middle of everything
. "$(dirname "$0")/common.sh"

PATH=$PATH:$(echo /usr/lib/postgresql/*/bin | tr ' ' :)

# PostgreSQL refuses to run as root.
as_server() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
  else
    "$@"
  fi
}

start() {
  local dir=$1 port=$2
  command -v initdb >/dev/null || fail "no PostgreSQL here: run make deps"
  mkdir -p "$dir"
  [ "$(id -u)" != 0 ] || chown postgres "$dir"
  cd "$dir"
  [ -f "$dir/data/PG_VERSION" ] ||
    as_server initdb -D "$dir/data" -U tributary -A trust --no-sync -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1 ||
    fail "cannot initialise, see $dir/initdb.log"
  as_server pg_ctl -D "$dir/data" -o "-p $port -k $dir -c listen_addresses=127.0.0.1 -c max_connections=200" \
    -l "$dir/log" -w -t 30 start >>"$dir/start.log" 2>&1 </dev/null || fail "cannot start, see $dir/log"
  head -n 1 "$dir/data/postmaster.pid" >"$dir/pid"
  psql -qAt -h 127.0.0.1 -p "$port" -U tributary -c "select 1 from pg_database where datname = 'tributary'" postgres |
    grep -q 1 || psql -q -h 127.0.0.1 -p "$port" -U tributary -c 'create database tributary' postgres
}

case ${1:-} in
  start) start "$2" "$3" ;;
  stop) stop_pid "$2/pid" INT 15 ;;
  crash) stop_pid "$2/pid" QUIT 15 ;;
  *) fail "start DIR PORT, or stop DIR, or crash DIR" ;;
esac
