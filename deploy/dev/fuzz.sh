#!/usr/bin/env bash
# Lets cargo-fuzz try each target for MINUTES; what it finds is in fuzz/artifacts.
# fuzz.sh [MINUTES] [TARGET…]
. "$(dirname "$0")/common.sh"
cargo_fuzz=0.13.2
minutes=${1:-1}
shift $(($# ? 1 : 0))

command -v cargo >/dev/null || fail "no cargo: install Rust, see https://rustup.rs"
tools=$repository/.dev/cargo-fuzz
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
  cargo install --quiet --locked --root "$tools" "cargo-fuzz@$cargo_fuzz" ||
    fail "cargo could not build cargo-fuzz $cargo_fuzz"
fi
PATH=$tools/bin:$PATH
cd "$repository"
# The versions that are shipped are the ones that are tried.
cp Cargo.lock fuzz/Cargo.lock

# seed TARGET NAME: standard input becomes an input to begin with.
seed() {
  mkdir -p "fuzz/corpus/$1"
  cat >"fuzz/corpus/$1/$2"
}
for file in services/channels/src/*/testdata/*; do
  channel=$(basename "$(dirname "$(dirname "$file")")")
  case $file in
    *.parsed) ;;
    *.eml) seed mime "$(basename "$file")" <"$file" ;;
    *) { echo "$channel" && cat "$file"; } | seed parse "$channel-$(basename "$file")" ;;
  esac
done
for file in services/bus/testdata/*; do seed event "$(basename "$file")" <"$file"; done
for file in services/tributary/config.default.toml deploy/dev/*.toml; do seed settings "$(basename "$file")" <"$file"; done
for file in fuzz/seeds/*/*; do seed "$(basename "$(dirname "$file")")" "$(basename "$file")" <"$file"; done

cargo fuzz build -s none
failed=0
for target in ${*:-mime parse signature event rules settings}; do
  echo "── $target: $minutes min"
  # A parser of ours is bounded in size, time and memory whatever it gets.
  cargo fuzz run -s none "$target" -- -max_total_time=$((minutes * 60)) -max_len=65536 -timeout=10 \
    -rss_limit_mb=1024 -print_final_stats=1 2>&1 | sed -E '/^#|^INFO:|^"|NEW_FUNC|^\s*$/d' || failed=1
done
exit $failed
