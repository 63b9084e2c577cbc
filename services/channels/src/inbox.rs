//! `accept`: from what a channel understood to a durable event.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use model::event::{Body, Event, Raw, RawContent};
use model::id::{MessageId, event_id, sha256_hex};
use model::inbound::{Inbound, What};
use model::time::Moment;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::channel::Input;
use crate::limit::Quota;
use crate::text;

const ACCEPTED: &str = "accepted_events";
const PARKED: &str = "parked_inputs";
const QUARANTINED: &str = "quarantined_inputs";
const UNKEPT: &str = "quarantine_dropped_inputs";
const REJECTED: &str = "rejected_inputs";
const ACCEPT_DURATION: &str = "accept_duration_seconds";
const ACCEPT_BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What a quarantine keeps of each account in an hour.
const QUARANTINE_INPUTS: u64 = 1_000;
const QUARANTINE_BYTES: u64 = 16 * 1024 * 1024;
/// A larger input is counted, not kept.
const QUARANTINE_MAX_BYTES: usize = Raw::INLINE_MAX_BYTES;
/// A quarantine may cost the sender of bad signatures so long.
const QUARANTINE_PATIENCE: Duration = Duration::from_secs(1);
/// A pulled event waits at its source: the log may take so long.
const PULLED_PATIENCE: Duration = Duration::from_secs(30);

/// A longer thread key is replaced by its hash.
const MAX_THREAD_KEY_BYTES: usize = 200;

/// What could not be read, in the derivation of its event's id.
const PARK: &str = "parked";
const QUARANTINE: &str = "quarantined";

/// The header by which the gateway hands the trace on; not kept with the input.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The door from a channel into the log.
#[derive(Clone)]
pub struct Inbox {
    bus: bus::Bus,
    counts: Counts,
    quarantine: Arc<Quota>,
}

/// Whether the sender waits for us (then the spool helps) or its source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Webhooks, chat: spooled if Kafka is away.
    Pushed,
    /// Mailboxes, long polls: waits for Kafka.
    Pulled,
}

#[derive(Clone)]
struct Counts {
    accepted: Family<AccountLabels, Counter>,
    parked: Family<AccountLabels, Counter>,
    quarantined: Family<AccountLabels, Counter>,
    unkept: Family<AccountLabels, Counter>,
    rejected: Family<RejectedLabels, Counter>,
    accept_duration: Family<AccountLabels, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabels {
    account: String,
    channel: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    account: String,
    reason: &'static str,
}

impl Inbox {
    /// The door into this log; counts what goes through it.
    pub fn new(bus: bus::Bus, registry: &mut Registry) -> Self {
        Self {
            bus,
            counts: Counts::new(registry),
            quarantine: Arc::new(Quota::new(
                QUARANTINE_INPUTS,
                QUARANTINE_BYTES,
                Duration::from_secs(3600),
            )),
        }
    }

    /// Stamps each with account, thread key, times and derived id, keeps its
    /// attachments, and publishes all of them (pipelined). Durable when it returns.
    /// An event without an external id is parked: it could not be told from others.
    pub async fn accept(
        &self,
        account: &str,
        channel: &str,
        input: Input,
        mut events: Vec<Inbound>,
        arrival: Arrival,
    ) -> Result<(), bus::Error> {
        let begun = Instant::now();
        for inbound in &mut events {
            if inbound.external_id.trim().is_empty() {
                let reason = "the channel found no external id in it".to_owned();
                inbound.what = What::Parked { reason };
            }
        }
        let (traceparent, received_at) = (traceparent(&input), input.received_at);
        let mut stamped = Vec::with_capacity(events.len());
        let mut blobs = Vec::new();
        let raws = raws(input, &mut events);
        for (mut inbound, raw) in events.into_iter().zip(raws) {
            blobs.append(&mut inbound.blobs);
            stamped.push(stamp(account, channel, raw, received_at, inbound, &traceparent));
        }
        let parked = stamped.iter().filter(|event| matches!(event.body, Body::Parked { .. }));
        let parked = parked.map(|event| tracing::warn!(account.name = account, event.id = event.id, "input parked"));
        let (parked, count) = (parked.count() as u64, stamped.len() as u64);
        try_join_all(blobs.into_iter().map(|bytes| self.bus.blobs().put(bytes))).await?;
        try_join_all(stamped.into_iter().map(|event| self.publish(event, arrival))).await?;
        bus::abort::at("published");
        let labels = AccountLabels::new(account, channel);
        self.counts.accepted.get_or_create(&labels).inc_by(count - parked);
        if parked > 0 {
            self.counts.parked.get_or_create(&labels).inc_by(parked);
        }
        let took = begun.elapsed().as_secs_f64();
        self.counts.accept_duration.get_or_create(&labels).observe(took);
        Ok(())
    }

