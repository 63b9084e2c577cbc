//! The frames of the protocol: JSON texts, bounded and strict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A longer frame or message ends the socket (1009).
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Of a message, in characters.
const MAX_TEXT_CHARS: usize = 4_000;
/// Of the client's own names, in characters.
const MAX_ID_CHARS: usize = 64;
const MAX_FILES: usize = 5;
/// Of a session, a JWT or a receipt of a file, in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_FORM_CHARS: usize = 500;
const MAX_FORM_FIELDS: usize = 30;

/// What a client may say.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Said {
    Hello(Hello),
    Resume {
        epoch: Option<i64>,
        sequence: Option<i64>,
    },
    Send {
        id: String,
        #[serde(default)]
        text: String,
        #[serde(default)]
        files: Vec<String>,
    },
    Typing {},
    Read {
        sequence: i64,
    },
    Ping {
        id: Option<String>,
    },
}

/// Who speaks.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub session: Option<String>,
    pub jwt: Option<String>,
    /// The token of a link in a mail of ours.
    pub link: Option<String>,
    pub form: Option<BTreeMap<String, String>>,
}

/// What we say.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Saying<'a> {
    Hello {
        session: &'a str,
        online: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        /// Names of the fields that the form has, and must have.
        form: Vec<FormField<'a>>,
    },
    Resume {
        epoch: Option<i64>,
        sequence: i64,
    },
    Gone {
        epoch: Option<i64>,
    },
    Ack {
        id: &'a str,
        message_id: &'a str,
    },
    Message {
        epoch: i64,
        sequence: i64,
        id: &'a str,
        /// `visitor`, `agent` or `automatic`.
        from: &'static str,
        /// The visitor's own name of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a str>,
        text: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        files: Vec<ShownFile<'a>>,
        at: String,
    },
    Typing,
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    },
    Error {
        code: &'static str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct FormField<'a> {
    pub name: &'a str,
    pub required: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ShownFile<'a> {
    pub name: &'a str,
    pub media_type: &'a str,
    pub size_bytes: u64,
    pub url: String,
}

/// Why a socket ends. The codes are the protocol's; `README.md` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The protocol of WebSockets was broken.
    Protocol,
    /// A binary message.
    Binary,
    /// A text that is no UTF-8.
    NotUtf8,
    TooLarge,
    /// We stop; come again after so many milliseconds.
    Restart {
        after_ms: u64,
    },
    /// There are too many sockets here.
    Full,
    Fault,
    /// Not what `README.md` says, once too often.
    Malformed,
    /// The session or the JWT is not good, and why.
    Unauthorized {
        reason: &'static str,
    },
    ForeignOrigin,
    /// No `hello`, or nothing at all, for too long.
    TooSlow,
    /// More than the limits allow.
    Flood,
    /// It does not read what we write.
    NotReading,
}

impl Close {
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::Fault => 1011,
            Self::Restart { .. } => 1012,
            Self::Full => 1013,
            Self::Malformed => 4400,
            Self::Unauthorized { .. } => 4401,
            Self::ForeignOrigin => 4403,
            Self::TooSlow => 4408,
            Self::NotReading => 4413,
            Self::Flood => 4429,
        }
    }

    /// As the metric and the close frame name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Binary => "binary",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => "too_large",
            Self::Fault => "fault",
            Self::Restart { .. } => "restart",
            Self::Full => "full",
            Self::Malformed => "malformed",
            Self::Unauthorized { .. } => "unauthorized",
            Self::ForeignOrigin => "foreign_origin",
            Self::TooSlow => "too_slow",
            Self::NotReading => "not_reading",
            Self::Flood => "flood",
        }
    }

    /// The reason of the close frame, at most 123 bytes of JSON.
    pub fn reason(self) -> String {
        let retry_after_ms = match self {
            Self::Restart { after_ms } => Some(after_ms),
            Self::Full | Self::Flood | Self::TooSlow | Self::NotReading | Self::Fault => Some(RETRY_AFTER_MS),
            _ => None,
        };
        let mut reason = serde_json::json!({ "code": self.name() });
        if let Some(after_ms) = retry_after_ms {
            reason["retry_after_ms"] = after_ms.into();
        }
        if let Self::Unauthorized { reason: detail } = self {
            reason["detail"] = detail.into();
        }
        reason.to_string()
    }
}

/// For whoever asked too much of us.
const RETRY_AFTER_MS: u64 = 10_000;

/// Why a frame is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub detail: String,
    /// Of the `send` that it was.
    pub id: Option<String>,
}

