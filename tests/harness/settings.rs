//! The settings of a world, written as an operator would.

use super::customer::SECRET;
use crate::vendors::twilio::{ACCOUNT_SID, OUR_NUMBER, TOKEN};
use crate::vendors::{self, meta, slack};

/// Mailboxes of ours, by name; each is an account and a queue of that name.
pub const MAILBOXES: &[&str] = &[
    "support", "it", "sales", "auto", "poison", "murky", "load", "hot", PROXIED,
];

/// The mailbox that is read through a proxy.
pub const PROXIED: &str = "faulty";

/// Accounts that take webhooks; each is a queue of that name.
pub const WEBHOOKS: &[&str] = &[
    "hooks",
    "storm",
    "crash",
    "refused",
    "bad",
    "talk",
    "files",
    "faulty-hooks",
];

/// Accounts of web chat; each is a queue of that name.
pub const CHATS: &[&str] = &["chat", "crowd", "strict", "help", "faulty-chat", WAYS];

/// The queue in which a person meets the desk on many ways, and its chat.
const WAYS: &str = "ways";

/// Accounts at vendors, by name and channel; each is a queue of that name, and has a
/// port where its story lets the vendor's server listen. Those of the many ways share one.
pub const VENDORS: &[(&str, &str)] = &[
    ("phone", "sms"),
    ("mended", "sms"),
    ("line", "voice"),
    ("faulty-sms", "sms"),
    ("hotline", "voice"),
    ("line-mended", "voice"),
    ("ways-line", "voice"),
    ("ways-sms", "sms"),
    ("ways-wa", "whatsapp"),
    ("slack", "slack"),
    ("slack-wrong", "slack"),
    (SLACK_SOCKET, "slack"),
    ("bot", "telegram"),
    ("mended-bot", "telegram"),
    ("wa", "whatsapp"),
    ("wa-mended", "whatsapp"),
    ("page", "messenger"),
    ("page-mended", "messenger"),
    ("insta", "instagram"),
    ("insta-mended", "instagram"),
    ("friends", "line"),
    ("mended-friends", "line"),
];

/// The account that listens to Slack over a socket.
pub const SLACK_SOCKET: &str = "slack-socket";

/// Customers whom Postfix vouches for.
pub const CUSTOMERS: &[&str] = &["anna", "ben", "carla", "dora", "emil", "frida", "gina", "hanna", "ida"];

/// The domain of ours in a world of this name.
pub fn our_domain(world: &str) -> String {
    format!("{world}.example.org")
}

/// The domain of its customers.
pub fn their_domain(world: &str) -> String {
    format!("{world}.example.com")
}

/// The mailbox list for a world, see `deploy/dev/boxes`.
pub fn boxes(world: &str) -> String {
    let (ours, theirs) = (our_domain(world), their_domain(world));
    let mut text = String::new();
    for name in MAILBOXES.iter().chain(&["other"]) {
        text.push_str(&format!("{name}@{ours}\n"));
    }
    text.push_str(&format!(
        "erika@{ours} verified\nstranger@{theirs}\ngone@{theirs} gone\n"
    ));
    for name in CUSTOMERS {
        text.push_str(&format!("{name}@{theirs} verified\n"));
    }
    text
}

/// One e-mail account.
pub fn mailbox(name: &str, domain: &str, imap_port: u16, smtp_port: u16) -> String {
    format!(
        r#"
[[accounts]]
name = "{name}"
channel = "email"
queue = "{name}"
address = "{name}@{domain}"
imap = {{ host = "127.0.0.1", port = {imap_port}, tls = "none", user = "{name}@{domain}", password = "secret" }}
smtp = {{ host = "127.0.0.1", port = {smtp_port}, tls = "none" }}
trusted_authserv_ids = ["mail.test"]
plus_address = {plus}
"#,
        plus = name == "support"
    )
}

/// One webhook account. `deliver_url` is where its answers go.
pub fn webhook(name: &str, deliver_url: Option<&str>) -> String {
    // What the stories serve is on this machine.
    let fetch = match name {
        "files" => "fetch_private = true\n",
        _ => "",
    };
    let deliver = deliver_url.map(|url| format!("deliver_url = \"{url}\"\nallow_private = true\n"));
    format!(
        r#"
[[accounts]]
name = "{name}"
channel = "webhook"
queue = "{name}"
secrets = ["{SECRET}"]
{fetch}{}"#,
        deliver.unwrap_or_default()
    )
}

/// One chat account. `strict` keeps the default limits, `help` answers by mail whoever
/// has left; the others let a whole crowd
/// come from the one address of a test.
pub fn chat(name: &str) -> String {
    let more = match name {
        "strict" => "allowed_origins = [\"https://www.example.com\"]".to_owned(),
        "help" => "mail_account = \"support\"\nresume_url = \"https://www.example.com/help\"".to_owned(),
        _ => "limits = { messages_a_minute = 6000, frames_a_second = 1000, sockets_an_address = 10000, \
              connects_a_minute = 100000 }"
            .to_owned(),
    };
    format!(
        r#"
[[accounts]]
name = "{name}"
channel = "chat"
queue = "{name}"
away_after_seconds = 3
jwt = {{ algorithm = "HS256", key = "{SITE_SECRET}", verifies_phone = {} }}
{more}
"#,
        name == WAYS
    )
}

/// One account at a vendor, whose server listens at this port.
pub fn vendor(name: &str, channel: &str, port: u16) -> String {
    let own = match channel {
        "sms" | "voice" => twilio(name, channel),
        "whatsapp" | "messenger" | "instagram" => at_meta(name, channel),
        "slack" => slack(name),
        "telegram" => telegram(name),
        "line" => line(name),
        _ => String::new(),
    };
    let queue = if name.starts_with(WAYS) { WAYS } else { name };
    format!(
        r#"
[[accounts]]
name = "{name}"
channel = "{channel}"
queue = "{queue}"
api_url = "http://127.0.0.1:{port}"
allow_private = true
{own}"#
    )
}

