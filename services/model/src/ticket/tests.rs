use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::link::Relation;
use super::*;
use crate::calendar::Calendar;
use crate::error::Refusal;
use crate::sla::{Book, ClockState, Policy};

const MINUTE_MS: i64 = 60_000;

/// A ticket's life: commands at minutes since its opening.
struct Story {
    ticket: Ticket,
    events: Vec<TicketEvent>,
    book: Book,
    /// Tuesday, 24 November 2026, 09:00 UTC.
    opened_at: Moment,
    messages: u64,
}

fn book(policy: serde_json::Value) -> Book {
    let mut book = Book::default();
    let policy: Policy = serde_json::from_value(policy).unwrap();
    let day = ["08:00-12:00", "13:00-17:00"];
    let office: Calendar = serde_json::from_value(json!({
        "name": "office", "time_zone": "UTC", "hours": { "mon": day, "tue": day, "wed": day, "thu": day, "fri": day }
    }))
    .unwrap();
    book.policies.insert((policy.name.clone(), 1), Arc::new(policy));
    book.calendars
        .insert(("office".to_owned(), 1), Arc::new(office.compile().unwrap()));
    book
}

fn standard() -> serde_json::Value {
    json!({ "name": "standard", "first_response": "1h", "next_response": "2h", "resolution": "10h" })
}

fn opening(kind: &str, at: Moment) -> Opening {
    let message_id = MessageId::received("support", "email", "first");
    Opening {
        id: TicketId::opened_by(&message_id),
        number: "CS0000001".to_owned(),
        kind: kind.to_owned(),
        subject: "Printer".to_owned(),
        contact_id: ContactId::met_by(&message_id),
        conversation_id: ConversationId::begun_by(&message_id),
        message_id,
        queue: "support".to_owned(),
        impact: Level::Low,
        urgency: Level::Medium,
        policy: Some(PolicyReference {
            name: "standard".to_owned(),
            version: 1,
            calendar_version: 1,
        }),
        tags: vec!["vip".to_owned()],
        follows: None,
        at,
    }
}

fn emma() -> Actor {
    Actor::Person("emma".to_owned())
}

fn resolution(code: &str) -> Resolution {
    Resolution {
        code: code.to_owned(),
        notes: None,
    }
}

fn solved() -> Command {
    Command::Resolve {
        resolution: resolution("solved_with_workaround"),
    }
}

fn hold(waiting_on: WaitingOn) -> Command {
    Command::Hold { waiting_on }
}

impl Story {
    fn begin(kind: &str, policy: serde_json::Value) -> Self {
        let book = book(policy);
        let opened_at = Moment::parse("2026-11-24T09:00:00Z").unwrap();
        let opening = opening(kind, opened_at);
        let contact = Actor::Contact(opening.contact_id.clone());
        let events = open(&opening, &contact, opened_at).unwrap();
        let ticket = Ticket::fold(&opening.id, &events, &book).unwrap();
        Self {
            ticket,
            events,
            book,
            opened_at,
            messages: 0,
        }
    }

    fn moment(&self, minute: i64) -> Moment {
        self.opened_at.plus_ms(minute * MINUTE_MS)
    }

    fn minute(&self, moment: Moment) -> i64 {
        moment.since_ms(self.opened_at) / MINUTE_MS
    }

    fn run(&mut self, minute: i64, command: Command) -> Result<Vec<Change>, Refusal> {
        let now = self.moment(minute);
        let events = handle(&self.ticket, &command, &emma(), now)?;
        for event in &events {
            assert_eq!(event.recorded_at, now);
            self.ticket.apply(event, &self.book);
            assert_eq!(self.ticket.version, event.version, "versions are gapless");
        }
        let changes = events.iter().map(|event| event.change.clone()).collect();
        self.events.extend(events);
        Ok(changes)
    }

    fn next_message(&mut self) -> MessageId {
        self.messages += 1;
        MessageId::received("support", "email", &self.messages.to_string())
    }

    /// The contact writes: sent and received, and now processed.
    fn receive(&mut self, sent: i64, received: i64, now: i64, automatic: bool) -> Result<Vec<Change>, Refusal> {
        let message_id = self.next_message();
        let command = Command::Receive {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            is_new_conversation: false,
            at: self.moment(received),
            occurred_at: self.moment(sent),
            automatic,
        };
        self.run(now, command)
    }

    fn write(&mut self, minute: i64) -> Vec<Change> {
        self.receive(minute, minute, minute, false).unwrap()
    }

    fn reply(&mut self, minute: i64) -> Vec<Change> {
        let message_id = self.next_message();
        let automatic = false;
        self.run(minute, Command::Reply { message_id, automatic }).unwrap()
    }

    fn clock(&self, metric: Metric) -> &Clock {
        self.ticket.clocks.iter().find(|clock| clock.metric == metric).unwrap()
    }

    /// The clock in one line, times in minutes since the opening.
    fn shows(&self, metric: Metric) -> String {
        let clock = self.clock(metric);
        let minute = |moment: Option<Moment>| moment.map_or("-".to_owned(), |at| self.minute(at).to_string());
        format!(
            "{:?} from {} since {} elapsed {} due {} next {} warned {} breached {}",
            clock.state,
            self.minute(clock.started_at),
            self.minute(clock.since),
            clock.elapsed_ms / MINUTE_MS,
            minute(clock.due_at),
            minute(clock.next_at),
            minute(clock.warned_at),
            minute(clock.breached_at),
        )
    }
}

