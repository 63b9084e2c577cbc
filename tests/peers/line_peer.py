"""line-bot-sdk verifies how we think that LINE signs, reads what we take for its events,
and speaks to our LINE."""
import base64
import hashlib
import hmac
import http.server
import os
import pathlib
import threading
import urllib.error
import urllib.request
import uuid

from linebot.v3 import WebhookParser
from linebot.v3.messaging import (ApiClient, ApiException, Configuration, MessagingApi, MessagingApiBlob,
                                  PushMessageRequest, ReplyMessageRequest, SetWebhookEndpointRequest,
                                  TestWebhookEndpointRequest, TextMessage)
from linebot.v3.webhook import SignatureValidator

HOOK, API, TESTDATA = os.environ["HOOK"], os.environ["API"], os.environ["TESTDATA"]
SECRET, TOKEN, REPLY_TOKEN, USER = (os.environ[name] for name in ("SECRET", "TOKEN", "REPLY_TOKEN", "USER"))


def check(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"
    print(f"python: {what}: {found}")


def post(body, signature):
    headers = {"Content-Type": "application/json", "X-Line-Signature": signature}
    request = urllib.request.Request(HOOK, data=body.encode(), headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def signed(secret, body):
    signature = base64.b64encode(hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest()).decode()
    assert SignatureValidator(secret).validate(body, signature)
    return signature


parser = WebhookParser(SECRET)
for file in sorted(pathlib.Path(TESTDATA).glob("*.json")):
    body = file.read_text()
    events = parser.parse(body, signed(SECRET, body))
    if file.stem != "unknown":
        assert not any(type(event).__name__ == "UnknownEvent" for event in events), file
    check(f"{file.stem} is a webhook, and taken", post(body, signed(SECRET, body)), 200)
check("another secret", post(body, signed("another", body)), 401)
check("another body", post(body + " ", signed(SECRET, body)), 401)

taken = []


class Ours(http.server.BaseHTTPRequestHandler):
    """Takes a webhook of our LINE's."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        taken.append(parser.parse(body, self.headers["x-line-signature"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Ours)
threading.Thread(target=server.serve_forever, daemon=True).start()
own = f"http://127.0.0.1:{server.server_port}/"
client = ApiClient(Configuration(host=API, access_token=TOKEN))
api = MessagingApi(client)
check("our LINE names its bot", api.get_bot_info().basic_id, "@216ru")
api.set_webhook_endpoint(SetWebhookEndpointRequest(endpoint=own))
check("it keeps where webhooks go", api.get_webhook_endpoint().endpoint, own)
tried = api.test_webhook_endpoint(TestWebhookEndpointRequest(endpoint=own))
check("it tries that", (tried.success, taken), (True, [[]]))

hello = TextMessage(text="Hello")
sent = api.reply_message(ReplyMessageRequest(reply_token=REPLY_TOKEN, messages=[hello]))
check("it takes a reply", len(sent.sent_messages), 1)
key = str(uuid.uuid4())
push = PushMessageRequest(to=USER, messages=[hello])
sent = api.push_message(push, x_line_retry_key=key)
check("it takes a push", len(sent.sent_messages), 1)
refusals = [
    ("the same push again", 409, lambda: api.push_message(push, x_line_retry_key=key)),
    ("a used token", 400, lambda: api.reply_message(ReplyMessageRequest(reply_token=REPLY_TOKEN, messages=[hello]))),
    ("a push to nobody", 400, lambda: api.push_message(PushMessageRequest(to="nobody", messages=[hello]))),
    ("another token", 401, lambda: MessagingApi(ApiClient(Configuration(host=API, access_token="x"))).get_bot_info()),
]
for what, status, ask in refusals:
    try:
        ask()
        raise AssertionError(f"our LINE takes {what}")
    except ApiException as error:
        check(f"our LINE refuses {what}", error.status, status)
files = MessagingApiBlob(ApiClient(Configuration(host=API, access_token=TOKEN)))
check("a film is ready", files.get_message_content_transcoding_by_message_id("17").status, "succeeded")
check("a file", bytes(files.get_message_content("17"))[:4], b"\xff\xd8\xff\xe0")
