//! Sends one message, in parts if it is long.

use std::time::Duration;

use model::outbound::Outbound;
use url::form_urlencoded;

use super::{Sender, Sms};
use crate::channel::Sent;
use crate::parts::{Tally, split};

/// Longest text of one message of Twilio's, in UTF-16 units.
const PART_UNITS: usize = 1_600;
/// Longest text that is sent: five parts, more if its characters are rare ones.
pub const MAX_CHARS: u32 = 8_000;
/// All files of a message together; Twilio takes five megabytes.
pub const MAX_MEDIA_BYTES: u64 = 5_000_000;
/// Files of one message of Twilio's.
const MEDIA_AT_ONCE: usize = 10;
/// For all parts.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// One message of Twilio's.
struct Part<'a> {
    text: String,
    media_urls: &'a [String],
}

impl Sms {
    pub(super) async fn send_message(&self, outbound: &Outbound) -> Sent {
        let Some(to) = outbound.recipients.first() else {
            return Sent::Refused {
                error: "the message has no recipient".to_owned(),
            };
        };
        let media_urls = self.links.of(&outbound.attachments);
        let parts = parts(&outbound.text, &media_urls);
        let last = parts.len() - 1;
        let mut tally = Tally::of(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let callback = self.callback(outbound, index < last);
            let mut fields = vec![("To", to.address.as_str()), ("StatusCallback", callback.as_str())];
            fields.push(match &self.sender {
                Sender::Number(number) => ("From", number),
                Sender::Service(sid) => ("MessagingServiceSid", sid),
            });
            if !part.text.is_empty() {
                fields.push(("Body", &part.text));
            }
            fields.extend(part.media_urls.iter().map(|url| ("MediaUrl", url.as_str())));
            let sent = self.twilio.api.create("Messages", &fields).await;
            if let Err(end) = tally.count(sent) {
                return end;
            }
        }
        tally.accepted()
    }

    /// Where Twilio reports what becomes of a part.
    fn callback(&self, outbound: &Outbound, has_more: bool) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("message", outbound.message_id.as_str());
        if has_more {
            query.append_pair("more", "1");
        }
        format!("{}?{}", self.twilio.own_url, query.finish())
    }
}

/// The files go with the first parts.
fn parts<'a>(text: &str, media_urls: &'a [String]) -> Vec<Part<'a>> {
    let mut media = media_urls.chunks(MEDIA_AT_ONCE);
    let mut parts: Vec<Part<'a>> = split(text, PART_UNITS)
        .into_iter()
        .map(|text| Part {
            text,
            media_urls: media.next().unwrap_or_default(),
        })
        .collect();
    parts.extend(media.map(|media_urls| Part {
        text: String::new(),
        media_urls,
    }));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_with_the_first_parts() {
        let check = |text: &str, files: usize, expected: &[(usize, usize)]| {
            let urls: Vec<String> = (0..files).map(|index| index.to_string()).collect();
            let found: Vec<_> = parts(text, &urls)
                .iter()
                .map(|part| (part.text.len(), part.media_urls.len()))
                .collect();
            assert_eq!(found, expected);
        };
        let long = "word ".repeat(400);
        check("hello", 0, &[(5, 0)]);
        check("hello", 3, &[(5, 3)]);
        check("", 1, &[(0, 1)]);
        check("hello", 12, &[(5, 10), (0, 2)]);
        check(&long, 1, &[(1_599, 1), (399, 0)]);
    }
}
