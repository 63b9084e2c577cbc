// Twilio's library for Node signs what we verify.
const crypto = require("node:crypto");
const { getExpectedTwilioSignature } = require("twilio/lib/webhooks/webhooks");

const { HOOK, TOKEN, NUMBER } = process.env;
const form = "application/x-www-form-urlencoded";
let number = 0;

async function check(what, url, body, type, signature, expected) {
  const headers = { "content-type": type, "x-twilio-signature": signature };
  const { status } = await fetch(url, { method: "POST", headers, body });
  if (status !== expected) throw new Error(`${what}: ${status}, not ${expected}`);
  console.log(`node: ${what}: ${status}`);
}

function message(body) {
  number += 1;
  const sid = `SM${String(1000 + number).padStart(32, "0")}`;
  return { MessageSid: sid, SmsStatus: "received", From: "+15552223333", To: NUMBER, Body: body };
}

async function post(what, fields, token, expected) {
  const signature = getExpectedTwilioSignature(token, HOOK, fields);
  await check(what, HOOK, new URLSearchParams(fields).toString(), form, signature, expected);
}

(async () => {
  await post("a message", message("Hello"), TOKEN, 200);
  await post("signs of all kinds", message("Grüße & 100% +1 😀 = ?\r\n;/#"), TOKEN, 200);
  await post("another token", message("Hello"), "another", 401);
  const text = '{"a":1,"b":"é"}';
  const url = `${HOOK}?bodySHA256=${crypto.createHash("sha256").update(text).digest("hex")}`;
  const signature = getExpectedTwilioSignature(TOKEN, url, {});
  await check("JSON, kept", url, text, "application/json", signature, 200);
  await check("JSON of somebody else", url, `${text} `, "application/json", signature, 401);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