/// Reads one frame: pure; its size is bounded by the socket, its depth by serde_json.
pub(super) fn parse(text: &str) -> Result<Said, Malformed> {
    if text.trim_ascii_start().as_bytes().first() != Some(&b'{') {
        return Err(malformed("a frame is a JSON object"));
    }
    let said: Said = serde_json::from_str(text).map_err(|error| malformed(unlocated(&error.to_string())))?;
    check(&said).map_err(|detail| Malformed {
        detail,
        id: match &said {
            Said::Send { id, .. } if is_id(id) => Some(id.clone()),
            _ => None,
        },
    })?;
    Ok(said)
}

fn check(said: &Said) -> Result<(), String> {
    match said {
        Said::Hello(hello) => {
            for token in [&hello.session, &hello.jwt, &hello.link].into_iter().flatten() {
                token_is_short("session, jwt and link", token)?;
            }
            check_form(hello.form.as_ref())
        }
        Said::Resume { epoch, sequence } => match (epoch, sequence) {
            (None, None) => Ok(()),
            (Some(epoch), Some(sequence)) if *epoch >= 0 && *sequence >= 0 => Ok(()),
            _ => Err("resume needs both epoch and sequence, or none, and they are not negative".to_owned()),
        },
        Said::Send { id, text, files } => {
            if !is_id(id) {
                return Err(format!("id is 1 to {MAX_ID_CHARS} visible ASCII characters"));
            }
            if text.trim().is_empty() && files.is_empty() {
                return Err("there is neither text nor a file".to_owned());
            }
            if text.chars().count() > MAX_TEXT_CHARS {
                return Err(format!("text is longer than {MAX_TEXT_CHARS} characters"));
            }
            if files.len() > MAX_FILES {
                return Err(format!("more than {MAX_FILES} files"));
            }
            files.iter().try_for_each(|file| token_is_short("a file", file))
        }
        Said::Read { sequence } if *sequence < 0 => Err("sequence is negative".to_owned()),
        Said::Ping { id: Some(id) } if id.chars().count() > MAX_ID_CHARS => {
            Err(format!("id is longer than {MAX_ID_CHARS} characters"))
        }
        Said::Typing {} | Said::Read { .. } | Said::Ping { .. } => Ok(()),
    }
}

fn check_form(form: Option<&BTreeMap<String, String>>) -> Result<(), String> {
    let Some(form) = form else { return Ok(()) };
    if form.len() > MAX_FORM_FIELDS {
        return Err(format!("form has more than {MAX_FORM_FIELDS} fields"));
    }
    let is_long = |text: &str| text.chars().count() > MAX_FORM_CHARS;
    if form.iter().any(|(name, value)| is_long(name) || is_long(value)) {
        return Err(format!("a field of form is longer than {MAX_FORM_CHARS} characters"));
    }
    Ok(())
}

