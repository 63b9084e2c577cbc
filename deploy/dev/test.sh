#!/usr/bin/env bash
# Every test, with how long each part took; the last line has the totals.
. "$(dirname "$0")/common.sh"
cd "$repository"
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
failed=0

# part NAME COMMAND…: runs it, shows what it prints, keeps it for the totals. What
# hangs is ended, so that the parts after it still run and the end names it.
part() {
  local name=$1 started=$SECONDS
  shift
  echo "── $name"
  timeout --kill-after=10 25m "$@" 2>&1 | tee "$log/$name" || { failed=1; echo "── $name: failed"; }
  echo "── $name: $((SECONDS - started)) s"
}

part deps "$here/deps.sh"
part build cargo build --quiet --workspace --all-targets
part units cargo test --quiet --workspace --exclude tests --no-fail-fast
part layers cargo test --quiet --workspace --test layers
part light cargo test --quiet --workspace --test stories -- light
part heavy cargo test --quiet --workspace --test stories -- heavy

# Each test binary ends in "test result: ok. 12 passed; 0 failed; …".
cat "$log"/* | awk -v failed="$failed" '
  /^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i } }
  END { if (failed && !f) f = 1; printf "%d passed, %d failed\n", p, f; exit f > 0 }'