#[test]
fn opens() {
    let story = Story::begin("case", standard());
    let ticket = &story.ticket;
    assert_eq!((ticket.state.as_str(), ticket.category), ("new", Category::Open));
    assert_eq!((ticket.version, ticket.priority.number()), (2, 4));
    assert_eq!(ticket.tags, ["vip"]);
    assert_eq!(
        (ticket.opened_at, ticket.updated_at),
        (story.opened_at, story.opened_at)
    );
    let metrics: Vec<_> = ticket.clocks.iter().map(|clock| clock.metric).collect();
    assert_eq!(metrics, [Metric::FirstResponse, Metric::Resolution]);

    // Clocks run from when the message came, not from when it was processed.
    let mut opening = opening("incident", story.opened_at);
    opening.follows = Some(TicketId::opened_by(&MessageId::received("a", "b", "c")));
    let now = story.opened_at.plus_ms(7 * MINUTE_MS);
    let events = open(&opening, &Actor::Rule("it".to_owned()), now).unwrap();
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    assert_eq!(versions, [1, 2, 3]);
    assert!(
        events
            .iter()
            .all(|event| (event.at, event.recorded_at) == (opening.at, now))
    );
    assert!(matches!(
        events[2].change,
        Change::Linked {
            relation: Relation::Follows,
            ..
        }
    ));
    let ticket = Ticket::fold(&opening.id, &events, &story.book).unwrap();
    assert_eq!(ticket.clocks[0].started_at, opening.at);
    assert_eq!(ticket.updated_at, now);

    opening.kind = "complaint".to_owned();
    let refusal = open(&opening, &emma(), now).unwrap_err();
    assert_eq!(refusal.code, "invalid");
    assert!(refusal.detail.contains("case, incident"), "{refusal}");
}

/// Brings a new ticket to that state.
fn in_state(kind: &str, state: &str) -> Story {
    let mut story = Story::begin(kind, standard());
    let path = match state {
        "new" => vec![],
        "open" | "in_progress" => vec![Command::Assign {
            assignee: Some("emma".to_owned()),
        }],
        "awaiting_info" | "awaiting_caller" => vec![hold(WaitingOn::Customer)],
        "on_hold" => vec![hold(WaitingOn::Internal)],
        "resolved" => vec![solved()],
        "closed" => vec![solved(), Command::Close { resolution: None }],
        "cancelled" => vec![Command::Cancel],
        _ => unreachable!("{state}"),
    };
    for command in path {
        story.run(10, command).unwrap();
    }
    assert_eq!(story.ticket.state, state);
    story
}

/// Each verb in each state: the state after it; `=`: nothing happens; `x`: refused.
#[test]
fn each_verb_in_each_state() {
    let table = "
        state     hold_customer hold_internal resolve  reopen close  cancel    assign   reply    receive add_conversation
        new       waiting       on_hold       resolved =      closed cancelled working  working  new     new
        working   waiting       on_hold       resolved =      closed cancelled working  working  working working
        waiting   =             on_hold       resolved working closed cancelled waiting waiting  working waiting
        on_hold   waiting       =             resolved working closed cancelled on_hold on_hold  on_hold on_hold
        resolved  x             x             =        working closed x        resolved resolved working resolved
        closed    x             x             x        x      =      x         x        x        x       x
        cancelled x             x             x        x      x      =         x        x        x       x
    ";
    let kinds = [
        ("case", "open", "awaiting_info"),
        ("incident", "in_progress", "awaiting_caller"),
    ];
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let rows: Vec<_> = rows.into_iter().filter(|row| !row.is_empty()).collect();
    assert!(rows.len() == 8 && rows.iter().all(|row| row.len() == 11));
    for (kind, working, waiting) in kinds {
        let named = |name: &'static str| match name {
            "working" => working,
            "waiting" => waiting,
            name => name,
        };
        for row in &rows[1..] {
            for (verb, expected) in rows[0].iter().zip(row).skip(1) {
                check_verb(kind, named(row[0]), verb, named(expected));
            }
        }
    }
}

fn check_verb(kind: &str, state: &str, verb: &str, expected: &str) {
    let mut story = in_state(kind, state);
    let before = story.ticket.clone();
    let message_id = story.next_message();
    let automatic = false;
    let close = Some(resolution("solved_with_workaround"));
    let command = match verb {
        "hold_customer" => hold(WaitingOn::Customer),
        "hold_internal" => hold(WaitingOn::Internal),
        "resolve" => solved(),
        "reopen" => Command::Reopen,
        "close" => Command::Close { resolution: close },
        "cancel" => Command::Cancel,
        "assign" => Command::Assign {
            assignee: Some("otto".to_owned()),
        },
        "reply" => Command::Reply { message_id, automatic },
        "add_conversation" => Command::AddConversation {
            conversation_id: ConversationId::begun_by(&message_id),
        },
        "receive" => Command::Receive {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            is_new_conversation: false,
            at: story.moment(20),
            occurred_at: story.moment(20),
            automatic,
        },
        _ => unreachable!("{verb}"),
    };
    let result = story.run(20, command);
    let label = format!("{kind}: {verb} on {state}");
    match (expected, result) {
        ("x", Err(refusal)) => {
            assert_eq!(refusal.code, "wrong_state", "{label}");
            assert!(
                refusal
                    .detail
                    .contains(&format!("the ticket is {state}; possible: note")),
                "{label}: {refusal}"
            );
            let possible = story.ticket.possible_verbs();
            assert!(!possible.contains(&verb), "{label}: {possible:?}");
            if ["closed", "cancelled"].contains(&state) {
                assert!(
                    refusal.detail.contains("a new message from the contact opens"),
                    "{label}: {refusal}"
                );
            }
        }
        ("=", Ok(changes)) => {
            assert_eq!(changes, [], "{label}");
            assert_eq!(story.ticket, before, "{label}");
        }
        (expected, Ok(changes)) => {
            assert!(!changes.is_empty(), "{label}");
            assert_eq!(story.ticket.state, expected, "{label}");
            let state = kind::find(kind).unwrap().state(expected).unwrap();
            assert_eq!(story.ticket.category, state.category, "{label}");
        }
        (expected, Err(refusal)) => panic!("{label}: expected {expected}, was refused: {refusal}"),
    }
}

