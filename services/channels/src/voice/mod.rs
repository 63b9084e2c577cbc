//! Phone calls over Twilio. A call is one message whose state moves on; we answer it
//! with a greeting, put it through or take a voicemail, and an answer of ours is
//! spoken in a call back. `README.md` says how an account is set up.

mod parse;
mod twiml;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};
use serde::Deserialize;

use crate::channel::{BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::limit::Pace;
use crate::list::{AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::phone::is_number;
use crate::twilio::{self, Twilio};
use twiml::Response;

/// Longest text that is spoken; Twilio takes TwiML of 4,000 characters.
const MAX_CHARS: u32 = 3_000;
/// Longest TwiML of a call that we place, in characters.
const MAX_TWIML_CHARS: usize = 4_000;

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The number that is called, and by which we call back, in the form of E.164.
    number: String,
    /// What every caller hears first; nothing without it.
    greeting: Option<String>,
    /// A number to which calls are put through; without it nobody is.
    forward_to: Option<String>,
    /// It rings there for so long.
    #[serde(default = "default_forward_seconds")]
    forward_seconds: u32,
    /// Calls that are put through are recorded. Callers must be told, by law in many
    /// places: say so in the greeting.
    #[serde(default)]
    record_calls: bool,
    /// What a caller hears whom nobody answers; without it no voicemail is taken.
    voicemail: Option<String>,
    #[serde(default = "default_max_recording_seconds")]
    max_recording_seconds: u32,
    /// Voicemail is also written down, by Twilio (in English only).
    #[serde(default)]
    transcribe: bool,
    /// Of what we say, as Twilio names it.
    #[serde(default = "default_language")]
    language: String,
    /// Who says it, as Twilio names it.
    voice: Option<String>,
}

struct Voice {
    settings: Settings,
    twilio: Twilio,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (twilio, settings) = Twilio::new::<Settings>(account, surroundings)?;
    if !is_number(&settings.number) {
        return Err("number: write it as +15550001111".to_owned());
    }
    if settings.forward_to.as_ref().is_some_and(|number| !is_number(number)) {
        return Err("forward_to: write it as +15550001111".to_owned());
    }
    Ok(Arc::new(Voice { settings, twilio }))
}

fn default_forward_seconds() -> u32 {
    20
}

fn default_max_recording_seconds() -> u32 {
    180
}

fn default_language() -> String {
    "en-US".to_owned()
}

#[async_trait]
impl Channel for Voice {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(MAX_CHARS),
            formats: vec!["text/plain".to_owned()],
            resend_safe: false,
            join: Join::Open,
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
        parse::parse(&self.settings, &self.twilio.own_url, input)
    }

    /// Calls back and speaks the text. Two calls would be worse than none, so what
    /// became of it must be known.
    async fn send(&self, outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        let Some(to) = outbound.recipients.first().filter(|to| is_number(&to.address)) else {
            return Sent::Refused {
                error: "the caller hid the number, so there is none to call back".to_owned(),
            };
        };
        let twiml = Response::new().say(&outbound.text, &self.settings).hang_up().finish();
        if twiml.chars().count() > MAX_TWIML_CHARS {
            return Sent::Refused {
                error: "the text is too long to be spoken".to_owned(),
            };
        }
        let callback = format!("{}?message={}", self.twilio.own_url, outbound.message_id);
        let fields = [
            ("To", to.address.as_str()),
            ("From", &self.settings.number),
            ("Twiml", &twiml),
            ("StatusCallback", &callback),
        ];
        self.twilio.api.create("Calls", &fields).await
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        Ok(self.twilio.api.fetch(source))
    }

    fn send_deadline(&self) -> Duration {
        Duration::from_secs(30) + Pace::PATIENCE
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_account().await)
    }

    async fn works(&self) -> bool {
        self.twilio.api.account().await.is_ok()
    }
}

impl Voice {
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let url = self.twilio.own_url.as_str();
        let account = self.twilio.api.account().await?;
        let fields = [
            ("VoiceUrl", url),
            ("VoiceMethod", "POST"),
            ("StatusCallback", url),
            ("StatusCallbackMethod", "POST"),
        ];
        let number = self.twilio.api.set_number(&self.settings.number, &fields).await?;
        Ok(vec![account, number])
    }
}
