//! Decisions, as tables: what is known, what comes in, what is to be written.

mod calls;
mod people;

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;

use super::decide;
use crate::change::{self, MessageChange, Reacting};
use crate::contact::Party;
use crate::context::{AccountPlan, Book, Changes, Context, Queue};
use crate::conversation::Direction;
use crate::event::{
    Attachment, Automatic, Body, ConsentChange, DeliveryReport, DeliveryState, Event, Message, Raw, RawContent,
    Recipient, Watermark,
};
use crate::evidence::Evidence;
use crate::id::{MessageId, TicketId};
use crate::outbound::Join;
use crate::rule::RuleSet;
use crate::ticket::{Actor, Category, Change, Command, Resolution};
use crate::time::Moment;
use crate::trace::Trace;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// What is known, with everything that was decided before.
struct Desk {
    context: Context,
    now: Moment,
}

impl Desk {
    fn new(rules: serde_json::Value) -> Self {
        let plan = |name: &str, channel: &str, join| AccountPlan {
            name: name.to_owned(),
            channel: channel.to_owned(),
            queue: Some(name.to_owned()),
            join,
            live: false,
        };
        let plans = [
            plan("support", "email", Join::Thread),
            plan("sales", "email", Join::Thread),
            plan("bot", "messenger", Join::Open),
        ];
        let book = Book {
            rules_version: 3,
            rules: self::rules(rules),
            queues: vec![Queue {
                name: "support".to_owned(),
                policy: None,
            }],
            accounts: plans.into_iter().map(|plan| (plan.name.clone(), plan)).collect(),
            employee_domains: ["corp.example".to_owned()].into(),
            ..Book::default()
        };
        let numbers = |prefix: &str| (1..100).map(|n| format!("{prefix}{n:07}")).collect::<VecDeque<_>>();
        let context = Context {
            book: Arc::new(book),
            numbers: [
                ("case".to_owned(), numbers("CS")),
                ("incident".to_owned(), numbers("INC")),
            ]
            .into(),
            ..Context::default()
        };
        Self {
            context,
            now: Moment::from_ms(1_767_225_600_000),
        }
    }

    /// Decides about a message and takes the decision in.
    fn receive(&mut self, event: &Event) -> Changes {
        let changes = decide(event, &self.context, self.now);
        assert_eq!(
            changes,
            decide(event, &self.context, self.now),
            "the same input gives the same decision"
        );
        self.context.absorb(changes.clone());
        changes
    }

    fn command(&mut self, ticket_id: &TicketId, command: Command) {
        let ticket = &self.context.tickets[ticket_id];
        let actor = Actor::Person("agnes".to_owned());
        let changes = Changes::of_command(ticket, &command, &actor, self.now, &self.context.book.sla).unwrap();
        self.context.absorb(changes);
    }

    /// As the store would answer: our own message, written in the conversation of `of`.
    fn we_sent(&mut self, of: &Changes, id: &MessageId, external_id: &str) {
        let conversation_id = of.messages[0].conversation_id.clone();
        let reference = crate::context::MessageReference {
            message_id: id.clone(),
            conversation_id,
            account: of.messages[0].account.clone(),
            delivery: Some(DeliveryState::Sent),
            occurred_at: self.now,
        };
        self.context.signed_messages.insert(id.clone(), reference.clone());
        let known = self.context.external_ids.entry(external_id.to_owned());
        known.or_default().push(reference);
    }

    fn event(&self, account: &str, external_id: &str, message: Message) -> Event {
        let channel = self.context.book.accounts[account].channel.clone();
        Event {
            id: MessageId::received("*", &channel, external_id).to_string(),
            account: account.to_owned(),
            channel,
            thread_key: external_id.to_owned(),
            occurred_at: self.now,
            received_at: self.now,
            provider_sequence: None,
            traceparent: None,
            raw: Raw {
                content: RawContent::Inline(b"raw".to_vec()),
                ..Raw::default()
            },
            body: Body::MessageReceived(Box::new(message)),
        }
    }
}

fn rules(rules: serde_json::Value) -> RuleSet {
    RuleSet::compile(serde_json::from_value(rules).unwrap(), None).unwrap()
}