    /// Keeps an input that could not be parsed (C6). Durable when it returns.
    pub async fn park(
        &self,
        account: &str,
        channel: &str,
        input: &Input,
        reason: &str,
        arrival: Arrival,
    ) -> Result<(), bus::Error> {
        let body = Body::Parked {
            reason: reason.to_owned(),
        };
        let event = unparsed(PARK, account, channel, input, body);
        tracing::warn!(account.name = account, event.id = event.id, "input parked");
        self.publish(event, arrival).await?;
        self.counts
            .parked
            .get_or_create(&AccountLabels::new(account, channel))
            .inc();
        Ok(())
    }

    /// Keeps an input whose signature was wrong, best effort and under its quota.
    pub async fn quarantine(&self, account: &str, channel: &str, input: &Input, reason: &str) {
        let labels = AccountLabels::new(account, channel);
        let size = input.body.len();
        let is_kept = size <= QUARANTINE_MAX_BYTES && self.quarantine.take(account, size as u64, Instant::now());
        if !is_kept {
            self.counts.unkept.get_or_create(&labels).inc();
            return;
        }
        let body = Body::Quarantined {
            reason: reason.to_owned(),
        };
        let event = unparsed(QUARANTINE, account, channel, input, body);
        let published = self.bus.publish_unspooled(event, QUARANTINE_PATIENCE);
        let counter = match tokio::time::timeout(QUARANTINE_PATIENCE, published).await {
            Ok(Ok(())) => &self.counts.quarantined,
            _ => &self.counts.unkept,
        };
        counter.get_or_create(&labels).inc();
    }

    /// Counts an input that was refused and not kept.
    pub(crate) fn rejected(&self, account: &str, reason: &'static str) {
        let account = account.to_owned();
        self.counts
            .rejected
            .get_or_create(&RejectedLabels { account, reason })
            .inc();
    }

