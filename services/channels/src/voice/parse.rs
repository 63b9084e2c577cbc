//! From Twilio's forms to a call's message, what happens to it, and what Twilio is
//! to do next.
//!
//! Every event of a call names the same message, by its CallSid: whichever comes
//! first makes it, and the others change it.

use model::change::{Call, CallState, Change, MessageChange};
use model::contact::Party;
use model::event::{Attachment, DeliveryReport, DeliveryState, Message};
use model::evidence::Evidence;
use model::id::MessageId;
use model::inbound::{Inbound, Realm, What};
use model::time::Moment;

use super::Settings;
use super::twiml::Response;
use crate::channel::{Answer, Input, Parsed, Unparsed};
use crate::phone::is_number;
use crate::twilio::form::Form;
use crate::twilio::{nothing, parked};

/// Whoever hides the number is called by one of these.
const HIDDEN: &[&str] = &[
    "anonymous",
    "+266696687",
    "+86282452253",
    "Restricted",
    "Unavailable",
    "unknown",
];

/// One event of a call.
struct Told<'a> {
    form: Form,
    call_sid: String,
    settings: &'a Settings,
    own_url: &'a str,
}

/// An event of a call, and what Twilio is to do.
pub fn parse(settings: &Settings, own_url: &str, input: &Input) -> Result<Parsed, Unparsed> {
    let (form, query) = (Form::of_body(input), Form::of_query(&input.url));
    let call_sid = form
        .get("CallSid")
        .ok_or_else(|| parked("CallSid is missing"))?
        .to_owned();
    let told = Told {
        form,
        call_sid,
        settings,
        own_url,
    };
    if let Some(own) = query.get("message").filter(|id| MessageId::parse(id).is_some()) {
        return Ok(told.reported(own));
    }
    if told.form.get("TranscriptionSid").is_some() {
        return Ok(told.transcribed());
    }
    match query.get("then") {
        Some("recorded") => return Ok(answered(Vec::new(), Response::new().hang_up())),
        Some("dialled") => return Ok(told.dialled()),
        _ => {}
    }
    if told.form.get("RecordingSid").is_some() {
        return Ok(told.recorded());
    }
    let direction = told.form.get("Direction").unwrap_or_default();
    if direction.starts_with("outbound") {
        // Calls that others place with this account, and the leg of one put through.
        return Ok(nothing(Vec::new()));
    }
    let status = told
        .form
        .get("CallStatus")
        .ok_or_else(|| parked("CallStatus is missing"))?;
    let is_report = told.form.get("CallbackSource").is_some() || told.form.get("SequenceNumber").is_some();
    match (status, is_report) {
        ("ringing" | "queued" | "in-progress", false) => told.rang(),
        _ => told.moved_on(status),
    }
}

