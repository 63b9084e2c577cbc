// Slack's libraries for Node parse what our Slack says, and understand its sockets.
const { WebClient } = require("@slack/web-api");
const { SocketModeClient } = require("@slack/socket-mode");

const { API, BOT_TOKEN, APP_TOKEN } = process.env;

function check(what, found, expected) {
  if (found !== expected) throw new Error(`${what}: ${found}, not ${expected}`);
  console.log(`node: ${what}: ${found}`);
}

(async () => {
  const client = new WebClient(BOT_TOKEN, { slackApiUrl: API, retryConfig: { retries: 0 } });
  check("our Slack knows us", (await client.auth.test()).user, "support");
  const opened = await client.conversations.open({ users: "U17" });
  check("our Slack opens direct messages", opened.channel.id, "D17");
  const posted = await client.chat.postMessage({ channel: "D17", text: "Hello" });
  check("our Slack takes a message", posted.ok && posted.channel, "D17");
  const shared = await client.files.uploadV2({ channel_id: "C18", filename: "a.txt", content: "hello" });
  check("our Slack takes a file", shared.ok, true);
  for (const [channel, expected] of [["CGONE", "channel_not_found"], ["CARCHIVE", "is_archived"]]) {
    const refused = await client.chat.postMessage({ channel, text: "Hello" }).catch((error) => error.data.error);
    check("our Slack refuses", refused, expected);
  }
  const socket = new SocketModeClient({ appToken: APP_TOKEN, clientOptions: { slackApiUrl: API } });
  const told = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("nothing came over the socket")), 20_000).unref();
    socket.on("message", async ({ event, ack }) => {
      await ack();
      resolve(event.text);
    });
  });
  await socket.start();
  check("our socket tells", await told, "Hello");
  await socket.disconnect();
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
