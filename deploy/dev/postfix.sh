#!/usr/bin/env bash
# Postfix on loopback: takes mail for the boxes, says in Authentication-Results
# whether the sender is verified, and hands it to Dovecot.
#   postfix.sh start DIR SMTP_PORT LMTP_PORT BOXES
#   postfix.sh stop DIR
. "$(dirname "$0")/common.sh"

start() {
  local dir=$1 port=$2 lmtp=$3 boxes=$4 etc=$1/etc domains
  need_root "Postfix drops its rights itself"
  command -v postfix >/dev/null || fail "no Postfix here: run make deps"
  mkdir -p "$etc" "$dir/spool" "$dir/data"
  chmod 755 "$dir"
  chown postfix "$dir/data"
  domains=$(awk '!/^#/ && NF { sub(/.*@/, "", $1); print $1 }' "$boxes" | sort -u | paste -sd ' ')
  awk '!/^#/ && NF { print $1 " x" }' "$boxes" >"$etc/boxes"
  {
    awk '!/^#/ && $2 == "verified" { print $1 }' "$boxes" | sed 's/[.+]/\\&/g; s/\//\\\//g' | while read -r sender; do
      plain=${sender//\\/}
      echo "/^$sender\$/ PREPEND Authentication-Results: mail.test; dmarc=pass header.from=${plain#*@}; spf=pass smtp.mailfrom=$plain"
    done
    echo '/^<>$/ DUNNO'
    # shellcheck disable=SC2016
    echo '/^(.+@(.+))$/ PREPEND Authentication-Results: mail.test; dmarc=fail header.from=$2; spf=fail smtp.mailfrom=$1'
  } >"$etc/verified.re"
  cat >"$etc/main.cf" <<END
compatibility_level = 3.6
queue_directory = $dir/spool
data_directory = $dir/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
virtual_mailbox_domains = $domains
virtual_mailbox_maps = hash:$etc/boxes
virtual_transport = lmtp:inet:127.0.0.1:$lmtp
recipient_delimiter = +
lmtp_destination_recipient_limit = 1
message_size_limit = 60000000
mailbox_size_limit = 0
header_size_limit = 4000000
in_flow_delay = 0
maillog_file = $dir/log
maillog_file_prefixes = $dir
smtpd_recipient_restrictions = reject_unauth_destination, permit_mynetworks, reject
smtpd_data_restrictions = check_sender_access regexp:$etc/verified.re
smtpd_client_connection_count_limit = 0
queue_run_delay = 3s
minimal_backoff_time = 3s
maximal_backoff_time = 3s
END
  postmap -c "$etc" "hash:$etc/boxes"
  sed "s/^smtp      inet.*/127.0.0.1:$port inet n - n - - smtpd/" /usr/share/postfix/master.cf.dist |
    awk '/^[^# ]/ && NF >= 8 { $5 = "n" } { print }' |
    grep -vE '^#|^(maildrop|uucp|ifmail|bsmtp|scalemail-backend|mailman)|^ +flags' >"$etc/master.cf"
  setsid postfix -c "$etc" start </dev/null >>"$dir/start.log" 2>&1 || fail "cannot start, see $dir/start.log"
  cp "$dir/spool/pid/master.pid" "$dir/pid"
  wait_port "$port" 15 "$dir/log"
}

case ${1:-} in
  start) start "$2" "$3" "$4" "$5" ;;
  stop) stop_pid "$2/pid" TERM 10 ;;
  *) fail "start DIR SMTP_PORT LMTP_PORT BOXES, or stop DIR" ;;
esac