impl Told<'_> {
    /// It rings here: Twilio waits for what to do.
    fn rang(&self) -> Result<Parsed, Unparsed> {
        let call = Call {
            state: Some(CallState::Ringing),
            missed: self.nobody_answers(),
            ..Call::default()
        };
        // What is known of the call comes first: a rule may ask for it.
        let events = vec![self.called("ringing", call), self.message()?];
        let mut response = Response::new();
        if let Some(greeting) = &self.settings.greeting {
            response = response.say(greeting, self.settings);
        }
        let response = match &self.settings.forward_to {
            Some(number) => response.dial(number, self.settings, self.own_url),
            None => self.take_voicemail(response),
        };
        Ok(answered(events, response))
    }

    /// Nobody answered there, or the conversation has ended.
    fn dialled(&self) -> Parsed {
        let status = self.form.get("DialCallStatus").unwrap_or_default();
        let has_spoken = matches!(status, "completed" | "answered");
        let call = Call {
            missed: Some(!has_spoken),
            ..Call::default()
        };
        let response = match has_spoken {
            true => Response::new().hang_up(),
            false => self.take_voicemail(Response::new()),
        };
        answered(vec![self.called("dialled", call)], response)
    }

    /// Where calls are not put through, nobody of us speaks with the caller.
    fn nobody_answers(&self) -> Option<bool> {
        self.settings.forward_to.is_none().then_some(true)
    }

    fn take_voicemail(&self, response: Response) -> Response {
        match &self.settings.voicemail {
            Some(words) => response
                .say(words, self.settings)
                .record(self.settings, self.own_url)
                .hang_up(),
            None => response.hang_up(),
        }
    }

    /// A status of the call, of which there are several in whatever order.
    fn moved_on(&self, status: &str) -> Result<Parsed, Unparsed> {
        let state = match status {
            "queued" | "initiated" | "ringing" => Some(CallState::Ringing),
            "in-progress" | "answered" => Some(CallState::Answered),
            "completed" => Some(CallState::Completed),
            "busy" => Some(CallState::Busy),
            "no-answer" => Some(CallState::NoAnswer),
            "canceled" => Some(CallState::Cancelled),
            "failed" => Some(CallState::Failed),
            _ => None,
        };
        let Some(state) = state else {
            return Ok(nothing(Vec::new()));
        };
        let has_ended = !matches!(state, CallState::Ringing | CallState::Answered);
        let duration = self.form.get("CallDuration").and_then(|text| text.parse().ok());
        let call = Call {
            state: Some(state),
            duration_s: duration.filter(|seconds: &i64| *seconds >= 0),
            // Unless the one to whom it was put through says otherwise.
            missed: has_ended.then_some(true).or(self.nobody_answers()),
            transcription: None,
        };
        Ok(nothing(vec![self.called(status, call), self.message()?]))
    }

    fn recorded(&self) -> Parsed {
        let url = self.form.get("RecordingUrl").filter(|_| {
            let status = self.form.get("RecordingStatus");
            status == Some("completed")
        });
        let (Some(url), Some(sid)) = (url, self.form.get("RecordingSid")) else {
            return nothing(Vec::new());
        };
        let attachment = Attachment::at("recording.mp3", "audio/mpeg", format!("{url}.mp3"));
        let change = Change::AttachmentsAdded {
            attachments: vec![attachment],
        };
        nothing(vec![self.changed(sid, change)])
    }

    fn transcribed(&self) -> Parsed {
        let text = self.form.get("TranscriptionText");
        let text = text.filter(|_| self.form.get("TranscriptionStatus") == Some("completed"));
        let (Some(text), Some(sid)) = (text, self.form.get("TranscriptionSid")) else {
            return nothing(Vec::new());
        };
        let call = Call {
            transcription: Some(text.to_owned()),
            ..Call::default()
        };
        nothing(vec![self.changed(sid, Change::Called(call))])
    }

    /// What became of a call of ours.
    fn reported(&self, own: &str) -> Parsed {
        let status = self.form.get("CallStatus").unwrap_or_default();
        let state = match status {
            "completed" => DeliveryState::Delivered,
            "busy" | "no-answer" | "canceled" | "failed" => DeliveryState::Failed,
            _ => return nothing(Vec::new()),
        };
        let report = DeliveryReport {
            external_id: own.to_owned(),
            state,
            error: (state == DeliveryState::Failed).then(|| format!("the call was not answered: {status}")),
        };
        let event = self.inbound(&format!("{}/{status}", self.call_sid), What::Delivery(report));
        nothing(vec![event])
    }

    /// The message that the call is; the same whichever event makes it.
    fn message(&self) -> Result<Inbound, Unparsed> {
        let from = self.form.get("From").unwrap_or_default();
        let is_hidden = from.is_empty() || HIDDEN.iter().any(|hidden| hidden.eq_ignore_ascii_case(from));
        let name = self.form.get("CallerName").map(ToOwned::to_owned);
        let sender = match is_hidden {
            // Nobody knows who it is: a contact of its own each time.
            true => Party {
                scheme: "call".to_owned(),
                address: self.call_sid.clone(),
                name: None,
                verified: false,
            },
            false => Party {
                scheme: if is_number(from) { "phone" } else { "call" }.to_owned(),
                address: from.to_owned(),
                name,
                verified: !self
                    .form
                    .get("StirVerstat")
                    .is_some_and(|text| text.starts_with("TN-Validation-Failed")),
            },
        };
        let to = self.form.get("To").unwrap_or(&self.settings.number);
        let text = match is_hidden {
            true => format!("Call from a hidden number to {to}"),
            false => format!("Call from {from} to {to}"),
        };
        let thread = if is_hidden { &self.call_sid } else { from };
        let message = Message {
            evidence: Evidence {
                thread: Some(thread.to_owned()),
                ..Evidence::default()
            },
            external_ids: vec![self.call_sid.clone()],
            ..Message::new(sender, text)
        };
        Ok(self.inbound(&self.call_sid, What::Message(Box::new(message))))
    }

    fn called(&self, what: &str, call: Call) -> Inbound {
        self.changed(&format!("{}/{what}", self.call_sid), Change::Called(call))
    }

    fn changed(&self, id: &str, change: Change) -> Inbound {
        let told = MessageChange {
            external_id: self.call_sid.clone(),
            change,
        };
        self.inbound(id, What::Changed(Box::new(told)))
    }

    fn inbound(&self, external_id: &str, what: What) -> Inbound {
        Inbound {
            realm: Realm::Account,
            external_id: external_id.to_owned(),
            // Not the caller's number: later events of the call do not name it.
            thread: self.call_sid.clone(),
            occurred_at: self.form.get("Timestamp").and_then(moment),
            provider_sequence: None,
            raw: None,
            blobs: Vec::new(),
            what,
        }
    }
}

