"""pywa, a library for WhatsApp's API, checks and parses what our Meta says, and what it would have signed we verify."""
import hashlib
import hmac
import json
import os
import urllib.error
import urllib.request

import httpx
from pywa import WhatsApp, types, utils
from pywa.errors import WhatsAppError

HOOK, API, SECRET = os.environ["HOOK"], os.environ["API"], os.environ["SECRET"]
TOKEN, NUMBER, BUSINESS = os.environ["TOKEN"], os.environ["NUMBER"], os.environ["BUSINESS"]
SAID, SIGNATURE = os.environ["SAID"].encode(), os.environ["SIGNATURE"]


def check(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"
    print(f"python: {what}: {found}")


def post(body, signature):
    headers = {"Content-Type": "application/json", utils.HUB_SIG: signature}
    try:
        with urllib.request.urlopen(urllib.request.Request(HOOK, data=body, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def signed(body):
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert utils.webhook_updates_validator(SECRET, body, signature), "pywa does not take its own signature"
    return signature


# What pywa takes for signed, we take; and what our Meta signs, pywa does.
check("signed as it stands", post(SAID, signed(SAID)), 200)
check("another body", post(SAID + b" ", signed(SAID)), 401)
plain = json.dumps(json.loads(SAID), ensure_ascii=False).encode()
check("the same JSON in UTF-8", post(plain, signed(plain)), 200)
check("the same JSON under the first signature", post(plain, signed(SAID)), 401)
check("our Meta's signature", utils.webhook_updates_validator(SECRET, SAID, SIGNATURE), True)


class OurMeta(httpx.HTTPTransport):
    """Sends to our server what was meant for Meta's."""

    def handle_request(self, request):
        there = httpx.URL(API)
        request.url = request.url.copy_with(scheme="http", host=there.host, port=there.port)
        request.headers["Host"] = f"{there.host}:{there.port}"
        return super().handle_request(request)


client = WhatsApp(phone_id=NUMBER, token=TOKEN, waba_id=BUSINESS, api_version=25.0,
                  session=httpx.Client(transport=OurMeta()))
message = types.Message.from_update(client, json.loads(SAID))
check("our Meta's message", (message.text, message.from_user.wa_id), ("Grüße! 🚲", "15552223333"))
sent = client.send_message(to="15552223333", text="Hello", tracker="peer")
check("our Meta takes a message", sent.id.startswith("wamid."), True)
file = client.upload_media(b"%PDF-1.7", mime_type="application/pdf", filename="a.pdf")
check("our Meta takes a file", client.send_document(to="15552223333", document=file, filename="a.pdf",
                                                     mime_type="application/pdf", tracker="peer").id.startswith("wamid."), True)
url = client.get_media_url("300000000000003")
check("our Meta has a file", url.mime_type, "image/png")
for fields, code in [({"to": "15559999999"}, 131047), ({"text": "x" * 4097}, 100)]:
    try:
        client.send_message(**{"to": "15552223333", "text": "Hello", "tracker": "peer", **fields})
        raise AssertionError("our Meta takes what Meta refuses")
    except WhatsAppError as error:
        check("our Meta refuses", error.error_code if hasattr(error, "error_code") else error.code, code)