fn token_is_short(what: &str, token: &str) -> Result<(), String> {
    match token.len() <= MAX_TOKEN_BYTES {
        true => Ok(()),
        false => Err(format!("{what}: longer than {MAX_TOKEN_BYTES} bytes")),
    }
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// serde's words without the place: a frame has one line.
fn unlocated(text: &str) -> String {
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    text.chars().take(200).collect()
}

fn malformed(detail: impl Into<String>) -> Malformed {
    Malformed {
        detail: detail.into(),
        id: None,
    }
}

impl Saying<'_> {
    /// The text of the frame.
    pub fn text(&self) -> String {
        // Texts and numbers alone: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_the_protocol_says() {
        let check = |text: &str, expected: Said| assert_eq!(parse(text).unwrap(), expected, "{text}");
        let hello = |session: Option<&str>, jwt: Option<&str>| {
            Said::Hello(Hello {
                session: session.map(str::to_owned),
                jwt: jwt.map(str::to_owned),
                ..Hello::default()
            })
        };
        check(r#"{"type":"hello"}"#, hello(None, None));
        check(r#" {"session":"s","type":"hello"}"#, hello(Some("s"), None));
        check(
            r#"{"type":"hello","jwt":"a.b.c","session":null}"#,
            hello(None, Some("a.b.c")),
        );
        check(
            r#"{"type":"hello","form":{"name":"Ada"}}"#,
            Said::Hello(Hello {
                form: Some([("name".to_owned(), "Ada".to_owned())].into()),
                ..Hello::default()
            }),
        );
        check(
            r#"{"type":"hello","link":"a-1-b"}"#,
            Said::Hello(Hello {
                link: Some("a-1-b".to_owned()),
                ..Hello::default()
            }),
        );
        let resume = |epoch, sequence| Said::Resume { epoch, sequence };
        check(r#"{"type":"resume"}"#, resume(None, None));
        check(r#"{"type":"resume","epoch":1,"sequence":0}"#, resume(Some(1), Some(0)));
        let send = |id: &str, text: &str, files: &[&str]| Said::Send {
            id: id.to_owned(),
            text: text.to_owned(),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
        };
        check(r#"{"type":"send","id":"1","text":"Hi"}"#, send("1", "Hi", &[]));
        check(r#"{"type":"send","id":"1","files":["f"]}"#, send("1", "", &["f"]));
        check(r#"{"type":"send","id":"1","text":"a\u0000b"}"#, send("1", "a\0b", &[]));
        check(r#"{"type":"typing"}"#, Said::Typing {});
        check(r#"{"type":"read","sequence":7}"#, Said::Read { sequence: 7 });
        check(r#"{"type":"ping"}"#, Said::Ping { id: None });
        check(
            r#"{"type":"ping","id":"ü"}"#,
            Said::Ping {
                id: Some("ü".to_owned()),
            },
        );
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_said() {
        let check = |text: &str, expected: &str| {
            let malformed = parse(text).unwrap_err();
            assert!(malformed.detail.contains(expected), "{text:.100}: {malformed:?}");
            assert!(
                malformed.detail.len() < 300 && !malformed.detail.contains("line"),
                "{malformed:?}"
            );
        };
        check("", "a JSON object");
        check("hello", "a JSON object");
        check("[]", "a JSON object");
        check("{", "EOF");
        check("{}", "missing field `type`");
        check(r#"{"type":"shout"}"#, "unknown variant `shout`");
        check(r#"{"type":"hello","session":1}"#, "invalid type");
        check(r#"{"type":"hello","token":"x"}"#, "unknown field `token`");
        check(r#"{"type":"typing","on":true}"#, "unknown field `on`");
        check(r#"{"type":"send","text":"Hi"}"#, "missing field `id`");
        check(r#"{"type":"send","id":"","text":"Hi"}"#, "id is 1 to 64");
        check(r#"{"type":"send","id":"a b","text":"Hi"}"#, "id is 1 to 64");
        check(r#"{"type":"send","id":"a\u0000","text":"Hi"}"#, "id is 1 to 64");
        check(r#"{"type":"send","id":"1","text":" "}"#, "neither text nor a file");
        check(r#"{"type":"send","id":"1","text":"\ud800"}"#, "hex escape");
        check(r#"{"type":"resume","epoch":1}"#, "both epoch and sequence");
        check(r#"{"type":"resume","epoch":1,"sequence":-1}"#, "not negative");
        check(r#"{"type":"read","sequence":-1}"#, "negative");
        check(r#"{"type":"read","sequence":99999999999999999999}"#, "invalid type");
        check(
            &format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(65)),
            "longer than 64",
        );
        let long = "ü".repeat(MAX_TEXT_CHARS + 1);
        check(
            &format!(r#"{{"type":"send","id":"1","text":"{long}"}}"#),
            "longer than 4000",
        );
        let files = [r#""f""#; MAX_FILES + 1].join(",");
        check(
            &format!(r#"{{"type":"send","id":"1","files":[{files}]}}"#),
            "more than 5 files",
        );
        let token = "x".repeat(MAX_TOKEN_BYTES + 1);
        check(
            &format!(r#"{{"type":"hello","session":"{token}"}}"#),
            "longer than 8192",
        );
        check(&format!(r#"{{"type":"hello","link":"{token}"}}"#), "longer than 8192");
        check(
            &format!(r#"{{"type":"hello","form":{{"name":"{long}"}}}}"#),
            "a field of form",
        );
        check(&format!("{}{}", r#"{"type":"#, "[".repeat(60_000)), "");
        check(&format!("{}{}", r#"{"type":"#, r#"{"a":"#.repeat(10_000)), "");
    }

    #[test]
    fn the_send_that_is_wrong_is_named() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse(text).unwrap_err().id.as_deref(), expected, "{text}");
        };
        check(r#"{"type":"send","id":"7","text":""}"#, Some("7"));
        check(r#"{"type":"send","id":"a b","text":""}"#, None);
        check(r#"{"type":"read","sequence":-1}"#, None);
    }

    #[test]
    fn close_frames_are_short_and_their_codes_may_be_sent() {
        let all = [
            Close::Protocol,
            Close::Binary,
            Close::NotUtf8,
            Close::TooLarge,
            Close::Fault,
            Close::Restart { after_ms: u64::MAX },
            Close::Full,
            Close::Malformed,
            Close::Unauthorized {
                reason: "the session has a wrong signature",
            },
            Close::ForeignOrigin,
            Close::TooSlow,
            Close::NotReading,
            Close::Flood,
        ];
        let mut codes: Vec<u16> = all.iter().map(|close| close.code()).collect();
        for close in all {
            assert!(close.reason().len() <= 123, "{}", close.reason());
            let reason: serde_json::Value = serde_json::from_str(&close.reason()).unwrap();
            assert_eq!(reason["code"], close.name());
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
        assert!(
            codes.iter().all(|code| matches!(code, 1002..=1013 | 4000..=4999)),
            "{codes:?}"
        );
    }
}
