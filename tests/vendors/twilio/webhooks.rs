//! How Twilio calls us: forms, signed over the URL as it knows it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::lock;
use super::{ACCOUNT_SID, OUR_NUMBER, TOKEN, Twilio};

/// A form, its fields in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Form(pub Vec<(String, String)>);

/// What we answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Form {
    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.0.iter().filter(|(key, _)| key == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// Sets a field, or adds it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(key, _)| key != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The same with more fields.
    pub fn with(mut self, fields: &[(&str, &str)]) -> Self {
        for (name, value) in fields {
            self.set(name, value);
        }
        self
    }

    /// As it goes over the wire.
    pub fn encoded(&self) -> String {
        let escape = |text: &str| {
            let mut escaped = String::new();
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => escaped.push(char::from(byte)),
                    b' ' => escaped.push('+'),
                    other => escaped.push_str(&format!("%{other:02X}")),
                }
            }
            escaped
        };
        let pairs = self
            .0
            .iter()
            .map(|(name, value)| format!("{}={}", escape(name), escape(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// Reads a form.
pub fn form_of(body: &[u8]) -> Form {
    let text = String::from_utf8_lossy(body);
    let unescape = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
                }
                other => bytes.push(other),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    Form(pairs.map(|(name, value)| (unescape(name), unescape(value))).collect())
}

/// The signature of a form, over the URL that it is posted to.
pub fn sign(token: &str, url: &str, form: &Form) -> String {
    let mut fields: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in &form.0 {
        fields.entry(name).or_default().insert(value);
    }
    let mut text = url.to_owned();
    for (name, values) in fields {
        for value in values {
            text.push_str(name);
            text.push_str(value);
        }
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

impl Twilio {
    /// A text message from this number.
    pub fn text(&self, sid: &str, from: &str, body: &str) -> Form {
        Form::default().with(&[
            ("AccountSid", ACCOUNT_SID),
            ("ApiVersion", "2010-04-01"),
            ("Body", body),
            ("From", from),
            ("MessageSid", sid),
            ("NumMedia", "0"),
            ("NumSegments", "1"),
            ("SmsMessageSid", sid),
            ("SmsSid", sid),
            ("SmsStatus", "received"),
            ("To", OUR_NUMBER),
        ])
    }

    /// An event of a call from this number.
    pub fn call(&self, sid: &str, from: &str, status: &str) -> Form {
        Form::default().with(&[
            ("AccountSid", ACCOUNT_SID),
            ("ApiVersion", "2010-04-01"),
            ("CallSid", sid),
            ("CallStatus", status),
            ("Direction", "inbound"),
            ("From", from),
            ("To", OUR_NUMBER),
        ])
    }

    /// Posts a webhook to the account, signed by the account's token.
    pub async fn post(&self, account: &str, form: &Form) -> Result<Answer> {
        let path = format!("/in/{account}");
        self.post_to(&format!("{}{path}", self.public), form, TOKEN).await
    }

    /// Reports the status of a message that it has taken, where it was told to.
    pub async fn report(&self, message: &Form, status: &str, error_code: Option<&str>) -> Result<Answer> {
        let url = message.get("StatusCallback").context("no StatusCallback")?;
        let field = |name: &str| message.get(name).unwrap_or_default();
        let mut form = Form::default().with(&[
            ("AccountSid", ACCOUNT_SID),
            ("From", field("From")),
            ("MessageSid", field("MessageSid")),
            ("MessageStatus", status),
            ("SmsSid", field("MessageSid")),
            ("SmsStatus", status),
            ("To", field("To")),
        ]);
        if let Some(code) = error_code {
            form.set("ErrorCode", code);
        }
        self.post_to(url, &form, TOKEN).await
    }

    /// Posts to a URL that it was given, signed by this token.
    pub async fn post_to(&self, url: &str, form: &Form, token: &str) -> Result<Answer> {
        let answer = self
            .client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded; charset=UTF-8")
            .header("x-twilio-signature", sign(token, url, form))
            .header("i-twilio-idempotency-token", "token")
            .body(form.encoded())
            .send()
            .await?;
        let content_type = answer.headers().get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: answer.status().as_u16(),
            content_type: content_type.to_owned(),
            body: answer.text().await?,
        })
    }

    /// What it does with TwiML: anything else is error 12100 or 12300 for the caller.
    pub fn understand(answer: &Answer) -> Result<()> {
        ensure!(answer.status == 200, "error 11200: {answer:?}");
        ensure!(answer.content_type == "text/xml", "error 12300: {answer:?}");
        let is_document = answer.body.starts_with("<?xml") && answer.body.contains("<Response");
        ensure!(is_document, "error 12100: {answer:?}");
        Ok(())
    }

    /// From now on this number gets nothing.
    pub fn opt_out(&self, number: &str) {
        lock(&self.state.opted_out).push(number.to_owned());
    }
}