fn from(address: &str, verified: bool) -> Message {
    Message {
        sender: Party {
            scheme: "email".to_owned(),
            address: address.to_owned(),
            name: Some("Anyone".to_owned()),
            verified,
        },
        recipients: vec![Recipient {
            role: "to".to_owned(),
            address: "support@desk.example".to_owned(),
            name: None,
        }],
        subject: Some("Printer".to_owned()),
        text: "It is on fire.".to_owned(),
        html: None,
        attachments: Vec::new(),
        evidence: Evidence::default(),
        automatic: None,
        suppress_automatic_reply: false,
        external_ids: Vec::new(),
        identities: Vec::new(),
        fields: Default::default(),
    }
}

fn ticket_of(changes: &Changes) -> Option<(&TicketId, &crate::ticket::Ticket)> {
    changes
        .tickets
        .iter()
        .next()
        .map(|(id, replacing)| (id, &replacing.row))
}

#[test]
fn a_first_message_makes_contact_conversation_ticket_and_trace() {
    let mut desk = Desk::new(json!([]));
    let changes = desk.receive(&desk.event("support", "1", from("anna@example.com", true)));
    assert_eq!(changes.contacts.len(), 1);
    assert_eq!(changes.conversations.len(), 1);
    assert_eq!(changes.messages[0].sequence, Some(1));
    let (_, ticket) = ticket_of(&changes).unwrap();
    assert_eq!(
        (ticket.number.as_str(), ticket.kind.as_str(), ticket.subject.as_str()),
        ("CS0000001", "case", "Printer")
    );
    assert_eq!(changes.traces[0].rules_version, 3);
    let next = desk.receive(&desk.event("support", "2", from("ben@example.com", true)));
    assert_eq!(ticket_of(&next).unwrap().1.number, "CS0000002");
}

#[test]
fn a_repeat_changes_nothing_and_another_account_is_listed() {
    let mut desk = Desk::new(json!([]));
    let event = desk.event("support", "1", from("anna@example.com", true));
    desk.receive(&event);
    assert!(desk.receive(&event).is_empty());
    let elsewhere = Event {
        account: "sales".to_owned(),
        ..event.clone()
    };
    let changes = desk.receive(&elsewhere);
    assert_eq!(changes.also_arrived_at.len(), 1);
    assert_eq!(
        Changes {
            also_arrived_at: changes.also_arrived_at.clone(),
            ..Changes::default()
        },
        changes
    );
    assert!(desk.receive(&elsewhere).is_empty());
}

#[test]
fn only_evidence_joins_a_conversation() {
    #[derive(Debug, PartialEq)]
    enum Goes {
        Joins,
        Suggested,
        Alone,
    }
    fn check(sender: Message, evidence: impl Fn(&Changes, &MessageId) -> Evidence, expected: Goes) {
        let mut desk = Desk::new(json!([]));
        let mut question = from("anna@example.com", true);
        question.external_ids = vec!["<q@example.com>".to_owned()];
        question.recipients.push(Recipient {
            role: "cc".to_owned(),
            address: "Carol@example.com".to_owned(),
            name: None,
        });
        let asked = desk.receive(&desk.event("support", "1", question));
        let ours = MessageId::authored("agnes", "k1");
        desk.we_sent(&asked, &ours, "<ours@desk.example>");
        let answer = Message {
            evidence: evidence(&asked, &ours),
            ..sender.clone()
        };
        let changes = desk.receive(&desk.event("support", "2", answer));
        let conversation = &changes.conversations.values().next().unwrap().row;
        let is_first = conversation.id == asked.messages[0].conversation_id;
        let goes = match (is_first, &conversation.suggested) {
            (true, _) => Goes::Joins,
            (false, Some(id)) if *id == asked.messages[0].conversation_id => Goes::Suggested,
            (false, _) => Goes::Alone,
        };
        assert_eq!(goes, expected, "{sender:?}");
    }
    let signed = |_: &Changes, ours: &MessageId| Evidence {
        signed_messages: vec![ours.clone()],
        ..Evidence::default()
    };
    let address = |asked: &Changes, _: &MessageId| Evidence {
        signed_conversations: vec![asked.messages[0].conversation_id.clone()],
        ..Evidence::default()
    };
    let quoted = |id: &'static str| {
        move |_: &Changes, _: &MessageId| Evidence {
            quoted_ids: vec![id.to_owned()],
            ..Evidence::default()
        }
    };
    check(from("anna@example.com", true), signed, Goes::Joins);
    check(from("ANNA@example.com", false), signed, Goes::Joins);
    check(from("carol@example.com", false), signed, Goes::Joins);
    check(from("stranger@example.net", true), signed, Goes::Suggested);
    check(from("anna@example.com", false), address, Goes::Joins);
    check(from("stranger@example.net", false), address, Goes::Suggested);
    check(
        from("anna@example.com", true),
        quoted("<ours@desk.example>"),
        Goes::Joins,
    );
    check(from("anna@example.com", true), quoted("<q@example.com>"), Goes::Joins);
    check(
        from("anna@example.com", false),
        quoted("<q@example.com>"),
        Goes::Suggested,
    );
    check(
        from("stranger@example.net", true),
        quoted("<q@example.com>"),
        Goes::Suggested,
    );
    check(
        from("anna@example.com", true),
        quoted("<unknown@example.com>"),
        Goes::Alone,
    );
    check(from("anna@example.com", true), |_, _| Evidence::default(), Goes::Alone);
}

