//! The answers of an IMAP server, as far as they matter here.

use async_imap::imap_proto::{AttributeValue, Capability, MailboxDatum, RequestId, Response, ResponseCode, Status};
use model::time::Moment;

/// One answer.
#[derive(Debug)]
pub enum Answer {
    HasIdle,
    UidValidity(u32),
    UidNext(u32),
    /// The mailbox has so many mails; also said when it has grown.
    Exists(u32),
    Found(Vec<u32>),
    Fetched(Fetched),
    /// Go on, says the server.
    Continue,
    Done {
        tag: RequestId,
        is_ok: bool,
        words: String,
    },
    GoodBye,
    Other,
}

/// What was fetched of one mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    pub uid: u32,
    pub size: Option<u32>,
    /// INTERNALDATE.
    pub received_at: Option<Moment>,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// From the protocol's own.
    pub fn of(response: &Response) -> Self {
        match response {
            Response::Capabilities(capabilities) => {
                let is_idle = |capability: &Capability| matches!(capability, Capability::Atom(name) if name.eq_ignore_ascii_case("IDLE"));
                if capabilities.iter().any(is_idle) {
                    Self::HasIdle
                } else {
                    Self::Other
                }
            }
            Response::Continue(_) => Self::Continue,
            Response::Done { tag, status, outcome } => {
                let words = outcome.information.as_deref().unwrap_or_default();
                Self::Done {
                    tag: tag.clone(),
                    is_ok: *status == Status::Ok,
                    words: words
                        .chars()
                        .filter(|character| !character.is_control())
                        .take(200)
                        .collect(),
                }
            }
            Response::Data {
                status: Status::Bye, ..
            } => Self::GoodBye,
            Response::Data { outcome, .. } => match outcome.code {
                Some(ResponseCode::UidValidity(value)) => Self::UidValidity(value),
                Some(ResponseCode::UidNext(value)) => Self::UidNext(value),
                _ => Self::Other,
            },
            Response::MailboxData(MailboxDatum::Exists(count)) => Self::Exists(*count),
            Response::MailboxData(MailboxDatum::Search(found)) => Self::Found(found.clone()),
            Response::Fetch(_, attributes) => fetched(attributes).map_or(Self::Other, Self::Fetched),
            _ => Self::Other,
        }
    }

    /// The mailbox may have grown.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Exists(_))
    }
}

/// `None` for answers to something else, such as changed flags.
fn fetched(attributes: &[AttributeValue]) -> Option<Fetched> {
    let mut fetched = Fetched::default();
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(uid) => fetched.uid = *uid,
            AttributeValue::Rfc822Size(size) => fetched.size = Some(*size),
            AttributeValue::InternalDate(text) => fetched.received_at = internal_date(text),
            AttributeValue::BodySection { data: Some(data), .. } => fetched.bytes = data.to_vec(),
            _ => {}
        }
    }
    let has_content = fetched.size.is_some() || fetched.received_at.is_some() || !fetched.bytes.is_empty();
    (fetched.uid != 0 && has_content).then_some(fetched)
}

/// RFC 9051 `date-time`, such as ` 1-Jan-2026 08:00:00 +0100`.
fn internal_date(text: &str) -> Option<Moment> {
    let time = jiff::fmt::strtime::parse("%d-%b-%Y %H:%M:%S %z", text.trim()).ok()?;
    time.to_timestamp().ok().map(Moment::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_dates_are_moments() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(internal_date(text), expected.and_then(Moment::parse), "{text}");
        };
        check(" 1-Jan-2026 08:00:00 +0100", Some("2026-01-01T07:00:00Z"));
        check("24-Nov-2026 23:59:60 -0530", Some("2026-11-25T05:29:59Z"));
        check("29-Feb-2028 00:00:00 +0000", Some("2028-02-29T00:00:00Z"));
        check("29-Feb-2026 00:00:00 +0000", None);
        check("yesterday", None);
        check("", None);
    }
}
