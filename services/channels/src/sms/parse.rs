//! From Twilio's forms to messages, delivery reports and consent.

use model::contact::Party;
use model::event::{Attachment, Automatic, ConsentChange, DeliveryReport, DeliveryState, Message};
use model::evidence::Evidence;
use model::id::MessageId;
use model::inbound::{Inbound, Realm, What};

use crate::channel::{Answer, Input, Parsed, Unparsed};
use crate::media::file_name;
use crate::phone::is_number;
use crate::twilio::api::words;
use crate::twilio::form::Form;
use crate::twilio::{NOTHING_TO_SAY, nothing, parked};

/// Files of one message; Twilio takes ten.
const MAX_MEDIA: usize = 50;

/// What Twilio takes for a word to the system if the account has not chosen others
/// (then it says so itself, by `OptOutType`).
const STOP_WORDS: &[&str] = &[
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "CANCEL",
    "END",
    "QUIT",
    "REVOKE",
    "OPTOUT",
];
const START_WORDS: &[&str] = &["START", "UNSTOP"];
/// Opts in whoever is out; from others it may answer a question.
const YES: &str = "YES";

/// A message, or what became of one of ours.
pub fn parse(input: &Input) -> Result<Parsed, Unparsed> {
    let form = Form::of_body(input);
    let status = form.get("MessageStatus").or(form.get("SmsStatus"));
    match status {
        Some("received" | "receiving") => received(&form),
        Some(status) => Ok(reported(input, &form, status)),
        None if form.get("Body").is_some() || form.get("NumMedia").is_some() => received(&form),
        None => Err(parked("neither a message nor a status of one")),
    }
}

fn received(form: &Form) -> Result<Parsed, Unparsed> {
    let sid = form.get("MessageSid").or(form.get("SmsSid"));
    let sid = sid.ok_or_else(|| parked("MessageSid is missing"))?;
    let from = form.get("From").ok_or_else(|| parked("From is missing"))?;
    if from.contains(':') {
        // WhatsApp, RCS and others come by the same door, and not to this channel.
        return Err(parked("From is an address of another channel of Twilio's"));
    }
    let word = word(form);
    let message = message(form, sid, from, word);
    let mut events = vec![inbound(sid, from, What::Message(Box::new(message)))];
    if let Some(word) = word.filter(|word| *word != Word::Help) {
        let told = ConsentChange {
            thread: from.to_owned(),
            given: word != Word::Stop,
            reason: form.get("Body").unwrap_or("STOP").trim().chars().take(40).collect(),
        };
        events.push(inbound(sid, from, What::Consent(told)));
    }
    Ok(Parsed {
        events,
        answer: Answer {
            status: 200,
            content_type: "text/xml",
            body: NOTHING_TO_SAY.to_owned(),
        },
    })
}

fn message(form: &Form, sid: &str, from: &str, word: Option<Word>) -> Message {
    let sender = Party {
        scheme: "phone".to_owned(),
        address: from.to_owned(),
        name: None,
        // A short code or a name of a sender is no number that can be answered.
        verified: is_number(from),
    };
    Message {
        attachments: attachments(form),
        evidence: Evidence {
            thread: Some(from.to_owned()),
            ..Evidence::default()
        },
        automatic: matches!(word, Some(Word::Stop | Word::Start)).then_some(Automatic::Command),
        // Twilio answers HELP itself.
        suppress_automatic_reply: word == Some(Word::Help),
        external_ids: vec![sid.to_owned()],
        ..Message::new(sender, form.get("Body").unwrap_or_default())
    }
}

fn attachments(form: &Form) -> Vec<Attachment> {
    let count: usize = form.get("NumMedia").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut attachments = Vec::new();
    for index in 0..count.min(MAX_MEDIA) {
        let Some(url) = form.get(&format!("MediaUrl{index}")) else {
            continue;
        };
        let media_type = form.get(&format!("MediaContentType{index}"));
        let media_type = media_type.unwrap_or("application/octet-stream");
        let name = file_name(&format!("file-{}", index + 1), media_type);
        attachments.push(Attachment::at(name, media_type, url));
    }
    attachments
}

/// A word to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Stop,
    Start,
    /// Opts in whoever is out, and is a message all the same.
    Yes,
    Help,
}

fn word(form: &Form) -> Option<Word> {
    match form.get("OptOutType") {
        Some("STOP") => return Some(Word::Stop),
        Some("START") => return Some(Word::Start),
        Some("HELP") => return Some(Word::Help),
        _ => {}
    }
    let body = form.get("Body")?.trim().to_uppercase();
    match body.as_str() {
        word if STOP_WORDS.contains(&word) => Some(Word::Stop),
        word if START_WORDS.contains(&word) => Some(Word::Start),
        YES => Some(Word::Yes),
        "HELP" | "INFO" => Some(Word::Help),
        _ => None,
    }
}