/// C5: the clock of a sender's server may be behind ours, or count whole seconds.
#[test]
fn an_answer_comes_after_what_it_answers() {
    let check = |answered_after_ms: i64, evidence: Evidence, expected_after_ms: i64| {
        let mut desk = Desk::new(json!([]));
        let question = Message {
            external_ids: vec!["<q@example.com>".to_owned()],
            ..from("anna@example.com", true)
        };
        let asked = desk.receive(&desk.event("support", "1", question));
        let ticket_id = asked.tickets.first_key_value().unwrap().0.clone();
        desk.now = desk.now.plus_ms(60_000);
        let (sent_at, ours) = (desk.now, MessageId::authored("agnes", "k1"));
        desk.we_sent(&asked, &ours, "<ours@desk.example>");
        let resolution = Resolution {
            code: "solved".to_owned(),
            notes: None,
        };
        desk.command(&ticket_id, Command::Resolve { resolution });
        let message = Message {
            evidence,
            ..from("anna@example.com", true)
        };
        desk.now = sent_at.plus_ms(answered_after_ms);
        let changes = desk.receive(&desk.event("support", "2", message));
        let answer = &changes.messages[0];
        assert_eq!(answer.conversation_id, asked.messages[0].conversation_id);
        assert_eq!(answer.occurred_at.since_ms(sent_at), expected_after_ms);
        let is_reopened = changes.tickets[&ticket_id].row.category == Category::Open;
        // In whole seconds nobody knows which came first: it counts as new.
        assert_eq!(is_reopened, expected_after_ms > -1_000, "{answered_after_ms}");
    };
    let signed = Evidence {
        signed_messages: vec![MessageId::authored("agnes", "k1")],
        ..Evidence::default()
    };
    let quoted = Evidence {
        quoted_ids: vec!["<ours@desk.example>".to_owned()],
        ..Evidence::default()
    };
    let older = Evidence {
        quoted_ids: vec!["<q@example.com>".to_owned()],
        ..Evidence::default()
    };
    check(1_000, signed.clone(), 1_000);
    check(-437, signed, 1);
    check(-437, quoted.clone(), 1);
    check(-30_000, quoted, 1);
    // What quotes only the question may have crossed our answer.
    check(-437, older.clone(), -437);
    check(-1_000, older, -1_000);
}

#[test]
fn an_unverified_address_is_a_contact_of_its_own() {
    let mut desk = Desk::new(json!([]));
    let verified = desk.receive(&desk.event("support", "1", from("anna@example.com", true)));
    let claimed = desk.receive(&desk.event("support", "2", from("anna@example.com", false)));
    assert_ne!(verified.messages[0].author, claimed.messages[0].author);
    let again = desk.receive(&desk.event("support", "3", from("Anna@Example.com", true)));
    assert_eq!(again.messages[0].author, verified.messages[0].author);
}

#[test]
fn automatic_mail_is_recorded_and_never_answered() {
    let rule = json!([{ "name": "all", "then": { "kind": "case", "automatic_reply": "We have {{ticket.number}}." } }]);
    let rows = [
        (None, false, true, true),
        (None, true, true, false),
        (Some(Automatic::Generated), false, true, false),
        (Some(Automatic::List), false, true, false),
        (Some(Automatic::Reply), false, false, false),
        (Some(Automatic::Bounce), false, false, false),
        (Some(Automatic::Own), false, false, false),
    ];
    for (automatic, suppress_automatic_reply, opens, answers) in rows {
        let mut desk = Desk::new(rule.clone());
        let message = Message {
            automatic,
            suppress_automatic_reply,
            ..from("anna@example.com", true)
        };
        let changes = desk.receive(&desk.event("support", "1", message));
        let inbound = changes
            .messages
            .iter()
            .filter(|stored| stored.direction == Direction::Inbound)
            .count();
        assert_eq!(inbound, 1, "{automatic:?} is recorded");
        assert_eq!(!changes.tickets.is_empty(), opens, "{automatic:?} opens a ticket");
        assert_eq!(changes.outbox.len(), usize::from(answers), "{automatic:?} is answered");
        if answers {
            assert_eq!(changes.messages[1].message.text, "We have CS0000001.");
            assert_eq!(changes.messages[1].message.automatic, Some(Automatic::Reply));
        }
    }
    let mut desk = Desk::new(json!([]));
    let message = Message {
        automatic: Some(Automatic::Generated),
        ..from("monitor@example.com", true)
    };
    let changes = desk.receive(&desk.event("support", "1", message));
    assert!(
        changes.tickets.is_empty(),
        "without a rule a machine's message is only recorded"
    );
}