#[test]
fn what_is_possible_is_said() {
    let check = |state: &str, expected: &[&str]| assert_eq!(in_state("case", state).ticket.possible_verbs(), expected);
    check(
        "new",
        &[
            "note",
            "reply",
            "assign",
            "prioritise",
            "hold",
            "resolve",
            "close",
            "cancel",
        ],
    );
    check(
        "on_hold",
        &[
            "note",
            "reply",
            "assign",
            "prioritise",
            "hold",
            "resolve",
            "reopen",
            "close",
            "cancel",
        ],
    );
    check(
        "resolved",
        &["note", "reply", "assign", "prioritise", "reopen", "close"],
    );
    check("closed", &["note"]);
    check("cancelled", &["note"]);
}

#[test]
fn an_end_needs_a_resolution_code() {
    let check = |state: &str, command: Command, expected: Result<&str, &str>| {
        let mut story = in_state("case", state);
        match (story.run(20, command), expected) {
            (Ok(_), Ok(code)) => assert_eq!(story.ticket.resolution.unwrap().code, code),
            (Err(refusal), Err(part)) => {
                assert_eq!(refusal.code, "invalid");
                assert!(refusal.detail.contains(part), "{refusal}");
                assert!(refusal.detail.contains("a case has solved, "), "{refusal}");
            }
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    };
    let close = |code: Option<&str>| Command::Close {
        resolution: code.map(resolution),
    };
    let resolve = |code: &str| Command::Resolve {
        resolution: resolution(code),
    };
    check("open", resolve("solved"), Ok("solved"));
    check(
        "open",
        resolve("no_fault_found"),
        Err("unknown resolution code `no_fault_found`"),
    );
    check("open", resolve(""), Err("unknown resolution code ``"));
    check("open", close(Some("spam")), Ok("spam"));
    check(
        "open",
        close(None),
        Err("to close a ticket that is open needs a resolution code"),
    );
    check("open", close(Some("Solved")), Err("unknown resolution code `Solved`"));
    check("resolved", close(None), Ok("solved_with_workaround"));
    check("resolved", close(Some("duplicate")), Ok("duplicate"));

    let mut story = in_state("case", "resolved");
    assert_eq!(
        story.run(20, resolve("duplicate")).unwrap_err().code,
        "wrong_state",
        "another resolution"
    );
    assert!(in_state("incident", "new").run(20, resolve("no_fault_found")).is_ok());
}

#[test]
fn resolution_and_its_moments_follow_the_state() {
    let mut story = in_state("case", "resolved");
    assert_eq!(story.ticket.resolved_at, Some(story.moment(10)));
    story.run(20, Command::Reopen).unwrap();
    assert_eq!((&story.ticket.resolution, story.ticket.resolved_at), (&None, None));
    let resolution = Some(resolution("solved"));
    story.run(30, Command::Close { resolution }).unwrap();
    assert_eq!(story.ticket.resolved_at, Some(story.moment(30)));
    assert_eq!(story.ticket.closed_at, Some(story.moment(30)));

    let mut story = in_state("case", "resolved");
    story.run(40, Command::Close { resolution: None }).unwrap();
    assert_eq!(story.ticket.resolved_at, Some(story.moment(10)));
    assert_eq!(story.ticket.closed_at, Some(story.moment(40)));
    let story = in_state("case", "cancelled");
    assert_eq!(
        (story.ticket.resolved_at, story.ticket.closed_at),
        (None, Some(story.moment(10)))
    );
}

#[test]
fn late_messages_reopen_nothing_and_flag() {
    for state in ["resolved", "closed", "cancelled"] {
        // Sent at 9, resolved at 10, received at 15.
        let mut story = in_state("case", state);
        let changes = story.receive(9, 15, 20, false).unwrap();
        assert!(matches!(
            changes[0],
            Change::CustomerMessageReceived {
                late: true,
                automatic: false,
                ..
            }
        ));
        assert!(matches!(changes[1], Change::AttentionNeeded { .. }), "{changes:?}");
        assert_eq!((changes.len(), story.ticket.state.as_str()), (2, state));
        let reason = story.ticket.needs_attention.clone().unwrap();
        assert!(reason.contains(state), "{reason}");
        // A note says that somebody has seen it.
        let message_id = story.next_message();
        story.run(30, Command::Note { message_id }).unwrap();
        assert_eq!(story.ticket.needs_attention, None);
        // At the very moment of the resolution is not before it.
        let result = story.receive(10, 15, 20, false);
        assert_eq!(result.is_ok(), state == "resolved");
    }
    let mut story = in_state("case", "resolved");
    story.receive(9, 15, 20, false).unwrap();
    let message_id = story.next_message();
    let automatic = true;
    story.run(25, Command::Reply { message_id, automatic }).unwrap();
    assert!(story.ticket.needs_attention.is_some(), "a machine has seen nothing");
    story.reply(30);
    assert_eq!(story.ticket.needs_attention, None);
}

#[test]
fn automatic_messages_change_no_state() {
    for state in ["new", "open", "awaiting_info", "on_hold", "resolved"] {
        let mut story = in_state("case", state);
        let clocks = story.ticket.clocks.clone();
        let changes = story.receive(20, 20, 20, true).unwrap();
        assert!(
            matches!(changes[..], [Change::CustomerMessageReceived { automatic: true, .. }]),
            "{changes:?}"
        );
        assert_eq!(story.ticket.state, state);
        assert_eq!(story.ticket.clocks, clocks);
        // Late ones flag nothing.
        story.receive(1, 21, 21, true).unwrap();
        assert_eq!(
            (story.ticket.state.as_str(), &story.ticket.needs_attention),
            (state, &None)
        );
    }
    assert!(in_state("case", "closed").receive(20, 20, 20, true).is_err());
}

#[test]
fn a_message_on_another_conversation_adds_it() {
    let mut story = in_state("case", "awaiting_info");
    let message_id = story.next_message();
    let conversation_id = ConversationId::begun_by(&message_id);
    let command = Command::Receive {
        message_id,
        conversation_id: conversation_id.clone(),
        is_new_conversation: true,
        at: story.moment(20),
        occurred_at: story.moment(19),
        automatic: false,
    };
    let changes = story.run(25, command).unwrap();
    assert_eq!(changes[0], Change::ConversationAdded { conversation_id });
    assert!(matches!(
        changes[1],
        Change::CustomerMessageReceived { late: false, .. }
    ));
    assert!(matches!(
        changes[2],
        Change::StateChanged {
            category: Category::Open,
            ..
        }
    ));
    assert!(story.events[3..].iter().all(|event| event.at == story.moment(20)));
}

#[test]
fn the_first_person_begins_and_a_machine_does_not() {
    let mut story = Story::begin("incident", standard());
    let message_id = story.next_message();
    let automatic = true;
    story.run(1, Command::Reply { message_id, automatic }).unwrap();
    assert_eq!(
        (story.ticket.state.as_str(), story.ticket.first_reply_at),
        ("new", None)
    );
    assert_eq!(story.run(2, Command::Assign { assignee: None }).unwrap(), []);
    assert_eq!(story.reply(3).len(), 2);
    assert_eq!(story.ticket.state, "in_progress");
    assert_eq!(story.reply(4).len(), 1);
    assert_eq!(story.ticket.first_reply_at, Some(story.moment(3)));

    let mut story = Story::begin("case", standard());
    let to = |name: &str| Command::Assign {
        assignee: Some(name.to_owned()),
    };
    assert_eq!(story.run(1, to("emma")).unwrap().len(), 2);
    assert_eq!(story.run(2, to("emma")).unwrap(), []);
    assert_eq!(story.run(3, to("otto")).unwrap().len(), 1);
    assert_eq!(story.run(4, Command::Assign { assignee: None }).unwrap().len(), 1);
    assert_eq!(
        (story.ticket.assignee.as_ref(), story.ticket.state.as_str()),
        (None, "open")
    );
    assert_eq!(story.run(5, to(" ")).unwrap_err().code, "invalid");
}

#[test]
fn attention_links_and_priority() {
    let mut story = in_state("case", "open");
    let reason = "an answer could not be delivered".to_owned();
    let flag = Command::NeedAttention { reason };
    assert_eq!(story.run(20, flag.clone()).unwrap().len(), 1);
    assert_eq!(story.run(21, flag).unwrap(), []);
    let relation = Relation::Follows;
    let ticket_id = story.ticket.id.clone();
    assert_eq!(
        story.run(22, Command::Link { relation, ticket_id }).unwrap_err().code,
        "invalid"
    );
    let (impact, urgency) = (Level::High, Level::High);
    assert_eq!(story.run(23, Command::Prioritise { impact, urgency }).unwrap().len(), 1);
    assert_eq!(story.ticket.priority.number(), 1);
    assert_eq!(story.run(24, Command::Prioritise { impact, urgency }).unwrap(), []);
    let mut closed = in_state("case", "closed");
    assert_eq!(
        closed
            .run(25, Command::Prioritise { impact, urgency })
            .unwrap_err()
            .code,
        "wrong_state"
    );
}

#[test]
fn events_that_are_not_next_change_nothing() {
    let mut story = in_state("case", "open");
    let before = story.ticket.clone();
    let events = story.events.clone();
    for event in &events {
        story.ticket.apply(event, &story.book);
    }
    for version in [i64::MIN, -1, 0, before.version, before.version + 2] {
        let change = Change::AttentionNeeded { reason: "x".to_owned() };
        let event = TicketEvent {
            version,
            change,
            ..events[0].clone()
        };
        story.ticket.apply(&event, &story.book);
    }
    assert_eq!(story.ticket, before);
    assert!(Ticket::fold(&before.id, &[], &story.book).is_none());
    assert!(Ticket::fold(&before.id, &events[1..], &story.book).is_none());
}

#[test]
fn categories_have_one_name() {
    let categories = [
        Category::Open,
        Category::WaitingOnCustomer,
        Category::WaitingInternally,
        Category::Resolved,
        Category::Closed,
        Category::Cancelled,
    ];
    for category in categories {
        assert_eq!(serde_json::to_value(category).unwrap(), category.as_str());
    }
}

#[test]
fn json_keeps_everything() {
    let mut story = in_state("case", "resolved");
    story.receive(9, 15, 20, false).unwrap();
    let text = serde_json::to_string(&(&story.ticket, &story.events)).unwrap();
    let (ticket, events): (Ticket, Vec<TicketEvent>) = serde_json::from_str(&text).unwrap();
    assert_eq!((&ticket, &events), (&story.ticket, &story.events));
}

#[test]
fn first_response_runs_from_the_opening_to_a_persons_reply() {
    let first = Metric::FirstResponse;
    let mut story = Story::begin("case", standard());
    assert_eq!(
        story.shows(first),
        "Running from 0 since 0 elapsed 0 due 60 next 45 warned - breached -"
    );
    // Neither notes, assignments, machines nor waiting touch it.
    let message_id = story.next_message();
    story
        .run(
            1,
            Command::Note {
                message_id: message_id.clone(),
            },
        )
        .unwrap();
    story
        .run(
            2,
            Command::Reply {
                message_id,
                automatic: true,
            },
        )
        .unwrap();
    story.run(3, hold(WaitingOn::Customer)).unwrap();
    story.write(4);
    assert_eq!(
        story.shows(first),
        "Running from 0 since 0 elapsed 0 due 60 next 45 warned - breached -"
    );
    assert!(
        story
            .ticket
            .clocks
            .iter()
            .all(|clock| clock.metric != Metric::NextResponse)
    );
    story.reply(30);
    assert_eq!(
        story.shows(first),
        "Met from 0 since 30 elapsed 30 due - next - warned - breached -"
    );
    story.reply(200);
    assert_eq!(
        story.shows(first),
        "Met from 0 since 30 elapsed 30 due - next - warned - breached -"
    );
}

#[test]
fn a_clock_warns_once_and_is_breached_once() {
    let first = Metric::FirstResponse;
    let due = || Command::ClockDue { metric: first };
    let mut story = Story::begin("case", standard());
    assert_eq!(story.run(44, due()).unwrap(), []);
    let due_at = story.moment(60);
    assert_eq!(
        story.run(45, due()).unwrap(),
        [Change::ClockWarned { metric: first, due_at }]
    );
    assert_eq!(story.run(45, due()).unwrap(), []);
    assert_eq!(
        story.shows(first),
        "Running from 0 since 0 elapsed 0 due 60 next 60 warned 45 breached -"
    );
    assert_eq!(
        story.run(60, due()).unwrap(),
        [Change::ClockBreached { metric: first, due_at }]
    );
    assert_eq!(story.run(61, due()).unwrap(), []);
    assert_eq!(
        story.shows(first),
        "Running from 0 since 0 elapsed 0 due 60 next - warned 45 breached 60"
    );
    story.reply(90);
    assert_eq!(
        story.shows(first),
        "Met from 0 since 90 elapsed 90 due - next - warned 45 breached 60"
    );

    // Nobody looked until it was too late: the warning is left out.
    let mut story = Story::begin("case", standard());
    assert_eq!(
        story.run(99, due()).unwrap(),
        [Change::ClockBreached { metric: first, due_at }]
    );
    assert_eq!(story.run(99, due()).unwrap(), []);
    // Nobody looked at all.
    let mut story = Story::begin("case", standard());
    story.reply(61);
    assert_eq!(
        story.shows(first),
        "Met from 0 since 61 elapsed 61 due - next - warned - breached 60"
    );
    let mut story = Story::begin("case", standard());
    story.reply(60);
    assert_eq!(
        story.shows(first),
        "Met from 0 since 60 elapsed 60 due - next - warned - breached -"
    );
    // A metric without a clock.
    assert_eq!(
        story
            .run(
                61,
                Command::ClockDue {
                    metric: Metric::NextResponse
                }
            )
            .unwrap(),
        []
    );
}

#[test]
fn next_response_runs_from_the_oldest_unanswered_message() {
    let next = Metric::NextResponse;
    let mut story = Story::begin("case", standard());
    story.reply(10);
    story.write(20);
    assert_eq!(
        story.shows(next),
        "Running from 20 since 20 elapsed 0 due 140 next 110 warned - breached -"
    );
    story.write(30);
    assert_eq!(
        story.shows(next),
        "Running from 20 since 20 elapsed 0 due 140 next 110 warned - breached -"
    );
    // An older one that was held up on its way to us.
    story.receive(14, 15, 31, false).unwrap();
    assert_eq!(
        story.shows(next),
        "Running from 15 since 15 elapsed 0 due 135 next 105 warned - breached -"
    );
    story.reply(50);
    assert_eq!(
        story.shows(next),
        "Met from 15 since 50 elapsed 35 due - next - warned - breached -"
    );
    story.reply(55);
    // Again, and late this time; the next run starts clean.
    story.write(100);
    story.reply(300);
    assert_eq!(
        story.shows(next),
        "Met from 100 since 300 elapsed 200 due - next - warned - breached 220"
    );
    story.write(400);
    assert_eq!(
        story.shows(next),
        "Running from 400 since 400 elapsed 0 due 520 next 490 warned - breached -"
    );
    // Waiting does not pause it.
    story.run(410, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(
        story.shows(next),
        "Running from 400 since 400 elapsed 0 due 520 next 490 warned - breached -"
    );
    story.run(420, solved()).unwrap();
    assert_eq!(
        story.shows(next),
        "Cancelled from 400 since 420 elapsed 20 due - next - warned - breached -"
    );
    // Late: nothing starts. Not late: it reopens, and somebody waits again.
    story.receive(419, 430, 430, false).unwrap();
    assert_eq!(story.clock(next).state, ClockState::Cancelled);
    story.write(440);
    assert_eq!(
        story.shows(next),
        "Running from 440 since 440 elapsed 0 due 560 next 530 warned - breached -"
    );
}

#[test]
fn a_resolution_makes_answers_needless_until_it_is_reopened() {
    let (first, next) = (Metric::FirstResponse, Metric::NextResponse);
    // Resolved by mistake, or on the phone: the first response is owed again.
    for by_the_contact in [true, false] {
        let mut story = Story::begin("case", standard());
        story.run(10, solved()).unwrap();
        let cancelled = "Cancelled from 0 since 10 elapsed 10 due - next - warned - breached -";
        assert_eq!(story.shows(first), cancelled);
        if by_the_contact {
            story.write(100);
        } else {
            story.run(100, Command::Reopen).unwrap();
            story.write(110);
        }
        let again = "Running from 0 since 100 elapsed 10 due 150 next 135 warned - breached -";
        assert_eq!(story.shows(first), again);
        assert_eq!(story.ticket.clocks.len(), 2, "one answer is owed, not two");
        story.reply(120);
        assert_eq!(
            story.shows(first),
            "Met from 0 since 120 elapsed 30 due - next - warned - breached -"
        );
    }
    // The same for a next response; a new message starts it anew.
    let mut story = Story::begin("case", standard());
    story.reply(10);
    story.write(20);
    story.run(30, solved()).unwrap();
    story.run(40, Command::Reopen).unwrap();
    assert_eq!(
        story.shows(next),
        "Running from 20 since 40 elapsed 10 due 150 next 120 warned - breached -"
    );
    story.run(50, solved()).unwrap();
    story.write(60);
    assert_eq!(
        story.shows(next),
        "Running from 60 since 60 elapsed 0 due 180 next 150 warned - breached -"
    );
    // Resolved first, then answered: nothing is owed when it is reopened.
    story.run(70, solved()).unwrap();
    story.reply(75);
    assert_eq!(
        story.shows(next),
        "Met from 60 since 75 elapsed 10 due - next - warned - breached -"
    );
    story.run(80, Command::Reopen).unwrap();
    assert_eq!(story.clock(next).state, ClockState::Met);
}

#[test]
fn resolution_pauses_while_the_customer_has_it() {
    let resolution = Metric::Resolution;
    let mut story = Story::begin("case", standard());
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due 600 next 450 warned - breached -"
    );
    story.run(100, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Paused from 0 since 100 elapsed 100 due - next - warned - breached -"
    );
    story.write(300);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 300 elapsed 100 due 800 next 650 warned - breached -"
    );
    story.run(400, hold(WaitingOn::Internal)).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 300 elapsed 100 due 800 next 650 warned - breached -"
    );
    story.run(500, solved()).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Met from 0 since 500 elapsed 300 due - next - warned - breached -"
    );
    // The time it was resolved does not count.
    story.write(1000);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 1000 elapsed 300 due 1300 next 1150 warned - breached -"
    );
    let code = Some(self::resolution("solved"));
    story.run(1400, Command::Close { resolution: code }).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Met from 0 since 1400 elapsed 700 due - next - warned - breached 1300"
    );

    let mut policy = standard();
    policy["pause_resolution_on"] = json!(["waiting_on_customer", "waiting_internally"]);
    let mut story = Story::begin("case", policy.clone());
    story.run(100, hold(WaitingOn::Internal)).unwrap();
    story.run(200, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Paused from 0 since 200 elapsed 100 due - next - warned - breached -"
    );
    story.run(250, Command::Reopen).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 250 elapsed 100 due 750 next 600 warned - breached -"
    );
    policy["pause_resolution_on"] = json!([]);
    let mut story = Story::begin("case", policy);
    story.run(100, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(story.clock(resolution).state, ClockState::Running);
}

