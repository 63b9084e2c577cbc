//! The vendors' webhooks against plain ones: what their signatures and payloads cost
//! the gateway. Each is measured in turns with the plain one, so that both meet the
//! same machine; what counts is the slowest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use tests::harness::settings;
use tests::vendors::telegram::{self, Telegram};
use tests::vendors::twilio::{self, Form};
use tests::vendors::{line, meta, slack};

use crate::Row;
use crate::load::{Make, saturate, saturate_with};
use crate::site::Site;

const CONNECTIONS: usize = 256;
/// Of one measurement, and how many of them are taken of each.
const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

/// How the site is called by vendors who sign that.
const PUBLIC_URL: &str = "https://desk.example.com";
/// What people write.
const TEXT: &str = "Good morning! My bike has not come yet, though the mail of last week said that it would be \
    here on Tuesday at the latest. The order has the number 4711-0815. Could you please have a look? Thank you!";

/// A webhook of a vendor.
struct Vendor {
    channel: &'static str,
    /// Media type, header of the signature, its value and the body of the n-th one.
    post: fn(u64) -> Post,
}

struct Post {
    media_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

const VENDORS: &[Vendor] = &[
    Vendor {
        channel: "sms",
        post: sms,
    },
    Vendor {
        channel: "voice",
        post: voice,
    },
    Vendor {
        channel: "whatsapp",
        post: whatsapp,
    },
    Vendor {
        channel: "messenger",
        post: messenger,
    },
    Vendor {
        channel: "instagram",
        post: instagram,
    },
    Vendor {
        channel: "telegram",
        post: telegram,
    },
    Vendor {
        channel: "line",
        post: line,
    },
    Vendor {
        channel: "slack",
        post: slack,
    },
];

/// The settings of an account for each, named like its channel. Nothing is sent to
/// where they would be.
pub fn accounts() -> String {
    let of = |Vendor { channel, .. }: &Vendor| {
        settings::vendor(channel, channel, 9).replace(&format!("queue = \"{channel}\"\n"), "")
    };
    VENDORS.iter().map(of).collect()
}

/// Measures all of them at the gateway of this site.
pub async fn measure(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    let mut gateway = site.start_called("gateway", PUBLIC_URL).await?;
    let target = site.target()?;
    saturate(&target, 64, TIME).await?;
    let mut worst = f64::INFINITY;
    for vendor in VENDORS {
        let make = requests(vendor, site.public);
        let (mut plain, mut theirs) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            plain += saturate(&target, CONNECTIONS, TIME).await?.requests;
            theirs += saturate_with(site.public, &make, CONNECTIONS, TIME).await?.requests;
        }
        let ratio = theirs / plain;
        let rate = theirs / (TIME * ROUNDS as u32).as_secs_f64();
        println!("webhooks of {}: {rate:.0}/s, {ratio:.2} of plain ones", vendor.channel);
        worst = worst.min(ratio);
        rows.push(Row::plain(format!("webhooks_{}", vendor.channel), ratio, ""));
    }
    rows.push(Row::at_least("webhooks_vs_webhook", worst, "", 0.6));
    gateway.terminate().await?;
    Ok(())
}

