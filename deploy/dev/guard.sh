#!/usr/bin/env bash
# guard.sh DIR: waits until its standard input is closed, which happens when the
# process that started it ends in whatever way; then stops every process whose
# id stands in a file DIR/*/pid, and removes DIR.
. "$(dirname "$0")/common.sh"
trap '' INT TERM HUP
cat >/dev/null
for file in "$1"/*/pid; do
  case $file in
    */postgres*/pid) stop_pid "$file" INT 5 & ;;
    *) stop_pid "$file" TERM 5 & ;;
  esac
done
wait
[ -n "${KEEP:-}" ] || rm -rf "$1"