#[test]
fn a_breach_stays_and_an_early_pause_prevents_it() {
    let resolution = Metric::Resolution;
    let mut story = Story::begin("case", standard());
    // Held after it was due, though no router had said so.
    story.run(601, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Paused from 0 since 601 elapsed 601 due - next - warned - breached 600"
    );
    story.run(700, Command::Reopen).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 700 elapsed 601 due 700 next - warned - breached 600"
    );
    story.run(800, solved()).unwrap();
    story.run(900, Command::Reopen).unwrap();
    assert_eq!(story.clock(resolution).breached_at, Some(story.moment(600)));

    let mut story = Story::begin("case", standard());
    story.run(599, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(story.run(650, Command::ClockDue { metric: resolution }).unwrap(), []);
    story.run(700, Command::Reopen).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 700 elapsed 599 due 701 next 700 warned - breached -"
    );
}

#[test]
fn a_breach_that_no_router_said_is_told_before_what_stops_the_clock() {
    use Metric::{FirstResponse, NextResponse, Resolution};
    let message_id = MessageId::received("support", "email", "answer");
    let reply = |automatic| Command::Reply {
        message_id: message_id.clone(),
        automatic,
    };
    let note = Command::Note {
        message_id: message_id.clone(),
    };
    let assign = Command::Assign {
        assignee: Some("emma".to_owned()),
    };
    // Nobody has answered; at this minute, this command; the breaches it tells.
    let check = |minute: i64, command: Command, expected: &[(Metric, i64)]| {
        let mut story = Story::begin("case", standard());
        let known = story.events.len();
        let changes = story.run(minute, command.clone()).unwrap();
        let told: Vec<(Metric, i64)> = changes
            .iter()
            .map_while(|change| match change {
                Change::ClockBreached { metric, due_at } => Some((*metric, story.minute(*due_at))),
                _ => None,
            })
            .collect();
        assert_eq!(told, expected, "{command:?} at {minute}");
        assert!(changes.len() > told.len(), "what was asked for comes behind");
        let by_whom: Vec<&Actor> = story.events[known..].iter().map(|event| &event.actor).collect();
        assert!(by_whom[..told.len()].iter().all(|actor| **actor == Actor::System));
        assert!(by_whom[told.len()..].iter().all(|actor| **actor == emma()));
        let refolded = Ticket::fold(&story.ticket.id, &story.events, &story.book);
        assert_eq!(refolded, Some(story.ticket));
    };
    check(60, reply(false), &[]);
    check(61, reply(false), &[(FirstResponse, 60)]);
    check(61, reply(true), &[]);
    check(61, note, &[]);
    check(61, assign, &[(FirstResponse, 60)]);
    check(601, reply(false), &[(FirstResponse, 60), (Resolution, 600)]);
    check(599, hold(WaitingOn::Customer), &[(FirstResponse, 60)]);
    check(
        601,
        hold(WaitingOn::Customer),
        &[(FirstResponse, 60), (Resolution, 600)],
    );
    check(601, solved(), &[(FirstResponse, 60), (Resolution, 600)]);
    check(601, Command::Cancel, &[(FirstResponse, 60), (Resolution, 600)]);

    // A run that is over and missed is history when the next one begins.
    let mut story = Story::begin("case", standard());
    story.reply(10);
    story.write(100);
    let due_at = story.moment(220);
    let metric = NextResponse;
    assert_eq!(story.reply(300)[0], Change::ClockBreached { metric, due_at });
    story.write(400);
    assert_eq!(story.clock(metric).breached_at, None);
    // What was said is not said again.
    story.run(520, Command::ClockDue { metric }).unwrap();
    assert!(matches!(story.reply(530)[..], [Change::Replied { .. }]));
}