/// RFC 2822, as Twilio writes moments.
fn moment(text: &str) -> Option<Moment> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Moment::from(zoned.timestamp()))
}

fn answered(events: Vec<Inbound>, response: Response) -> Parsed {
    Parsed {
        events,
        answer: Answer {
            status: 200,
            content_type: "text/xml",
            body: response.finish(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(url: &str, body: &str) -> Input {
        Input {
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: body.to_owned().into(),
            received_at: Moment::from_ms(0),
        }
    }

    fn settings(more: &str) -> Settings {
        let text = format!("number = '+15550001111'\n{more}");
        toml::from_str(&text).unwrap()
    }

    fn parse_with(more: &str, url: &str, body: &str) -> Parsed {
        parse(&settings(more), "https://a.example/in/line", &input(url, body)).unwrap()
    }

    /// Each payload of `testdata/` (its first line is the URL) and what is made of
    /// it. To renew a snapshot, delete it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let settings = settings("greeting = 'Welcome.'\nvoicemail = 'Speak after the tone.'\ntranscribe = true");
        crate::twilio::snapshots("src/voice/testdata", |url, body| {
            parse(&settings, "https://a.example/in/line", &input(url, body))
        });
    }

    const RINGS: &str = "CallSid=CA1&From=%2B15552223333&To=%2B15550001111&CallStatus=ringing&Direction=inbound";

    #[test]
    fn a_call_is_answered_as_the_settings_say() {
        let check = |more: &str, url: &str, body: &str, expected: &str| {
            let body = parse_with(more, url, body).answer.body;
            let inner = body
                .strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>")
                .unwrap();
            assert_eq!(inner.strip_suffix("</Response>").unwrap(), expected, "{more}");
        };
        let say = |text: &str| format!("<Say language=\"en-US\">{text}</Say>");
        check("", "/in/line", RINGS, "<Hangup/>");
        check(
            "greeting = 'A & B'",
            "/in/line",
            RINGS,
            &format!("{}<Hangup/>", say("A &amp; B")),
        );
        let record = "<Record playBeep=\"true\" maxLength=\"180\" \
            action=\"https://a.example/in/line?then=recorded\" \
            recordingStatusCallback=\"https://a.example/in/line\"/>";
        check(
            "greeting = 'Hi.'\nvoicemail = 'Beep.'",
            "/in/line",
            RINGS,
            &format!("{}{}{record}<Hangup/>", say("Hi."), say("Beep.")),
        );
        let through = "voicemail = 'Beep.'\nforward_to = '+49301234567'\nforward_seconds = 9\nrecord_calls = true";
        check(
            through,
            "/in/line",
            RINGS,
            "<Dial timeout=\"9\" action=\"https://a.example/in/line?then=dialled\" \
             record=\"record-from-answer-dual\" recordingStatusCallback=\"https://a.example/in/line\">\
             +49301234567</Dial>",
        );
        let dialled = |status: &str| format!("CallSid=CA1&CallStatus=in-progress&DialCallStatus={status}");
        let url = "/in/line?then=dialled";
        check(through, url, &dialled("completed"), "<Hangup/>");
        check(
            through,
            url,
            &dialled("no-answer"),
            &format!("{}{record}<Hangup/>", say("Beep.")),
        );
        check(
            through,
            "/in/line?then=recorded",
            &format!("{RINGS}&RecordingSid=RE1"),
            "<Hangup/>",
        );
    }

    fn calls(parsed: &Parsed) -> Vec<Call> {
        let call = |event: &Inbound| match &event.what {
            What::Changed(told) => match &told.change {
                Change::Called(call) => Some(call.clone()),
                _ => None,
            },
            _ => None,
        };
        parsed.events.iter().filter_map(call).collect()
    }

    #[test]
    fn states_of_a_call_are_told() {
        let check = |more: &str, status: &str, state: Option<CallState>, missed: Option<bool>| {
            let body = format!(
                "CallSid=CA1&From=%2B15552223333&Direction=inbound&CallStatus={status}&CallDuration=7&SequenceNumber=2"
            );
            let parsed = parse_with(more, "/in/line", &body);
            let call = calls(&parsed).pop();
            assert_eq!(call.as_ref().and_then(|call| call.state), state, "{status}");
            assert_eq!(call.and_then(|call| call.missed), missed, "{status}");
            assert_eq!(parsed.answer.status, 204);
        };
        // Where calls are put through, the end says whether somebody spoke.
        for (more, missed) in [("forward_to = '+49301234567'", None), ("", Some(true))] {
            check(more, "initiated", Some(CallState::Ringing), missed);
            check(more, "ringing", Some(CallState::Ringing), missed);
            check(more, "in-progress", Some(CallState::Answered), missed);
            check(more, "completed", Some(CallState::Completed), Some(true));
            check(more, "busy", Some(CallState::Busy), Some(true));
            check(more, "no-answer", Some(CallState::NoAnswer), Some(true));
            check(more, "canceled", Some(CallState::Cancelled), Some(true));
            check(more, "failed", Some(CallState::Failed), Some(true));
            check(more, "a-new-one", None, None);
        }
        let dialled = |status: &str| {
            let body = format!("CallSid=CA1&DialCallStatus={status}");
            calls(&parse_with("", "/in/line?then=dialled", &body)).remove(0).missed
        };
        assert_eq!(dialled("completed"), Some(false));
        assert_eq!(dialled("busy"), Some(true));
    }

    #[test]
    fn callers_are_known_by_their_number_if_they_show_it() {
        let check = |from: &str, more: &str, scheme: &str, thread: &str, verified: bool| {
            let body = format!("CallSid=CA1&From={from}&Direction=inbound&CallStatus=ringing{more}");
            // What is known of the call comes before its message, for whoever decides.
            let event = parse_with("", "/in/line", &body).events.remove(1);
            let What::Message(message) = event.what else {
                panic!("no message");
            };
            let sender = &message.sender;
            assert_eq!((sender.scheme.as_str(), sender.verified), (scheme, verified), "{from}");
            assert_eq!(message.evidence.thread.as_deref(), Some(thread), "{from}");
        };
        check("%2B15552223333", "", "phone", "+15552223333", true);
        check(
            "%2B15552223333",
            "&StirVerstat=TN-Validation-Passed-A",
            "phone",
            "+15552223333",
            true,
        );
        check(
            "%2B15552223333",
            "&StirVerstat=TN-Validation-Failed-C",
            "phone",
            "+15552223333",
            false,
        );
        check("anonymous", "", "call", "CA1", false);
        check("%2B266696687", "", "call", "CA1", false);
        check("", "", "call", "CA1", false);
        check("client%3Aann", "", "call", "client:ann", true);
    }

    #[test]
    fn what_becomes_of_our_calls_is_reported() {
        let own = MessageId::authored("agnes", "1");
        let check = |status: &str, expected: Option<DeliveryState>| {
            let body = format!("CallSid=CA9&CallStatus={status}&Direction=outbound-api&SequenceNumber=3");
            let parsed = parse_with("", &format!("/in/line?message={own}"), &body);
            let found = parsed.events.first().map(|event| match &event.what {
                What::Delivery(report) => report.state,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{status}");
        };
        check("completed", Some(DeliveryState::Delivered));
        check("busy", Some(DeliveryState::Failed));
        check("no-answer", Some(DeliveryState::Failed));
        check("ringing", None);
        let others = "CallSid=CA9&CallStatus=completed&Direction=outbound-api";
        assert!(parse_with("", "/in/line", others).events.is_empty());
        for body in ["", "CallSid=CA1&Direction=inbound"] {
            let parked = parse(&settings(""), "", &input("/in/line", body));
            assert!(matches!(parked, Err(Unparsed::Parked { .. })), "{body}");
        }
    }
}