#[test]
fn automatic_replies_have_a_budget() {
    let mut desk = Desk::new(json!([{ "name": "all", "then": { "automatic_reply": "Thank you." } }]));
    let mut replies = 0;
    for n in 0..9 {
        let changes = desk.receive(&desk.event("support", &n.to_string(), from("anna@example.com", true)));
        replies += changes.outbox.len();
        if n == 5 {
            assert!(
                changes.traces[0].outcome.contains("no automatic reply"),
                "{}",
                changes.traces[0].outcome
            );
        }
    }
    assert_eq!(replies, 5);
}

#[test]
fn rules_decide_kind_queue_and_priority() {
    let mut desk = Desk::new(json!([{
        "name": "employees",
        "when": { "all": [
            { "field": "sender.employee", "operator": "is", "value": true },
            { "field": "subject", "operator": "contains", "value": "printer" }
        ] },
        "then": { "kind": "incident", "queue": "it", "impact": "medium", "urgency": "high" }
    }]));
    let changes = desk.receive(&desk.event("support", "1", from("emma@corp.example", true)));
    let (_, ticket) = ticket_of(&changes).unwrap();
    assert_eq!(
        (ticket.number.as_str(), ticket.queue.as_str(), ticket.priority.number()),
        ("INC0000001", "it", 2)
    );
    let trace = &changes.traces[0].rules[0];
    assert!(
        trace.matched && trace.conditions.iter().all(|leaf| leaf.holds),
        "{trace:?}"
    );
    // The address alone, unverified, is no employee's.
    let changes = desk.receive(&desk.event("support", "2", from("emma@corp.example", false)));
    assert_eq!(ticket_of(&changes).unwrap().1.kind, "case");
    assert!(!changes.traces[0].rules[0].matched);
}

#[test]
fn an_account_may_join_the_open_ticket() {
    let mut desk = Desk::new(json!([]));
    let first = desk.receive(&desk.event("bot", "1", from("anna", true)));
    let (ticket_id, _) = ticket_of(&first).unwrap();
    desk.now = desk.now.plus_ms(6 * DAY_MS);
    let second = desk.receive(&desk.event("bot", "2", from("anna", true)));
    assert_eq!(ticket_of(&second).unwrap().0, ticket_id);
    desk.now = desk.now.plus_ms(8 * DAY_MS);
    let third = desk.receive(&desk.event("bot", "3", from("anna", true)));
    assert_ne!(ticket_of(&third).unwrap().0, ticket_id);
    // An account that joins by thread opens another.
    let mail = desk.receive(&desk.event("support", "4", from("anna", true)));
    assert_ne!(ticket_of(&mail).unwrap().0, ticket_of(&third).unwrap().0);
}

#[test]
fn a_message_reopens_flags_or_follows() {
    let threaded = |text: &str| Message {
        evidence: Evidence {
            thread: Some("t".to_owned()),
            ..Evidence::default()
        },
        text: text.to_owned(),
        ..from("anna", true)
    };
    let solved = Resolution {
        code: "solved".to_owned(),
        notes: None,
    };
    let mut desk = Desk::new(json!([]));
    let first = desk.receive(&desk.event("bot", "1", threaded("broken")));
    let ticket_id = ticket_of(&first).unwrap().0.clone();
    let early = desk.event("bot", "2", threaded("still broken"));
    desk.now = desk.now.plus_ms(MINUTE_MS);
    desk.command(&ticket_id, Command::Resolve { resolution: solved });

    desk.now = desk.now.plus_ms(MINUTE_MS);
    let late = desk.receive(&early);
    let (_, ticket) = ticket_of(&late).unwrap();
    assert_eq!(ticket.category, Category::Resolved);
    assert!(ticket.needs_attention.is_some());

    let reopened = desk.receive(&desk.event("bot", "3", threaded("broken again")));
    assert_eq!(ticket_of(&reopened).unwrap().1.category, Category::Open);

    let resolution = Some(Resolution {
        code: "solved".to_owned(),
        notes: None,
    });
    desk.command(&ticket_id, Command::Close { resolution });
    desk.now = desk.now.plus_ms(MINUTE_MS);
    let followed = desk.receive(&desk.event("bot", "4", threaded("and again")));
    let (follower, _) = ticket_of(&followed).unwrap();
    assert_ne!(*follower, ticket_id);
    let links = followed
        .ticket_events
        .iter()
        .filter(|(_, event)| matches!(&event.change, Change::Linked { ticket_id: linked, .. } if *linked == ticket_id));
    assert_eq!(links.count(), 1);
    assert_eq!(
        followed.conversations.values().next().unwrap().row.ticket_id.as_ref(),
        Some(follower)
    );
}