#[test]
fn cancelling_ends_all_clocks() {
    let mut story = Story::begin("case", standard());
    story.reply(10);
    story.write(20);
    story.run(30, Command::Cancel).unwrap();
    let states: Vec<_> = story.ticket.clocks.iter().map(|clock| clock.state).collect();
    assert_eq!(states, [ClockState::Met, ClockState::Cancelled, ClockState::Cancelled]);
    assert!(
        story
            .ticket
            .clocks
            .iter()
            .all(|clock| clock.next_at.is_none() && clock.due_at.is_none())
    );
}

#[test]
fn another_priority_counts_from_the_start() {
    let resolution = Metric::Resolution;
    let policy = json!({
        "name": "standard", "warn_percent": 50, "first_response": { "1": "10m" },
        "resolution": { "1": "1h", "4": "10h", "5": "1d" }
    });
    let set = |story: &mut Story, minute: i64, impact: Level, urgency: Level| {
        story.run(minute, Command::Prioritise { impact, urgency }).unwrap()
    };
    let (high, medium, low) = (Level::High, Level::Medium, Level::Low);
    let mut story = Story::begin("case", policy);
    // Nothing is promised at priority 4: the clock counts silently.
    assert_eq!(
        story.shows(Metric::FirstResponse),
        "Running from 0 since 0 elapsed 0 due - next - warned - breached -"
    );
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due 600 next 300 warned - breached -"
    );
    story.run(300, Command::ClockDue { metric: resolution }).unwrap();
    // Longer: the warning of the shorter target was none.
    set(&mut story, 310, low, low);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due 1440 next 720 warned - breached -"
    );
    // Shorter: it was due long ago, and a router is told at once.
    set(&mut story, 320, high, high);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due 60 next 30 warned - breached -"
    );
    assert_eq!(
        story.shows(Metric::FirstResponse),
        "Running from 0 since 0 elapsed 0 due 10 next 5 warned - breached -"
    );
    let breached = story.run(321, Command::ClockDue { metric: resolution }).unwrap();
    assert!(matches!(breached[..], [Change::ClockBreached { .. }]));
    // No target, then a longer one: not missed after all.
    set(&mut story, 330, high, medium);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due - next - warned - breached -"
    );
    set(&mut story, 340, low, low);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due 1440 next 720 warned - breached -"
    );
    // While it is paused, and after its end.
    story.run(400, hold(WaitingOn::Customer)).unwrap();
    set(&mut story, 410, low, medium);
    assert_eq!(
        story.shows(resolution),
        "Paused from 0 since 400 elapsed 400 due - next - warned - breached -"
    );
    story.run(500, Command::Reopen).unwrap();
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 500 elapsed 400 due 700 next 500 warned - breached -"
    );
    story.run(510, solved()).unwrap();
    let ended = story.ticket.clocks.clone();
    set(&mut story, 520, high, high);
    assert_eq!(story.ticket.clocks, ended);
}

