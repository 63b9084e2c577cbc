# What the start scripts share; sourced, not run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)

# One clear line, and the end.
fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# wait_port PORT SECONDS LOG: until somebody listens there.
wait_port() {
  local deadline=$((SECONDS + $2))
  until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
    if ((SECONDS >= deadline)); then
      tail -n 20 "$3" >&2 || true
      fail "nothing listens on port $1 after $2 s, see $3"
    fi
    sleep 0.05
  done
}

# stop_pid FILE SIGNAL SECONDS: stops the process whose id stands in FILE and
# waits for its end; SIGKILL when it takes longer.
stop_pid() {
  local pid deadline=$((SECONDS + $3))
  [ -s "$1" ] || return 0
  pid=$(tr -dc '0-9\n' <"$1" | head -n 1)
  [ -n "$pid" ] || return 0
  kill "-$2" "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; do
    ((SECONDS < deadline)) || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.05
  done
  rm -f "$1"
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "needs root: $1"
}
