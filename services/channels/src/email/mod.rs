//! Mail: read by IMAP, sent by SMTP.
//!
//! `imap.rs` and `mailbox.rs` bring the bytes, `parse.rs` makes a message of
//! them, `send.rs` sends. Between them stand `mime.rs` (parts), `decode.rs`
//! (text), `address.rs`, `content.rs` (what a mail says), `tokens.rs` (our
//! signatures), `authentication.rs` (whom to believe), `automatic.rs` (whom not
//! to answer) and `report.rs` (bounces).

mod settings;

mod parse;

mod address;
mod authentication;
mod automatic;
mod content;
mod decode;
mod mime;
mod report;
mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};

use crate::channel::{BadSignature, Channel, Input, Parsed, PullError, Sent, Unparsed};
use crate::list::{AccountSettings, Surroundings};
use crate::pull::Source;
use parse::Reader;
use settings::Settings;

/// Base64 makes a third more of it, and most servers take 35 MB or less.
const MAX_ATTACHMENT_BYTES: u64 = 20 * 1024 * 1024;

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings = Settings::of(account)?;
    Ok(Arc::new(Email {
        reader: Reader {
            address: settings.address.clone(),
            keys: surroundings.keys.clone(),
            trusted_authserv_ids: settings.trusted_authserv_ids.clone(),
        },
    }))
}

/// One mail account.
struct Email {
    reader: Reader,
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
        }
    }

    fn verify(&self, _input: &Input) -> Result<(), BadSignature> {
        Ok(())
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        self.reader.parse(&input.body)
    }

    fn pulls(&self) -> bool {
        true
    }

    async fn pull(&self, _source: &Source) -> Result<(), PullError> {
        unimplemented!()
    }

    async fn send(&self, _outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        unimplemented!()
    }
}
