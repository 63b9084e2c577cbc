#!/usr/bin/env bash
# Fetches the vendors' own libraries into .dev/peers, and lets them meet ours.
. "$(dirname "$0")/common.sh"
twilio_python=9.13.0
twilio_node=6.2.0
slack_python=3.48.0
slack_node=7.9.3
slack_socket_node=2.0.7
pywa_python=4.5.0
telegram_python=22.8
line_python=3.27.0

peers=$repository/.dev/peers
mkdir -p "$peers"
if [ ! -x "$peers/venv/bin/python" ]; then
  python3 -m venv "$peers/venv" || fail "no venv: apt-get install python3-venv"
fi
"$peers/venv/bin/pip" install --quiet --disable-pip-version-check "twilio==$twilio_python" "slack_sdk==$slack_python" \
  "pywa==$pywa_python" "python-telegram-bot==$telegram_python" "line-bot-sdk==$line_python" ||
  fail "pip could not fetch the libraries for Python"
npm install --silent --no-save --no-fund --no-audit --prefix "$peers" "twilio@$twilio_node" \
  "@slack/web-api@$slack_node" "@slack/socket-mode@$slack_socket_node" ||
  fail "npm could not fetch twilio and @slack"
cd "$repository"
cargo build --quiet --workspace --bins
exec target/debug/peers
