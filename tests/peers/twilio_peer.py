"""Twilio's library for Python signs what we verify, and parses what our Twilio says."""
import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

HOOK, API = os.environ["HOOK"], os.environ["API"]
SID, TOKEN, NUMBER = os.environ["ACCOUNT_SID"], os.environ["TOKEN"], os.environ["NUMBER"]


def post(url, body, media_type, signature):
    headers = {"Content-Type": media_type, "X-Twilio-Signature": signature}
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def check(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"
    print(f"python: {what}: {found}")


class Fields(dict):
    """Fields of a form, some of them given twice, as the library takes them from Django and Flask."""

    def getlist(self, name):
        values = self[name]
        return values if isinstance(values, list) else [values]


FORM = "application/x-www-form-urlencoded; charset=UTF-8"
validator = RequestValidator(TOKEN)
number = 0


def form(what, url, fields, expected, token_validator=validator, signed_url=None):
    signature = token_validator.compute_signature(signed_url or url, Fields(fields))
    pairs = [(name, value) for name in fields for value in Fields(fields).getlist(name)]
    check(what, post(url, urllib.parse.urlencode(pairs).encode(), FORM, signature), expected)


def message(body):
    global number
    number += 1
    return {"MessageSid": f"SM{number:032d}", "SmsStatus": "received", "From": "+15552223333",
            "To": NUMBER, "Body": body, "NumMedia": "0", "Empty": ""}


form("a message", HOOK, message("Hello"), 200)
form("signs of all kinds", HOOK, message("Grüße & 100% +1 😀 = ?\r\n\t;/#"), 200)
form("a query", HOOK + "?a=%20b&c=d%2Fe&f", message("Hello"), 200)
form("fields given twice", HOOK, {**message("Hello"), "A": ["2", "1", "2"]}, 200)
host = urllib.parse.urlsplit(HOOK)
without_port = HOOK.replace(f":{host.port}", "")
form("signed without the port", HOOK, message("Hello"), 200, signed_url=without_port)
form("another token", HOOK, message("Hello"), 401, RequestValidator("another"))
form("another URL", HOOK, message("Hello"), 401, signed_url=HOOK + "/")
text = b'{"a": 1, "b": "\xc3\xa9"}'
url = f"{HOOK}?bodySHA256={hashlib.sha256(text).hexdigest()}"
signature = validator.compute_signature(url, {})
check("JSON, kept", post(url, text, "application/json", signature), 200)
check("JSON of somebody else", post(url, text + b" ", "application/json", signature), 401)


class OurTwilio(TwilioHttpClient):
    """Sends to our server what was meant for Twilio's."""

    def request(self, method, url, **more):
        return super().request(method, url.replace("https://api.twilio.com", API), **more)


client = Client(SID, TOKEN, http_client=OurTwilio())
sent = client.messages.create(to="+15552223333", from_=NUMBER, body="Hello")
check("our Twilio takes a message", sent.status, "queued")
for fields, code in [({"to": "nobody"}, 21211), ({"from_": "+15559999999"}, 21606), ({"body": "x" * 1601}, 21617)]:
    try:
        client.messages.create(**{"to": "+15552223333", "from_": NUMBER, "body": "Hello", **fields})
        raise AssertionError("our Twilio takes what Twilio refuses")
    except TwilioRestException as error:
        check("our Twilio refuses", error.code, code)
found = client.incoming_phone_numbers.list(phone_number=NUMBER)
check("our Twilio knows its number", found[0].phone_number, NUMBER)
