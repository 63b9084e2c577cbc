"""Slack's library for Python signs what we verify, parses what our Slack says, and
understands our Slack's sockets."""
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse

HOOK, API, SECRET = os.environ["HOOK"], os.environ["API"], os.environ["SECRET"]
BOT_TOKEN, APP_TOKEN = os.environ["BOT_TOKEN"], os.environ["APP_TOKEN"]


def check(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"
    print(f"python: {what}: {found}")


def post(what, body, expected, media_type="application/json", secret=SECRET, age=0, signed=None):
    timestamp = str(int(time.time()) - age)
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=signed or body)
    headers = {"Content-Type": media_type, "X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": signature}
    request = urllib.request.Request(HOOK, data=body.encode(), headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, ""
    check(what, status, expected)
    return text


def event(number, text):
    ts = f"17800000{number:02}.000100"
    message = {"type": "message", "channel": "D1", "channel_type": "im", "user": "U1", "text": text, "ts": ts}
    return json.dumps({"type": "event_callback", "team_id": "T1", "api_app_id": "A1", "event_id": f"Ev{number}",
                       "event_time": 1780000000, "event": message}, ensure_ascii=False)


post("a message", event(1, "Hello"), 200)
post("signs of all kinds", event(2, "Grüße & 100% +1 😀 = ?\r\n\t;/#"), 200)
challenge = post("the challenge", json.dumps({"type": "url_verification", "challenge": "c0ffee"}), 200)
check("is answered", challenge, "c0ffee")
form = "application/x-www-form-urlencoded"
command = urllib.parse.urlencode({"command": "/help", "text": "order #42 ü", "user_id": "U1", "trigger_id": "1.2"})
post("a command", command, 200, form)
post("another secret", event(3, "Hello"), 401, secret="another")
post("another body", event(3, "Hello"), 401, signed=event(4, "Hello"))
post("from long ago", event(3, "Hello"), 401, age=301)

client = WebClient(token=BOT_TOKEN, base_url=API)
check("our Slack knows us", client.auth_test()["user"], "support")
channel = client.conversations_open(users="U7")["channel"]["id"]
check("our Slack opens direct messages", channel, "D7")
posted = client.chat_postMessage(channel=channel, text="Hello", metadata={"event_type": "a", "event_payload": {}})
check("our Slack takes a message", (posted["ok"], posted["channel"], "." in posted["ts"]), (True, "D7", True))
shared = client.files_upload_v2(channel="C8", filename="a.txt", content="hello")
check("our Slack takes a file", shared["ok"], True)
for fields, expected in [({"channel": "CGONE"}, "channel_not_found"), ({"text": ""}, "no_text"),
                         ({"text": "x" * 40_001}, "msg_too_long")]:
    try:
        client.chat_postMessage(**{"channel": "C9", "text": "Hello", **fields})
        raise AssertionError("our Slack takes what Slack refuses")
    except SlackApiError as error:
        check("our Slack refuses", error.response["error"], expected)
try:
    WebClient(token="xoxb-another", base_url=API).auth_test()
    raise AssertionError("our Slack takes any token")
except SlackApiError as error:
    check("our Slack refuses", error.response["error"], "invalid_auth")

heard, told = threading.Event(), []


def listen(socket, request):
    told.append((request.type, request.payload["event"]["text"]))
    socket.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
    heard.set()


socket = SocketModeClient(app_token=APP_TOKEN, web_client=client)
socket.socket_mode_request_listeners.append(listen)
socket.connect()
assert heard.wait(20), "nothing came over the socket"
check("our socket tells", told[0], ("events_api", "Hello"))
time.sleep(0.5)
socket.close()
