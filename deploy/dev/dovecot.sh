#!/usr/bin/env bash
# Dovecot (IMAP, and LMTP for Postfix) on loopback; every password is "secret".
#   dovecot.sh start DIR IMAP_PORT LMTP_PORT BOXES
#   dovecot.sh stop DIR
# BOXES is a file with one mailbox a line, see deploy/dev/boxes. Mail lies in
# DIR/mail/<domain>/<name>/{new,cur}.
. "$(dirname "$0")/common.sh"

start() {
  local dir=$1 imap=$2 lmtp=$3 boxes=$4
  need_root "Dovecot delivers for several users"
  command -v dovecot >/dev/null || fail "no Dovecot here: run make deps"
  mkdir -p "$dir/mail"
  chmod 755 "$dir"
  chown dovecot:dovecot "$dir/mail"
  # A box that is gone is known to Postfix only: mail to it bounces.
  awk '!/^#/ && NF && $2 != "gone" { print $1 ":{PLAIN}secret::::::" }' "$boxes" >"$dir/users"
  chmod 644 "$dir/users"
  cat >"$dir/dovecot.conf" <<END
base_dir = $dir/run
state_dir = $dir/state
log_path = $dir/log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = maildir:$dir/mail/%d/%n
recipient_delimiter = +
first_valid_uid = 1
mail_uid = dovecot
mail_gid = dovecot
mail_max_userip_connections = 100
passdb {
  driver = passwd-file
  args = username_format=%u $dir/users
}
userdb {
  driver = passwd-file
  args = username_format=%u $dir/users
  default_fields = uid=dovecot gid=dovecot home=$dir/mail/%d/%n
}
service imap-login {
  service_count = 0
  process_min_avail = 1
  inet_listener imap {
    port = $imap
  }
  inet_listener imaps {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = $lmtp
  }
}
END
  setsid dovecot -c "$dir/dovecot.conf" </dev/null >>"$dir/start.log" 2>&1 || fail "cannot start, see $dir/start.log"
  # It writes its id only after it has gone to the background.
  local deadline=$((SECONDS + 15))
  until [ -s "$dir/run/master.pid" ] && cp "$dir/run/master.pid" "$dir/pid"; do
    ((SECONDS < deadline)) || fail "Dovecot does not come up, see $dir/log"
    sleep 0.02
  done
  wait_port "$imap" 15 "$dir/log"
  wait_port "$lmtp" 15 "$dir/log"
}

case ${1:-} in
  start) start "$2" "$3" "$4" "$5" ;;
  stop) stop_pid "$2/pid" TERM 10 ;;
  *) fail "start DIR IMAP_PORT LMTP_PORT BOXES, or stop DIR" ;;
esac