    async fn publish(&self, event: Event, arrival: Arrival) -> Result<(), bus::Error> {
        match arrival {
            Arrival::Pushed => self.bus.publish(event).await,
            Arrival::Pulled => self.bus.publish_unspooled(event, PULLED_PATIENCE).await,
        }
    }
}

/// W3C trace context of the request, or a new one.
pub(crate) fn traceparent(input: &Input) -> String {
    match input.header(TRACEPARENT) {
        Some(text) if is_traceparent(text) => text.to_owned(),
        _ => new_traceparent(),
    }
}

/// Continues the caller's trace with a span of ours, or begins one.
pub(crate) fn continue_trace(caller: Option<&str>) -> String {
    match caller {
        Some(text) if is_traceparent(text) => format!("00-{}-{:016x}-{}", &text[3..35], random(), &text[53..55]),
        _ => new_traceparent(),
    }
}

fn new_traceparent() -> String {
    format!("00-{:016x}{:016x}-{:016x}-01", random(), random(), random())
}

/// Never zero, which means no id. The keys of the standard library's hashes differ
/// from thread to thread and from call to call: that is enough for a trace, and
/// asks the kernel once a thread instead of twice a request.
fn random() -> u64 {
    RandomState::new().hash_one(0).max(1)
}

/// `00-<32>-<16>-<2>`, lower-case hexadecimal, ids not all zero; later versions
/// may be longer.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_shaped = bytes.len() >= 55
        && bytes.len() <= 200
        && bytes.iter().take(55).enumerate().all(|(index, byte)| match index {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
    if !is_shaped || !text.is_ascii() {
        return false;
    }
    let is_known_length = match &text[..2] {
        "00" => bytes.len() == 55,
        _ => bytes.get(55).is_none_or(|byte| *byte == b'-'),
    };
    let is_zero = |range: std::ops::Range<usize>| text[range].bytes().all(|byte| byte == b'0');
    is_known_length && &text[..2] != "ff" && !is_zero(3..35) && !is_zero(36..52)
}

/// What each event keeps of the input: its own piece of it, or the whole. The last of
/// those takes what arrived, the others a copy; one of a thousand events with pieces
/// of their own copies nothing that it does not keep.
fn raws(input: Input, events: &mut [Inbound]) -> Vec<Raw> {
    let mut raw = to_raw(input);
    let wholes = events.iter().filter(|inbound| inbound.raw.is_none()).count();
    let mut wholes = std::iter::repeat_n(std::mem::take(&mut raw.content), wholes);
    let frames = std::iter::repeat_n(raw, events.len());
    let keep = |(inbound, frame): (&mut Inbound, Raw)| {
        let piece = inbound.raw.take().map(RawContent::Inline);
        Raw {
            content: piece.or_else(|| wholes.next()).unwrap_or_default(),
            ..frame
        }
    };
    events.iter_mut().zip(frames).map(keep).collect()
}

fn stamp(account: &str, channel: &str, raw: Raw, received_at: Moment, inbound: Inbound, traceparent: &str) -> Event {
    let realm = inbound.realm.as_text(account);
    let external_id = text::without_nul(inbound.external_id);
    let (id, body) = match inbound.what {
        What::Message(message) => {
            let id = MessageId::received(realm, channel, &external_id).as_str().to_owned();
            (id, Body::MessageReceived(Box::new(text::fit(*message))))
        }
        What::Delivery(report) => {
            let id = event_id(&["delivery", realm, channel, &external_id, report.state.as_str()]);
            (id, Body::DeliveryReported(text::fit_report(report)))
        }
        What::Changed(told) => {
            let id = event_id(&["change", realm, channel, &external_id]);
            (id, Body::MessageChanged(Box::new(text::fit_change(*told))))
        }
        What::Consent(told) => {
            let id = event_id(&["consent", realm, channel, &external_id]);
            (id, Body::ConsentChanged(text::fit_consent(told)))
        }
        What::Watermark(watermark) => {
            let id = event_id(&["watermark", realm, channel, &external_id]);
            (id, Body::WatermarkMoved(text::fit_watermark(watermark)))
        }
        What::Broken { reason } => {
            let id = event_id(&["broken", realm, channel, &external_id]);
            (id, Body::AccountBroken { reason })
        }
        // Its own id may be wrong: what it is counts.
        What::Parked { reason } => (unread_id(PARK, account, channel, &raw), Body::Parked { reason }),
    };
    Event {
        id,
        account: account.to_owned(),
        channel: channel.to_owned(),
        thread_key: thread_key(account, &inbound.thread),
        occurred_at: inbound.occurred_at.unwrap_or(received_at).min(received_at),
        received_at,
        provider_sequence: inbound.provider_sequence,
        traceparent: Some(traceparent.to_owned()),
        raw,
        body,
    }
}

fn unparsed(what: &str, account: &str, channel: &str, input: &Input, body: Body) -> Event {
    let raw = to_raw(input.clone());
    let id = unread_id(what, account, channel, &raw);
    Event {
        thread_key: thread_key(account, &id),
        id,
        account: account.to_owned(),
        channel: channel.to_owned(),
        occurred_at: input.received_at,
        received_at: input.received_at,
        provider_sequence: None,
        traceparent: Some(traceparent(input)),
        raw,
        body,
    }
}

/// The id of what nobody could read: the same for a repeat of the same input, which its
/// sender signs anew with another time.
fn unread_id(what: &str, account: &str, channel: &str, raw: &Raw) -> String {
    let mut bytes = match &raw.content {
        RawContent::Inline(content) => sha256_hex(content),
        RawContent::Blob { sha256, .. } => sha256.clone(),
    };
    for (name, value) in &raw.headers {
        let changes = name.contains("timestamp") || name.contains("signature");
        if !changes {
            bytes.push_str(&format!("\n{name}:{value}"));
        }
    }
    event_id(&[what, account, channel, &sha256_hex(bytes.as_bytes())])
}

fn thread_key(account: &str, thread: &str) -> String {
    let key = text::without_nul(format!("{account}/{thread}"));
    match key.len() <= MAX_THREAD_KEY_BYTES {
        true => key,
        false => format!("{account}/{}", sha256_hex(thread.as_bytes())),
    }
}

fn to_raw(input: Input) -> Raw {
    let mut raw = input.into_raw();
    raw.headers.retain(|(name, _)| name != TRACEPARENT);
    for (_, value) in &mut raw.headers {
        *value = text::without_nul(std::mem::take(value));
    }
    raw.url = text::without_nul(raw.url);
    raw
}

impl Input {
    /// An input that was kept, to be parsed again: a replay. `body` are the bytes
    /// of `raw.content`.
    pub fn kept(raw: &Raw, body: Bytes, received_at: model::time::Moment) -> Self {
        Self {
            method: raw.method.clone(),
            url: raw.url.clone(),
            headers: raw.headers.clone(),
            body,
            received_at,
        }
    }
}

impl Counts {
    fn new(registry: &mut Registry) -> Self {
        let counts = Self {
            accepted: Family::default(),
            parked: Family::default(),
            quarantined: Family::default(),
            unkept: Family::default(),
            rejected: Family::default(),
            accept_duration: Family::new_with_constructor(|| Histogram::new(ACCEPT_BUCKETS)),
        };
        registry.register(ACCEPTED, "Events made durable", counts.accepted.clone());
        registry.register(PARKED, "Inputs that could not be parsed", counts.parked.clone());
        registry.register(
            QUARANTINED,
            "Inputs kept though their signature was wrong",
            counts.quarantined.clone(),
        );
        registry.register(
            UNKEPT,
            "Inputs with a wrong signature that were not kept",
            counts.unkept.clone(),
        );
        registry.register(REJECTED, "Inputs refused", counts.rejected.clone());
        registry.register(
            ACCEPT_DURATION,
            "Time to make an input's events durable",
            counts.accept_duration.clone(),
        );
        counts
    }
}

impl AccountLabels {
    fn new(account: &str, channel: &str) -> Self {
        Self {
            account: account.to_owned(),
            channel: channel.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::contact::Party;
    use model::event::{DeliveryReport, DeliveryState, Message};
    use model::evidence::Evidence;
    use model::inbound::Realm;

    use super::*;

    fn stamped(account: &str, channel: &str, input: &Input, mut inbound: Inbound, traceparent: &str) -> Event {
        let raw = raws(input.clone(), std::slice::from_mut(&mut inbound)).remove(0);
        stamp(account, channel, raw, input.received_at, inbound, traceparent)
    }

    fn input(headers: &[(&str, &str)], body: &str) -> Input {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Input {
            method: "POST".to_owned(),
            url: "/in/a".to_owned(),
            headers: headers.collect(),
            body: body.to_owned().into(),
            received_at: Moment::from_ms(1_000),
        }
    }

    fn inbound(external_id: &str, thread: &str, what: What) -> Inbound {
        Inbound {
            realm: Realm::Account,
            external_id: external_id.to_owned(),
            thread: thread.to_owned(),
            occurred_at: None,
            provider_sequence: Some(7),
            raw: None,
            blobs: Vec::new(),
            what,
        }
    }

    fn message(text: &str) -> What {
        What::Message(Box::new(Message {
            sender: Party {
                scheme: "test".to_owned(),
                address: "a\0b".to_owned(),
                name: None,
                verified: true,
            },
            recipients: Vec::new(),
            subject: None,
            text: text.to_owned(),
            html: None,
            attachments: Vec::new(),
            evidence: Evidence::default(),
            automatic: None,
            suppress_automatic_reply: false,
            external_ids: Vec::new(),
            identities: Vec::new(),
            fields: Default::default(),
        }))
    }

    #[test]
    fn an_event_is_stamped() {
        let input = input(&[("content-type", "text/plain"), (TRACEPARENT, "x")], "whole");
        let mut given = inbound("e1", "t\0", message("x\0y"));
        given.occurred_at = Some(Moment::from_ms(2_000));
        given.raw = Some(b"part".to_vec());
        let event = stamped("a", "webhook", &input, given, "00-trace");
        assert_eq!(event.id, MessageId::received("a", "webhook", "e1").as_str());
        assert_eq!(event.thread_key, "a/t\u{fffd}");
        assert_eq!(event.occurred_at, Moment::from_ms(1_000));
        assert_eq!(event.raw.content, RawContent::Inline(b"part".to_vec()));
        assert_eq!(
            event.raw.headers,
            [("content-type".to_owned(), "text/plain".to_owned())]
        );
        assert_eq!(event.traceparent.as_deref(), Some("00-trace"));
        let text = serde_json::to_string(&event.body).unwrap();
        assert!(!text.contains("\\u0000"), "{text}");
    }

    #[test]
    fn a_state_of_a_message_is_reported_once() {
        let report = |state: DeliveryState| {
            let report = DeliveryReport {
                external_id: "e1".to_owned(),
                state,
                error: None,
            };
            stamped(
                "a",
                "sms",
                &input(&[], ""),
                inbound("r1", "t", What::Delivery(report)),
                "",
            )
            .id
        };
        assert_eq!(report(DeliveryState::Sent), report(DeliveryState::Sent));
        assert_ne!(report(DeliveryState::Sent), report(DeliveryState::Delivered));
    }

    #[test]
    fn a_repeat_of_an_unreadable_input_is_the_same() {
        let id = |headers: &[(&str, &str)], body: &str| {
            let body_of_event = Body::Parked { reason: String::new() };
            unparsed("parked", "a", "webhook", &input(headers, body), body_of_event).id
        };
        let first = id(
            &[
                ("webhook-id", "1"),
                ("webhook-timestamp", "5"),
                ("webhook-signature", "x"),
            ],
            "b",
        );
        assert_eq!(
            first,
            id(
                &[("webhook-id", "1"), ("webhook-timestamp", "6"), (TRACEPARENT, "y")],
                "b"
            )
        );
        assert_ne!(first, id(&[("webhook-id", "2")], "b"));
        assert_ne!(first, id(&[("webhook-id", "1")], "c"));
    }

    #[test]
    fn long_threads_are_hashed() {
        assert_eq!(thread_key("a", "t"), "a/t");
        let long = thread_key("a", &"t".repeat(1000));
        assert!(long.starts_with("a/") && long.len() == 66, "{long}");
        assert_ne!(long, thread_key("a", &"t".repeat(1001)));
    }

    #[test]
    fn the_callers_trace_goes_on_if_it_is_one() {
        let check = |caller: &str, expected: bool| {
            let found = continue_trace(Some(caller));
            assert!(is_traceparent(&found), "{found}");
            assert_eq!(caller.get(3..35) == Some(&found[3..35]), expected, "{caller} {found}");
            assert_ne!(caller, found);
        };
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true);
        check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
        check("00-ä", false);
        check("", false);
    }
}
