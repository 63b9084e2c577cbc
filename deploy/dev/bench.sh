#!/usr/bin/env bash
# What `make bench` compares with, where it is missing: mbsync (as root, by apt-get),
# and Bento, built once into .dev. What cannot be had is said in one line; the bench
# leaves out what needs it.
. "$(dirname "$0")/common.sh"
bento=1.20.0

if ! command -v mbsync >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing isync"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends isync; } >/dev/null 2>&1 ||
      echo "bench.sh: apt-get could not install isync"
  else
    echo "bench.sh: no mbsync here, and only root can install it: apt-get install isync"
  fi
fi

folder=$repository/.dev/bento-$bento
if [ ! -x "$folder/bento" ]; then
  if command -v go >/dev/null; then
    echo "building Bento $bento, which takes minutes"
    mkdir -p "$folder"
    cp "$here/bento/main.go" "$folder"
    cd "$folder"
    { [ -f go.mod ] || go mod init bench; } >build.log 2>&1 &&
      { go get "github.com/warpstreamlabs/bento@v$bento" && go mod tidy && go build -o bento .; } >>build.log 2>&1 ||
      echo "bench.sh: Bento cannot be built, see $folder/build.log"
  else
    echo "bench.sh: no Go here to build Bento with"
  fi
fi