#[test]
fn clocks_count_business_time() {
    let mut policy = standard();
    policy["calendar"] = json!("office");
    let mut story = Story::begin("case", policy);
    // Opened at 09:00: ten hours of work end at 11:00 on the next day.
    let resolution = Metric::Resolution;
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 0 elapsed 0 due 1560 next 1410 warned - breached -"
    );
    story.run(240, hold(WaitingOn::Customer)).unwrap();
    assert_eq!(
        story.clock(resolution).elapsed_ms,
        180 * MINUTE_MS,
        "lunch does not count"
    );
    story.write(24 * 60);
    assert_eq!(
        story.shows(resolution),
        "Running from 0 since 1440 elapsed 180 due 1920 next 1770 warned - breached -"
    );
}

#[test]
fn without_a_policy_or_its_calendar_there_are_no_clocks() {
    let mut policy = standard();
    policy["calendar"] = json!("elsewhere");
    let mut story = Story::begin("case", policy);
    story.reply(10);
    story.write(20);
    story.run(30, solved()).unwrap();
    assert_eq!(story.ticket.clocks, []);
    let nothing = json!({ "name": "standard" });
    assert_eq!(Story::begin("case", nothing).ticket.clocks, []);
    let only_next = json!({ "name": "standard", "next_response": "1h" });
    let mut story = Story::begin("case", only_next);
    story.write(5);
    assert_eq!(story.ticket.clocks, [], "the first response is still owed");
    story.reply(10);
    story.write(20);
    assert_eq!(story.clock(Metric::NextResponse).started_at, story.moment(20));
}