#[test]
fn a_batch_replaces_what_it_read_first() {
    let mut desk = Desk::new(json!([]));
    for n in 0..3 {
        let message = Message {
            evidence: Evidence {
                thread: Some("t".to_owned()),
                ..Evidence::default()
            },
            ..from("anna", true)
        };
        desk.receive(&desk.event("bot", &n.to_string(), message));
    }
    let changes = desk.context.changes;
    assert_eq!(
        (
            changes.conversations.len(),
            changes.tickets.len(),
            changes.contacts.len()
        ),
        (1, 1, 1)
    );
    let conversation = changes.conversations.values().next().unwrap();
    assert_eq!(
        (
            conversation.expected_version,
            conversation.row.version,
            conversation.row.last_sequence
        ),
        (0, 3, 3)
    );
    let ticket = changes.tickets.values().next().unwrap();
    assert_eq!(ticket.expected_version, 0);
    for subject in [conversation.row.id.to_string(), ticket.row.id.to_string()] {
        let told = changes
            .announcements
            .iter()
            .filter(|announcement| announcement.subject == subject);
        let versions: Vec<i64> = told.map(|announcement| announcement.version).collect();
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>(), "gapless");
    }
    assert_eq!(ticket.row.version as usize, changes.ticket_events.len());
}

#[test]
fn delivery_states_never_go_back() {
    let mut desk = Desk::new(json!([]));
    let asked = desk.receive(&desk.event("support", "1", from("anna@example.com", true)));
    let ours = MessageId::authored("agnes", "k1");
    desk.we_sent(&asked, &ours, "<ours@desk.example>");
    let rows = [
        ("support", DeliveryState::Delivered, 1),
        ("support", DeliveryState::Sent, 0),
        ("support", DeliveryState::Delivered, 0),
        ("sales", DeliveryState::Read, 0),
        ("support", DeliveryState::Read, 1),
        ("support", DeliveryState::Failed, 0),
    ];
    for (account, state, moves) in rows {
        let report = DeliveryReport {
            external_id: "<ours@desk.example>".to_owned(),
            state,
            error: None,
        };
        let event = Event {
            body: Body::DeliveryReported(report),
            ..desk.event(account, "r", from("x", true))
        };
        let changes = desk.receive(&event);
        assert_eq!(changes.deliveries.len(), moves, "{account} {state:?}");
    }
}

#[test]
fn a_watermark_moves_what_was_written_before_it() {
    let mut desk = Desk::new(json!([]));
    let asked = desk.receive(&in_thread(&desk));
    let thread = ("bot".to_owned(), "t".to_owned());
    for (key, after_ms) in [("k1", 0), ("k2", 1_000)] {
        let reference = crate::context::MessageReference {
            message_id: MessageId::authored("agnes", key),
            conversation_id: asked.messages[0].conversation_id.clone(),
            account: "bot".to_owned(),
            delivery: Some(DeliveryState::Sent),
            occurred_at: desk.now.plus_ms(after_ms),
        };
        desk.context.unread.entry(thread.clone()).or_default().push(reference);
    }
    let rows = [
        (-1, DeliveryState::Read, 0),
        (0, DeliveryState::Delivered, 1),
        (0, DeliveryState::Delivered, 0),
        (1_000, DeliveryState::Read, 2),
        (1_000, DeliveryState::Delivered, 0),
    ];
    for (until_ms, state, moves) in rows {
        let watermark = Watermark {
            thread: "t".to_owned(),
            until: desk.now.plus_ms(until_ms),
            state,
        };
        let event = Event {
            id: "evt_1".to_owned(),
            body: Body::WatermarkMoved(watermark),
            ..desk.event("bot", "unused", from("x", true))
        };
        let changes = desk.receive(&event);
        assert_eq!(changes.deliveries.len(), moves, "{until_ms} {state:?}");
        assert_eq!(changes.announcements.len(), moves);
    }
}

