#!/usr/bin/env bash
# Apache Kafka, one node, on loopback.
#   kafka.sh start DIR PORT CONTROLLER_PORT [BEHIND PROXY]     again on the same DIR: the same data
#   kafka.sh stop DIR
# With BEHIND it listens there too, and says to whoever comes that way that it is
# found at PROXY, as it must for a proxy in between.
. "$(dirname "$0")/common.sh"

start() {
  local dir=$1 port=$2 controller=$3 libs=$repository/.dev/kafka-libs
  [ -d "$libs" ] || fail "no Kafka in .dev/kafka-libs: run make deps"
  local listeners= advertised=
  if [ -n "${4:-}" ]; then
    listeners=,PROXIED://127.0.0.1:$4
    advertised=,PROXIED://127.0.0.1:$5
  fi
  mkdir -p "$dir"
  cat >"$dir/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$port$advertised
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
END
  cat >"$dir/log4j2.xml" <<END
<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
END
  local java=(java -Dlog4j2.configurationFile="$dir/log4j2.xml" -cp "$libs/*")
  if [ ! -f "$dir/data/meta.properties" ]; then
    "${java[@]}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC kafka.tools.StorageTool format \
      -t 4L6g3nShT-eMCtK--X86sw -c "$dir/server.properties" >"$dir/format.log" 2>&1 || fail "cannot format, see $dir/format.log"
  fi
  setsid "${java[@]}" -Xms256m -Xmx512m -XX:+UseSerialGC kafka.Kafka "$dir/server.properties" \
    >>"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  wait_port "$port" 60 "$dir/log"
}

case ${1:-} in
  start) start "${@:2}" ;;
  stop) stop_pid "$2/pid" TERM 15 ;;
  *) fail "start DIR PORT CONTROLLER_PORT [BEHIND PROXY], or stop DIR" ;;
esac