/// What an account has instead of its secret whose story mends it.
pub const WRONG: &str = "a wrong token";
/// The same for Telegram, which takes only some characters.
pub const WRONG_BOT_SECRET: &str = "a_wrong_secret_of_nobody";

fn at_meta(name: &str, channel: &str) -> String {
    let secret = if name.ends_with("mended") {
        WRONG
    } else {
        meta::APP_SECRET
    };
    let own = match channel {
        "whatsapp" => format!(
            "phone_number_id = \"{}\"\nbusiness_account_id = \"{}\"\n",
            meta::NUMBER_ID,
            meta::BUSINESS_ID
        ),
        "messenger" => format!(
            "page_id = \"{}\"\napp_id = \"{}\"\nhuman_agent = true\n",
            meta::PAGE_ID,
            meta::APP_ID
        ),
        _ => format!("instagram_id = \"{}\"\nhuman_agent = true\n", meta::INSTAGRAM_ID),
    };
    format!(
        "app_secrets = [\"{secret}\"]\nverify_token = \"{}\"\naccess_token = \"{}\"\nper_second = 100\n{own}",
        meta::VERIFY_TOKEN,
        meta::ACCESS_TOKEN
    )
}

fn twilio(name: &str, channel: &str) -> String {
    let token = if name.ends_with("mended") { WRONG } else { TOKEN };
    let greeting = match channel {
        "voice" if name == "hotline" => "forward_to = \"+15550002222\"\n",
        "voice" => {
            "greeting = \"Welcome to Tributary & friends.\"\nvoicemail = \"Speak after the tone.\"\ntranscribe = true\n"
        }
        _ => "",
    };
    format!(
        "account_sid = \"{ACCOUNT_SID}\"\nauth_tokens = [\"{token}\"]\nnumber = \"{OUR_NUMBER}\"\nper_second = 100\n{greeting}"
    )
}

fn slack(name: &str) -> String {
    let way = match name {
        SLACK_SOCKET => format!("mode = \"socket\"\napp_token = \"{}\"", slack::APP_TOKEN),
        "slack-wrong" => format!("signing_secrets = [\"{WRONG}\"]"),
        _ => format!("signing_secrets = [\"{}\"]", slack::SIGNING_SECRET),
    };
    format!("bot_token = \"{}\"\nper_second = 100\n{way}\n", slack::BOT_TOKEN)
}

fn telegram(name: &str) -> String {
    let secret = match name {
        "mended-bot" => WRONG_BOT_SECRET,
        _ => vendors::telegram::SECRET,
    };
    format!(
        "token = \"{}\"\nusername = \"{}\"\ngroups = [-1001234567890]\nper_second = 100\nmode = \"webhook\"\nwebhook_secrets = [\"{secret}\"]\n",
        vendors::telegram::TOKEN,
        vendors::telegram::USERNAME
    )
}

fn line(name: &str) -> String {
    let secret = match name {
        "mended-friends" => WRONG,
        _ => vendors::line::SECRET,
    };
    format!(
        "channel_secrets = [\"{secret}\"]\naccess_token = \"{}\"\ngroups = [\"C00000000000000000000000000000009\"]\nper_second = 100\n",
        vendors::line::TOKEN
    )
}

/// What the site of the chats signs its users' tokens with.
pub const SITE_SECRET: &str = "the secret of the site in the stories";

/// Queues, calendar, promises, people and rules, the same in every world.
pub fn desk(world: &str) -> String {
    let mut text = String::new();
    let vendors: Vec<&str> = VENDORS.iter().map(|(name, _)| *name).collect();
    for name in MAILBOXES
        .iter()
        .chain(&["other"])
        .chain(WEBHOOKS)
        .chain(CHATS)
        .chain(&vendors)
    {
        text.push_str(&format!("\n[[queues]]\nname = \"{name}\"\npolicy = \"standard\"\n"));
    }
    text.push_str(
        r#"
[[calendars]]
name = "office"
time_zone = "Europe/Berlin"
holidays = ["2026-12-25", "2026-12-26", "2027-01-01"]
[calendars.hours]
mon = ["08:00-12:00", "13:00-17:00"]
tue = ["08:00-12:00", "13:00-17:00"]
wed = ["08:00-12:00", "13:00-17:00"]
thu = ["08:00-12:00", "13:00-17:00"]
fri = ["08:00-12:00", "13:00-16:00"]

[[policies]]
name = "standard"
calendar = "office"
first_response = "4h"
next_response = "6h"
resolution = "16h"

[[people]]
name = "agent"

[[rules]]
name = "employees report incidents"
when = { all = [
  { field = "account", operator = "is", value = "it" },
  { field = "sender.employee", operator = "is", value = true },
  { any = [
    { field = "subject", operator = "contains", value = "down" },
    { field = "text", operator = "contains", value = "nobody can work" },
  ] },
] }
then = { kind = "incident", impact = "high", urgency = "medium" }

[[rules]]
name = "answered calls are no work"
when = { field = "missed", operator = "is", value = false }
then = { kind = "none" }

[[rules]]
name = "confirm"
when = { any = [
  { field = "account", operator = "is", value = "auto" },
  { field = "account", operator = "is", value = "other" },
] }
then = { automatic_reply = "We have your message and call it {{ticket.number}}." }
"#,
    );
    format!("employee_domains = [\"{}\"]\n{text}", our_domain(world))
}