/// Somebody of ours has written this at the vendor's own inbox.
fn from_elsewhere(desk: &Desk, external_id: &str) -> Event {
    let message = Message {
        external_ids: vec![external_id.to_owned()],
        evidence: Evidence {
            thread: Some("t".to_owned()),
            ..Evidence::default()
        },
        identities: vec![from("anna", true).sender],
        sender: Party {
            scheme: Party::OURS.to_owned(),
            address: "bot".to_owned(),
            name: None,
            verified: true,
        },
        ..from("unused", true)
    };
    desk.event("bot", external_id, message)
}

#[test]
fn what_we_wrote_elsewhere_answers_and_opens_nothing() {
    let mut desk = Desk::new(json!([]));
    let asked = desk.receive(&in_thread(&desk));
    let (ticket_id, _) = ticket_of(&asked).unwrap();
    let answered = desk.receive(&from_elsewhere(&desk, "m2"));
    let stored = &answered.messages[0];
    assert_eq!(stored.conversation_id, asked.messages[0].conversation_id);
    assert_eq!(
        (stored.direction, stored.delivery),
        (Direction::Outbound, Some(DeliveryState::Sent))
    );
    assert!(answered.outbox.is_empty() && answered.contacts.is_empty());
    assert_eq!(answered.ticket_events[0].0, *ticket_id);
    // Our own answer comes back: it is known by the vendor's id.
    let ours = MessageId::authored("agnes", "k1");
    desk.we_sent(&asked, &ours, "m3");
    assert!(desk.receive(&from_elsewhere(&desk, "m3")).is_empty());
}

#[test]
fn what_we_are_sending_is_known_by_its_words() {
    let message = |(text, files): (&str, usize)| Message {
        text: text.to_owned(),
        attachments: vec![Attachment::default(); files],
        ..from("unused", true)
    };
    let check_of = |delivery, later_ms, ours: (&str, usize), said: (&str, usize), expected: &str| {
        let mut desk = Desk::new(json!([]));
        let asked = desk.receive(&in_thread(&desk));
        let reference = crate::context::MessageReference {
            message_id: MessageId::authored("agnes", "k1"),
            conversation_id: asked.messages[0].conversation_id.clone(),
            account: "bot".to_owned(),
            delivery: Some(delivery),
            occurred_at: desk.now,
        };
        let thread = ("bot".to_owned(), "t".to_owned());
        desk.context.in_flight.insert(thread, vec![(reference, message(ours))]);
        let mut event = from_elsewhere(&desk, "m2");
        event.occurred_at = desk.now.plus_ms(later_ms);
        if let Body::MessageReceived(shown) = &mut event.body {
            let Message { text, attachments, .. } = message(said);
            (shown.text, shown.attachments) = (text, attachments);
        }
        let changes = desk.receive(&event);
        let found = match (changes.messages.len(), changes.deliveries.len(), changes.named.len()) {
            (0, 1, 1) => "all of it",
            (0, 0, 1) => "a part",
            (1, 0, 0) => "another",
            _ => panic!("{changes:?}"),
        };
        assert_eq!(found, expected, "{ours:?} {said:?}");
        if found != "another" {
            assert!(desk.receive(&event).is_empty(), "twice is once");
        }
    };
    let check = |ours, said, expected| check_of(DeliveryState::Queued, 0, ours, said, expected);
    let long = "A sentence of many. ".repeat(60);
    check(("Yes.", 0), ("Yes.", 0), "all of it");
    check(("Yes. ", 0), (" Yes.", 0), "all of it");
    check(("Yes.", 0), ("No.", 0), "another");
    check(("Yes, we do.", 0), ("Yes", 0), "another");
    check(("Yes.", 0), ("", 1), "another");
    check((&long, 0), (&long[..400], 0), "a part");
    check((&long, 0), ("A sentence of many.", 0), "another");
    check((&long, 0), ("A sentence of few.", 0), "another");
    check(("See here.", 1), ("See here.", 0), "a part");
    check(("See here.", 1), ("", 1), "a part");
    check(("", 1), ("", 1), "all of it");
    check(("", 2), ("", 1), "a part");
    check(("", 1), ("", 0), "another");
    // Nobody knows whether it has left: its words tell, a file does not.
    let uncertain = DeliveryState::Uncertain;
    check_of(uncertain, 0, ("Yes.", 0), ("Yes.", 0), "all of it");
    check_of(uncertain, 0, ("", 1), ("", 1), "another");
    // It comes back soon, and not before it was written.
    check_of(uncertain, 10 * MINUTE_MS, ("Yes.", 0), ("Yes.", 0), "all of it");
    check_of(uncertain, 10 * MINUTE_MS + 1, ("Yes.", 0), ("Yes.", 0), "another");
    check_of(uncertain, -5_000, ("Yes.", 0), ("Yes.", 0), "all of it");
    check_of(uncertain, -MINUTE_MS, ("Yes.", 0), ("Yes.", 0), "another");
}

