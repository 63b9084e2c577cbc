//! Files of visitors: what an upload is answered with, and how a file is named to
//! the visitor who may see it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::event::Attachment;
use serde::{Deserialize, Serialize};

use crate::signature::Keys;

const RECEIPT: &str = "chat-file";
const SHOWN: &str = "chat-file-shown";

/// That a visitor uploaded a file: only who has it can send the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub thread: String,
    pub attachment: Attachment,
}

impl Receipt {
    /// The receipt of this token, if we signed it for this visitor of this account.
    pub fn of_token(account: &str, keys: &Keys, thread: &str, token: &str) -> Option<Self> {
        let (payload, mac) = token.split_once('.')?;
        if !keys.verify(RECEIPT, signed(account, payload).as_bytes(), mac) {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let receipt: Self = serde_json::from_slice(&json).ok()?;
        (receipt.thread == thread).then_some(receipt)
    }

    /// What the client sends along.
    pub fn token(&self, account: &str, keys: &Keys) -> String {
        // Texts and numbers alone: it cannot fail.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_string(self).unwrap_or_default());
        let mac = keys.sign(RECEIPT, signed(account, &payload).as_bytes());
        format!("{payload}.{mac}")
    }
}

/// Where a file of the conversation is to be had, by path and query: good for
/// whoever was shown it.
pub(super) fn url(account: &str, keys: &Keys, file: &Attachment) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("name", &file.name);
    query.append_pair("type", &file.media_type);
    let token = keys.sign(
        SHOWN,
        shown(account, &file.sha256, &file.name, &file.media_type).as_bytes(),
    );
    query.append_pair("token", &token);
    format!("/chat/{account}/files/{}?{}", file.sha256, query.finish())
}

fn shown(account: &str, sha256: &str, name: &str, media_type: &str) -> String {
    format!("{account}\n{sha256}\n{media_type}\n{name}")
}

fn signed(account: &str, payload: &str) -> String {
    format!("{account}\n{payload}")
}
