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
  local ended=0
  timeout --kill-after=10 25m "$@" 2>&1 | tee "$log/$name" || { ended=1 failed=1; echo "── $name: failed"; }
  echo "── $name: $((SECONDS - started)) s"
  return $ended
}

part deps "$here/deps.sh" || true
part build cargo build --quiet --workspace --all-targets || true
# Both wait more than they work: beside each other, and shown one after the other.
beside=$(mktemp)
part units cargo test --quiet --workspace --exclude tests --no-fail-fast > "$beside" &
part light cargo test --quiet --workspace --test stories -- light || true
wait $! || failed=1
cat "$beside"
rm -f "$beside"
part layers cargo test --quiet --workspace --test layers || true
part heavy cargo test --quiet --workspace --test stories -- heavy || true

# Each test binary ends in "test result: ok. 12 passed; 0 failed; …".
cat "$log"/* | awk -v failed="$failed" '
  /^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i } }
  END { if (failed && !f) f = 1; printf "%d passed, %d failed\n", p, f; exit f > 0 }'