#[test]
fn the_latest_word_of_a_vendor_on_an_account_counts() {
    let mut desk = Desk::new(json!([]));
    for (minutes, reason) in [(2, "taken out"), (1, "warned")] {
        let mut event = in_thread(&desk);
        event.occurred_at = desk.now.plus_ms(minutes * MINUTE_MS);
        event.body = Body::AccountBroken {
            reason: reason.to_owned(),
        };
        desk.receive(&event);
    }
    let latest = (desk.now.plus_ms(2 * MINUTE_MS), "taken out".to_owned());
    assert_eq!(desk.context.changes.broken_accounts["bot"], latest);
}

#[test]
fn each_of_ours_comes_back_once() {
    let mut desk = Desk::new(json!([]));
    let asked = desk.receive(&in_thread(&desk));
    let ours = |key: &str, delivery| {
        let reference = crate::context::MessageReference {
            message_id: MessageId::authored("agnes", key),
            conversation_id: asked.messages[0].conversation_id.clone(),
            account: "bot".to_owned(),
            delivery: Some(delivery),
            occurred_at: desk.now,
        };
        let Body::MessageReceived(shown) = from_elsewhere(&desk, "m2").body else {
            panic!("it is a message");
        };
        (reference, *shown)
    };
    let on_their_way = vec![
        ours("k1", DeliveryState::Failed),
        ours("k2", DeliveryState::Uncertain),
        ours("k3", DeliveryState::Queued),
    ];
    let thread = ("bot".to_owned(), "t".to_owned());
    desk.context.in_flight.insert(thread, on_their_way);
    for (external_id, expected) in [("m2", Some("k3")), ("m3", Some("k2")), ("m4", None)] {
        let changes = desk.receive(&from_elsewhere(&desk, external_id));
        let found = changes.deliveries.first().map(|(id, _)| id.clone());
        assert_eq!(
            found,
            expected.map(|key| MessageId::authored("agnes", key)),
            "{external_id}"
        );
        assert_eq!(changes.messages.len(), usize::from(expected.is_none()), "{external_id}");
    }
}

#[test]
fn whom_we_write_to_elsewhere_is_known_when_they_answer() {
    let mut desk = Desk::new(json!([]));
    let begun = desk.receive(&from_elsewhere(&desk, "m0"));
    assert!(begun.tickets.is_empty(), "nobody has asked for anything");
    let contact = begun.contacts[0].id.clone();
    let answered = desk.receive(&in_thread(&desk));
    assert_eq!(answered.messages[0].conversation_id, begun.messages[0].conversation_id);
    assert_eq!(answered.messages[0].author, contact.to_string());
    assert!(ticket_of(&answered).is_some());
}

fn changed(desk: &Desk, id: &str, external_id: &str, change: change::Change) -> Event {
    Event {
        id: id.to_owned(),
        body: Body::MessageChanged(Box::new(MessageChange {
            external_id: external_id.to_owned(),
            change,
        })),
        ..desk.event("bot", "unused", from("x", true))
    }
}

fn edited(text: &str) -> change::Change {
    change::Change::Edited {
        text: text.to_owned(),
        html: None,
    }
}

/// A message of the thread `t`, called `m1` by the provider.
fn in_thread(desk: &Desk) -> Event {
    let message = Message {
        external_ids: vec!["m1".to_owned()],
        evidence: Evidence {
            thread: Some("t".to_owned()),
            ..Evidence::default()
        },
        ..from("anna", true)
    };
    desk.event("bot", "m1", message)
}

