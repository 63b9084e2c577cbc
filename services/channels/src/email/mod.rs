//! Mail: read by IMAP, sent by SMTP.
//!
//! `mailbox.rs` with `cursor.rs` and `imap.rs` brings the bytes, `parse.rs` makes
//! a message of them; `compose.rs` makes a mail of an answer, `send.rs` sends it.
//! Between them stand `mime.rs` (parts), `decode.rs` and `parameters.rs` (text),
//! `address.rs`, `content.rs` (what a mail says), `tokens.rs` (our signatures),
//! `authentication.rs` (whom to believe), `automatic.rs` (whom not to answer) and
//! `report.rs` (bounces).

mod settings;

mod answer;
mod cursor;
mod imap;
mod mailbox;
mod parse;

mod compose;
mod send;

mod address;
mod authentication;
mod automatic;
mod content;
mod decode;
mod mime;
mod parameters;
mod report;
mod tls;
mod tokens;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod properties;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};

use crate::channel::{BadSignature, Channel, Input, Parsed, PullError, Sent, Unparsed};
use crate::list::{AccountSettings, Surroundings};
use crate::pull::Source;
use compose::Composer;
use mailbox::{Mailbox, Memory};
use parse::Reader;
use send::Sender;
use settings::Settings;

/// Base64 makes a third more of it, and most servers take 35 MB or less.
const MAX_ATTACHMENT_BYTES: u64 = 20 * 1024 * 1024;

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings = Settings::of(account)?;
    let reader = Arc::new(Reader {
        address: settings.address.clone(),
        keys: surroundings.keys.clone(),
        trusted_authserv_ids: settings.trusted_authserv_ids.clone(),
    });
    let composer = Composer {
        address: settings.address.clone(),
        display_name: settings.display_name.clone(),
        domain: settings.domain().to_owned(),
        plus_address: settings.plus_address,
        keys: surroundings.keys.clone(),
    };
    let ca = settings.ca.as_deref();
    Ok(Arc::new(Email {
        mailbox: Mailbox {
            tls: tls::client(settings.imap.tls, ca)?,
            settings: settings.imap,
            since: settings.since,
            reader: Arc::clone(&reader),
            memory: Mutex::new(Memory::default()),
        },
        sender: Sender::new(settings.smtp, ca, composer)?,
        reader,
    }))
}

/// One mail account.
struct Email {
    reader: Arc<Reader>,
    mailbox: Mailbox,
    sender: Sender,
}

#[async_trait]
impl Channel for Email {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: None,
            formats: vec!["text/plain".to_owned(), "text/html".to_owned()],
            reply_window_ms: None,
            resend_safe: true,
            max_attachment_bytes: Some(MAX_ATTACHMENT_BYTES),
            join: Join::Thread,
            begins: Some("email".to_owned()),
            ..Declaration::default()
        }
    }

    fn verify(&self, _input: &Input) -> Result<(), BadSignature> {
        Ok(())
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        match mailbox::incomplete(input) {
            Some(reason) => Err(Unparsed::Parked { reason }),
            None => self.reader.parse(&input.body),
        }
    }

    fn pulls(&self) -> bool {
        true
    }

    /// A stop ends it anywhere: what was not finished is repeated and changes nothing.
    async fn pull(&self, source: &Source) -> Result<(), PullError> {
        tokio::select! {
            () = source.stop.cancelled() => {
                self.mailbox.forget_attempt();
                Ok(())
            }
            read = self.mailbox.read(source) => read,
        }
    }

    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        self.sender.send(outbound, files).await
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        let found = async { Ok(vec![self.mailbox.try_out().await?, self.sender.try_out().await?]) };
        Some(found.await)
    }

    async fn works(&self) -> bool {
        self.sender.try_out().await.is_ok()
    }

    fn send_deadline(&self) -> Duration {
        send::DEADLINE
    }
}