#[derive(Clone, Debug)]
enum Step {
    Receive {
        sent_before: i64,
        received_before: i64,
        automatic: bool,
    },
    Reply {
        automatic: bool,
    },
    Do(Command),
}

fn any_step() -> impl Strategy<Value = Step> {
    let level = || proptest::sample::select(&[Level::High, Level::Medium, Level::Low][..]);
    let metric = proptest::sample::select(&[Metric::FirstResponse, Metric::NextResponse, Metric::Resolution][..]);
    let who = proptest::option::of(proptest::sample::select(&["emma", "otto"][..]));
    prop_oneof![
        4 => (0..500_i64, -50..100_i64, proptest::bool::weighted(0.2)).prop_map(|(sent, received_before, automatic)| {
            Step::Receive { sent_before: sent + received_before, received_before, automatic }
        }),
        3 => proptest::bool::weighted(0.2).prop_map(|automatic| Step::Reply { automatic }),
        1 => who.prop_map(|who| Step::Do(Command::Assign { assignee: who.map(str::to_owned) })),
        2 => Just(Step::Do(hold(WaitingOn::Customer))),
        1 => Just(Step::Do(hold(WaitingOn::Internal))),
        2 => Just(Step::Do(solved())),
        1 => Just(Step::Do(Command::Reopen)),
        4 => metric.prop_map(|metric| Step::Do(Command::ClockDue { metric })),
        1 => (level(), level()).prop_map(|(impact, urgency)| Step::Do(Command::Prioritise { impact, urgency })),
    ]
}

