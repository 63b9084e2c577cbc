//! Text messages over Twilio: SMS and MMS, both ways. `README.md` says how an
//! account is set up.

mod parse;
mod send;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};
use serde::Deserialize;

use crate::channel::{BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::limit::Pace;
use crate::links::Links;
use crate::list::{AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::phone::is_number;
use crate::twilio::{self, Twilio, is_sid};

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The number that messages leave by, in the form of E.164.
    number: Option<String>,
    /// A messaging service (`MG…`) that chooses the number instead.
    messaging_service: Option<String>,
}

struct Sms {
    twilio: Twilio,
    sender: Sender,
    links: Links,
}

/// By what messages leave.
enum Sender {
    Number(String),
    Service(String),
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (twilio, settings) = Twilio::new::<Settings>(account, surroundings)?;
    let sender = match (settings.number, settings.messaging_service) {
        (Some(number), None) if is_number(&number) => Sender::Number(number),
        (Some(_), None) => return Err("number: write it as +15550001111".to_owned()),
        (None, Some(sid)) if is_sid("MG", &sid) => Sender::Service(sid),
        (None, Some(_)) => return Err("messaging_service: it begins with MG and has 34 characters".to_owned()),
        _ => return Err("name a number or a messaging_service".to_owned()),
    };
    Ok(Arc::new(Sms {
        twilio,
        sender,
        links: Links::new(surroundings),
    }))
}

#[async_trait]
impl Channel for Sms {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(send::MAX_CHARS),
            formats: vec!["text/plain".to_owned()],
            resend_safe: false,
            max_attachment_bytes: Some(send::MAX_MEDIA_BYTES),
            join: Join::Open,
            begins: Some("phone".to_owned()),
            thread_is_address: true,
            ..Declaration::default()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        self.twilio.verifier.verify(input)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        twilio::KEPT_HEADERS
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(input)
    }

    async fn send(&self, outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        self.send_message(outbound).await
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        Ok(self.twilio.api.fetch(source))
    }

    fn send_deadline(&self) -> Duration {
        send::DEADLINE + Pace::PATIENCE
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_account().await)
    }

    async fn works(&self) -> bool {
        self.twilio.api.account().await.is_ok()
    }
}

impl Sms {
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let url = self.twilio.own_url.as_str();
        let account = self.twilio.api.account().await?;
        let number = match &self.sender {
            Sender::Number(number) => {
                let fields = [("SmsUrl", url), ("SmsMethod", "POST")];
                self.twilio.api.set_number(number, &fields).await?
            }
            Sender::Service(sid) => {
                let fields = [
                    ("InboundRequestUrl", url),
                    ("InboundMethod", "POST"),
                    ("UseInboundWebhookOnNumber", "false"),
                ];
                self.twilio.api.set_service(sid, &fields).await?
            }
        };
        Ok(vec![account, number])
    }
}