/// Our own name of the message stands in the URL that we gave Twilio for it, so a
/// report finds it that overtakes the answer to its sending.
fn reported(input: &Input, form: &Form, status: &str) -> Parsed {
    let query = Form::of_query(&input.url);
    let sid = form.get("MessageSid").or(form.get("SmsSid")).unwrap_or_default();
    let own = query.get("message").filter(|id| MessageId::parse(id).is_some());
    let external_id = own.unwrap_or(sid);
    let state = match status {
        "sent" => Some(DeliveryState::Sent),
        "delivered" => Some(DeliveryState::Delivered),
        "read" => Some(DeliveryState::Read),
        "undelivered" | "failed" | "canceled" | "partially_delivered" => Some(DeliveryState::Failed),
        // On its way there: accepted, scheduled, queued, sending, and what may come.
        _ => None,
    };
    // Of a text in parts the last one says that it arrived, each that it did not.
    let is_last = query.get("more").is_none();
    let state = state.filter(|state| is_last || *state == DeliveryState::Failed);
    let Some(state) = state.filter(|_| !external_id.is_empty() && !sid.is_empty()) else {
        return nothing(Vec::new());
    };
    let error = (state == DeliveryState::Failed).then(|| match form.get("ErrorCode") {
        Some(code) => words(code),
        None => format!("Twilio says: {status}"),
    });
    let to = form.get("To").unwrap_or(external_id);
    let report = DeliveryReport {
        external_id: external_id.to_owned(),
        state,
        error,
    };
    nothing(vec![inbound(&format!("{sid}/{status}"), to, What::Delivery(report))])
}

fn inbound(external_id: &str, thread: &str, what: What) -> Inbound {
    Inbound {
        realm: Realm::Account,
        external_id: external_id.to_owned(),
        thread: thread.to_owned(),
        occurred_at: None,
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use model::time::Moment;

    use super::*;

    fn input(url: &str, body: &str) -> Input {
        Input {
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: vec![(
                "content-type".to_owned(),
                "application/x-www-form-urlencoded".to_owned(),
            )],
            body: body.to_owned().into(),
            received_at: Moment::from_ms(0),
        }
    }

    /// Each payload of `testdata/` (its first line is the URL) and what is made of
    /// it. To renew a snapshot, delete it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        crate::twilio::snapshots("src/sms/testdata", |url, body| parse(&input(url, body)));
    }

    fn message_of(body: &str) -> (Option<Automatic>, bool, Option<bool>) {
        let form = format!("MessageSid=SM1&SmsStatus=received&From=%2B15552223333&Body={body}");
        let events = parse(&input("/in/a", &form)).unwrap().events;
        let What::Message(message) = &events[0].what else {
            panic!("{events:?}");
        };
        let consent = events.iter().find_map(|event| match &event.what {
            What::Consent(told) => Some(told.given),
            _ => None,
        });
        (message.automatic, message.suppress_automatic_reply, consent)
    }

    #[test]
    fn words_to_the_system_are_known() {
        let command = Some(Automatic::Command);
        let check = |body: &str, expected| assert_eq!(message_of(body), expected, "{body}");
        check("STOP", (command, false, Some(false)));
        check("stop", (command, false, Some(false)));
        check("+Unsubscribe%0A", (command, false, Some(false)));
        check("stop+it", (None, false, None));
        check("START", (command, false, Some(true)));
        check("yes", (None, false, Some(true)));
        check("HELP", (None, true, None));
        check("hello", (None, false, None));
        check("", (None, false, None));
        check("arret&OptOutType=STOP", (command, false, Some(false)));
        check("ja&OptOutType=START", (command, false, Some(true)));
        check("STOP&OptOutType=HELP", (None, true, None));
    }

    #[test]
    fn states_are_reported_under_our_own_name() {
        let own = MessageId::authored("agnes", "1");
        let check = |query: &str, status: &str, expected: Option<(DeliveryState, &str)>| {
            let body = format!("MessageSid=SM1&MessageStatus={status}&To=%2B1555222&ErrorCode=30003");
            let parsed = parse(&input(&format!("/in/a{query}"), &body)).unwrap();
            assert_eq!(parsed.answer.status, 204);
            let found = parsed.events.first().map(|event| match &event.what {
                What::Delivery(report) => (report.state, report.external_id.as_str()),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{query} {status}");
        };
        let by = format!("?message={own}");
        let name = own.as_str();
        check(&by, "sent", Some((DeliveryState::Sent, name)));
        check(&by, "delivered", Some((DeliveryState::Delivered, name)));
        check(&by, "read", Some((DeliveryState::Read, name)));
        check(&by, "undelivered", Some((DeliveryState::Failed, name)));
        check(&by, "failed", Some((DeliveryState::Failed, name)));
        check(&by, "queued", None);
        check(&by, "sending", None);
        check(&by, "a-new-one", None);
        check("", "delivered", Some((DeliveryState::Delivered, "SM1")));
        check("?message=x", "delivered", Some((DeliveryState::Delivered, "SM1")));
        check(&format!("{by}&more=1"), "delivered", None);
        check(&format!("{by}&more=1"), "failed", Some((DeliveryState::Failed, name)));
    }

    #[test]
    fn what_is_neither_is_parked() {
        for body in [
            "",
            "a=b",
            "SmsStatus=received&From=%2B1",
            "SmsStatus=received&MessageSid=SM1",
        ] {
            assert!(
                matches!(parse(&input("/in/a", body)), Err(Unparsed::Parked { .. })),
                "{body}"
            );
        }
        let whatsapp = "SmsStatus=received&MessageSid=SM1&From=whatsapp%3A%2B1555&Body=x";
        assert!(matches!(parse(&input("/in/a", whatsapp)), Err(Unparsed::Parked { .. })));
    }
}