/// Its requests, each with an id of its own.
fn requests(vendor: &Vendor, address: SocketAddr) -> Make {
    let (channel, post, next) = (
        vendor.channel,
        vendor.post,
        AtomicU64::new(since_epoch().as_micros() as u64),
    );
    Arc::new(move || {
        let Post {
            media_type,
            headers,
            body,
        } = post(next.fetch_add(1, Ordering::Relaxed));
        let mut request = format!(
            "POST /in/{channel} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        Ok(request.into_bytes())
    })
}

fn sms(n: u64) -> Post {
    let form = Form::default().with(&[
        ("AccountSid", twilio::ACCOUNT_SID),
        ("ApiVersion", "2010-04-01"),
        ("Body", TEXT),
        ("From", &number(n)),
        ("FromCity", "SAN FRANCISCO"),
        ("FromCountry", "US"),
        ("FromState", "CA"),
        ("FromZip", "94103"),
        ("MessageSid", &format!("SM{n:032x}")),
        ("NumMedia", "0"),
        ("NumSegments", "2"),
        ("SmsMessageSid", &format!("SM{n:032x}")),
        ("SmsSid", &format!("SM{n:032x}")),
        ("SmsStatus", "received"),
        ("To", twilio::OUR_NUMBER),
        ("ToCity", "NEW YORK"),
        ("ToCountry", "US"),
        ("ToState", "NY"),
        ("ToZip", "10001"),
    ]);
    of_twilio("sms", &form)
}

fn voice(n: u64) -> Post {
    let form = Form::default().with(&[
        ("AccountSid", twilio::ACCOUNT_SID),
        ("ApiVersion", "2010-04-01"),
        ("CallDuration", "42"),
        ("CallSid", &format!("CA{n:032x}")),
        ("CallStatus", "completed"),
        ("CallbackSource", "call-progress-events"),
        ("Called", twilio::OUR_NUMBER),
        ("Caller", &number(n)),
        ("Direction", "inbound"),
        ("Duration", "1"),
        ("From", &number(n)),
        ("FromCity", "SAN FRANCISCO"),
        ("FromCountry", "US"),
        ("SequenceNumber", "3"),
        ("Timestamp", "Tue, 24 Nov 2026 10:00:42 +0000"),
        ("To", twilio::OUR_NUMBER),
        ("ToCity", "NEW YORK"),
        ("ToCountry", "US"),
    ]);
    of_twilio("voice", &form)
}

fn of_twilio(account: &str, form: &Form) -> Post {
    let url = format!("{PUBLIC_URL}/in/{account}");
    Post {
        media_type: "application/x-www-form-urlencoded; charset=UTF-8",
        headers: vec![
            ("x-twilio-signature", twilio::sign(twilio::TOKEN, &url, form)),
            (
                "i-twilio-idempotency-token",
                "0f1c2d3e-4b5a-6978-8796-a5b4c3d2e1f0".to_owned(),
            ),
        ],
        body: form.encoded(),
    }
}

fn whatsapp(n: u64) -> Post {
    let text = json!({ "body": TEXT });
    let id = format!("wamid.HBgLM{n:020}");
    of_meta(&meta::whatsapp_message(&id, &number(n)[1..], "text", &text, 0))
}

fn messenger(n: u64) -> Post {
    let message = json!({ "mid": format!("m_AG5Hz2Uq7t{n:030}"), "text": TEXT });
    let event = meta::event(meta::PAGE_ID, &format!("73{n:014}"), "message", &message, 0);
    of_meta(&meta::messenger(&[event]))
}

fn instagram(n: u64) -> Post {
    let message = json!({ "mid": format!("aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlE{n:030}"), "text": TEXT });
    let event = meta::event(meta::INSTAGRAM_ID, &format!("17{n:014}"), "message", &message, 0);
    of_meta(&meta::instagram(&[event]))
}

fn of_meta(posted: &Value) -> Post {
    let body = posted.to_string();
    Post {
        media_type: "application/json",
        headers: vec![("x-hub-signature-256", meta::sign(meta::APP_SECRET, &body))],
        body,
    }
}

fn telegram(n: u64) -> Post {
    let mut update = Telegram::message(n as i64 / 10, n as i64, json!({ "text": TEXT }));
    update["update_id"] = json!(n);
    Post {
        media_type: "application/json",
        headers: vec![("x-telegram-bot-api-secret-token", telegram::SECRET.to_owned())],
        body: update.to_string(),
    }
}

fn line(n: u64) -> Post {
    let user = format!("U{:032x}", n / 10);
    let message =
        json!({ "id": n.to_string(), "type": "text", "text": TEXT, "quoteToken": format!("q3Plxr4AgKd{n:020}") });
    let event = json!({ "type": "message", "mode": "active", "timestamp": since_epoch().as_millis() as u64,
        "source": { "type": "user", "userId": user }, "webhookEventId": format!("01KD{n:022}"),
        "deliveryContext": { "isRedelivery": false }, "replyToken": format!("{n:032x}"), "message": message });
    let body = json!({ "destination": line::BOT, "events": [event] }).to_string();
    Post {
        media_type: "application/json; charset=utf-8",
        headers: vec![("x-line-signature", line::sign(line::SECRET, body.as_bytes()))],
        body,
    }
}

fn slack(n: u64) -> Post {
    let ts = format!("{}.{:06}", n / 1_000_000, n % 1_000_000);
    let body = slack::event(&n.to_string(), slack::direct(&format!("U{}", n / 10), &ts, TEXT)).to_string();
    let timestamp = since_epoch().as_secs();
    Post {
        media_type: "application/json",
        headers: vec![
            ("x-slack-request-timestamp", timestamp.to_string()),
            (
                "x-slack-signature",
                slack::sign(slack::SIGNING_SECRET, timestamp, &body),
            ),
        ],
        body,
    }
}

/// Everybody writes ten times.
fn number(n: u64) -> String {
    format!("+1555{:07}", n / 10 % 10_000_000)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