#[test]
fn a_change_moves_its_message_once_and_is_announced() {
    let mut desk = Desk::new(json!([]));
    let asked = desk.receive(&in_thread(&desk));
    let message_id = asked.messages[0].id.clone();
    let event = changed(&desk, "evt_1", "m1", edited("It is out."));
    let changes = desk.receive(&event);
    let (message, stands) = &changes.changed_messages[&message_id];
    assert_eq!(message.text, "It is out.");
    assert_eq!(stands.edited_at, Some(event.occurred_at));
    let told: Vec<_> = changes.announcements.iter().map(|told| told.kind.as_str()).collect();
    assert!(told.contains(&"message.changed"), "{told:?}");
    // An edit by the contact may be missed by whoever has read the message.
    assert!(changes.tickets.values().next().unwrap().row.needs_attention.is_some());
    assert!(desk.receive(&event).is_empty(), "a repeat");
    // It says what stands there already.
    let changes = desk.receive(&changed(&desk, "evt_3", "m1", edited("It is out.")));
    assert!(changes.tickets.is_empty(), "{changes:?}");

    let reaction = change::Change::Reacted {
        by: "anna".to_owned(),
        emojis: vec!["👍".to_owned()],
        how: Reacting::Only,
    };
    let changes = desk.receive(&changed(&desk, "evt_2", "m1", reaction));
    let (message, stands) = &changes.changed_messages[&message_id];
    assert_eq!((message.text.as_str(), stands.reactions.len()), ("It is out.", 1));
    assert!(changes.tickets.is_empty());
}

#[test]
fn a_change_that_comes_first_waits_for_its_message() {
    let mut desk = Desk::new(json!([]));
    let early = changed(&desk, "evt_1", "m1", edited("It is out."));
    let changes = desk.receive(&early);
    assert_eq!(changes.message_changes["evt_1"].message_id, None);
    assert!(changes.announcements.is_empty());
    assert!(desk.receive(&early).is_empty(), "a repeat");
    let asked = desk.receive(&in_thread(&desk));
    let message_id = &asked.messages[0].id;
    assert_eq!(asked.changed_messages[message_id].0.text, "It is out.");
    assert_eq!(asked.message_changes["evt_1"].message_id.as_ref(), Some(message_id));
    assert!(desk.receive(&early).is_empty(), "a repeat");
    assert_eq!(asked.messages[0].message.text, "It is on fire.");

    // Of another account: not this message's.
    let mut elsewhere = changed(&desk, "evt_2", "m1", edited("x"));
    elsewhere.account = "support".to_owned();
    assert!(desk.receive(&elsewhere).changed_messages.is_empty());
}

#[test]
fn who_opted_out_gets_no_answer_until_they_opt_in() {
    let mut desk = Desk::new(json!([]));
    desk.receive(&in_thread(&desk));
    let consent = |desk: &Desk, given: bool, at: i64| Event {
        id: format!("evt_{at}"),
        occurred_at: desk.now.plus_ms(at),
        body: Body::ConsentChanged(ConsentChange {
            thread: "t".to_owned(),
            given,
            reason: if given { "START" } else { "STOP" }.to_owned(),
        }),
        ..desk.event("bot", "unused", from("x", true))
    };
    let steps = [
        (true, 1, false, true),
        (false, 3, true, false),
        (false, 3, false, false),
        (true, 2, false, false),
        (true, 4, true, true),
    ];
    for (given, at, is_news, may_write) in steps {
        let changes = desk.receive(&consent(&desk, given, at));
        assert_eq!(!changes.is_empty(), is_news, "{given} {at}");
        let conversation = desk.context.conversations.values().next().unwrap();
        let refused = conversation.may_write().map_err(|refusal| refusal.code);
        assert_eq!(
            refused,
            if may_write { Ok(()) } else { Err("opted_out") },
            "{given} {at}"
        );
    }
}

#[test]
fn a_trace_is_bounded() {
    let mut desk = Desk::new(json!([{
        "name": "long",
        "when": { "field": "text", "operator": "contains", "value": "x".repeat(3000) },
        "then": {}
    }]));
    let mut message = from("anna@example.com", true);
    message.text = "ä€ ".repeat(100_000);
    message.subject = Some("s".repeat(10_000));
    message.recipients = (0..1000)
        .map(|n| Recipient {
            role: "to".to_owned(),
            address: format!("r{n}@example.com"),
            name: None,
        })
        .collect();
    let changes = desk.receive(&desk.event("support", "1", message));
    let size = serde_json::to_vec(&changes.traces[0]).unwrap().len();
    assert!(size <= Trace::MAX_BYTES, "{size}");
}