/// Business minutes in which the resolution clock ran, from the events alone.
fn count_resolution_ms(events: &[TicketEvent], until: Moment, book: &Book) -> i64 {
    let calendar = &book.calendars[&("office".to_owned(), 1)];
    let mut total = 0;
    let mut running_since = Some(events[0].at);
    for event in events {
        if let Change::StateChanged { category, .. } = event.change {
            let runs = matches!(category, Category::Open | Category::WaitingInternally);
            match (running_since, runs) {
                (Some(since), false) => {
                    total += calendar.between_ms(since, event.at);
                    running_since = None;
                }
                (None, true) => running_since = Some(event.at),
                (Some(_), true) | (None, false) => {}
            }
        }
    }
    total + running_since.map_or(0, |since| calendar.between_ms(since, until))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn folding_anew_gives_what_ran_live(
        steps in proptest::collection::vec((any_step(), 0..400_i64), 0..40),
        is_orderly: bool,
    ) {
        let mut policy = standard();
        policy["calendar"] = json!("office");
        policy["first_response"] = json!({ "1": "15m", "4": "1h" });
        let mut story = Story::begin("case", policy);
        let mut minute = 0;
        for (step, wait) in steps {
            minute += wait;
            let result = match step {
                Step::Receive { automatic, .. } if is_orderly => story.receive(minute, minute, minute, automatic),
                Step::Receive { sent_before, received_before, automatic } => {
                    story.receive(minute - sent_before, minute - received_before, minute, automatic)
                }
                Step::Reply { automatic } => {
                    let message_id = story.next_message();
                    story.run(minute, Command::Reply { message_id, automatic })
                }
                Step::Do(command) => {
                    let is_due = matches!(command, Command::ClockDue { .. });
                    let result = story.run(minute, command.clone());
                    if is_due {
                        prop_assert_eq!(story.run(minute, command), Ok(vec![]), "once");
                    }
                    result
                }
            };
            let is_invalid = result.is_err_and(|refusal| refusal.code != "wrong_state");
            prop_assert!(!is_invalid);
            let moments = story.events.iter().flat_map(|event| [event.at, event.recorded_at]);
            let latest = moments.max().unwrap();
            for clock in &story.ticket.clocks {
                prop_assert!(clock.elapsed_ms >= 0);
                prop_assert!(clock.since >= clock.started_at);
                prop_assert!(clock.next_at.is_none() || clock.next_at <= clock.due_at);
                prop_assert_eq!(clock.due_at.is_some(), clock.state == ClockState::Running && clock.target_ms.is_some());
                prop_assert!(clock.breached_at.is_none_or(|at| at <= latest));
                let all_ms = latest.since_ms(clock.started_at);
                prop_assert!(clock.elapsed_ms <= all_ms);
            }
            let mut metrics: Vec<_> = story.ticket.clocks.iter().map(|clock| clock.metric).collect();
            metrics.dedup();
            prop_assert_eq!(metrics.len(), story.ticket.clocks.len());
            prop_assert_eq!(story.ticket.resolved_at.is_some(), story.ticket.category == Category::Resolved);
        }
        let again = Ticket::fold(&story.ticket.id, &story.events, &story.book).unwrap();
        prop_assert_eq!(&again, &story.ticket);
        if is_orderly {
            let now = story.moment(minute);
            let clock = story.clock(Metric::Resolution);
            let running_ms = match clock.state {
                ClockState::Running => story.book.calendars[&("office".to_owned(), 1)].between_ms(clock.since, now),
                _ => 0,
            };
            prop_assert_eq!(clock.elapsed_ms + running_ms, count_resolution_ms(&story.events, now, &story.book));
        }
    }
}
