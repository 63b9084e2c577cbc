#!/usr/bin/env bash
# Apache Kafka, one node, on loopback.
#   kafka.sh start DIR PORT CONTROLLER_PORT [BEHIND PROXY [ID CONTROLLER_PORT,…]]     again on the same DIR: the same data
#   kafka.sh stop DIR · kafka.sh kill DIR
# With BEHIND it listens there too, and says to whoever comes that way that it is
# found at PROXY, as it must for a proxy in between. With ID it is that node of as
# many as there are controllers; start all of them at once.
. "$(dirname "$0")/common.sh"

start() {
  local dir=$1 port=$2 controller=$3 libs=$repository/.dev/kafka-libs
  [ -d "$libs" ] || fail "no Kafka in .dev/kafka-libs: run make deps"
  local listeners= advertised=
  if [ -n "${4:-}" ]; then
    listeners=,PROXIED://127.0.0.1:$4
    advertised=,PROXIED://127.0.0.1:$5
  fi
  local id=${6:-1} controllers voters= node=0 copies enough=1 port_of
  IFS=, read -ra controllers <<<"${7:-$controller}"
  for port_of in "${controllers[@]}"; do
    node=$((node + 1))
    voters+=${voters:+,}$node@127.0.0.1:$port_of
  done
  copies=$((node < 3 ? node : 3))
  [ "$copies" -lt 3 ] || enough=2
  mkdir -p "$dir"
  cat >"$dir/server.properties" <<END
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$port$advertised
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
num.partitions=8
default.replication.factor=$copies
min.insync.replicas=$enough
offsets.topic.replication.factor=$copies
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$enough
group.initial.rebalance.delay.ms=0
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$enough
END
  # Several nodes miss one of them within seconds.
  [ "$node" -eq 1 ] || cat >>"$dir/server.properties" <<END
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.timeout.ms=500
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
  kill) stop_pid "$2/pid" KILL 15 ;;
  *) fail "start DIR PORT CONTROLLER_PORT [BEHIND PROXY [ID CONTROLLERS]], stop DIR, or kill DIR" ;;
esac
