//! Which ticket a message belongs to: its conversation's, the contact's open
//! one, a new one by the first rule that matches, or none.

use serde_json::json;

use super::whose::Whose;
use crate::change::Call;
use crate::context::{Book, Context};
use crate::conversation::Conversation;
use crate::event::{Event, Message};
use crate::id::{MessageId, TicketId};
use crate::outbound::Join;
use crate::rule::{Actions, FORM, Facts, MISSED, Rule};
use crate::sla::PolicyReference;
use crate::ticket::priority::Level;
use crate::ticket::{Actor, Category, Command, Opening, Ticket, TicketEvent, handle, open};
use crate::time::Moment;
use crate::trace::RuleTrace;

/// A known contact's message joins an open ticket that was active this recently.
const JOIN_OPEN_WITHIN_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Where a message goes, and why.
pub(super) struct Placement<'a> {
    /// Before `events`; a new ticket is folded from them already.
    pub ticket: Option<Ticket>,
    pub events: Vec<TicketEvent>,
    /// Whether the ticket is new.
    pub is_opened: bool,
    pub rule: Option<&'a Rule>,
    pub tried: Vec<RuleTrace>,
    pub facts: Facts,
    /// In words, for the trace.
    pub outcome: String,
    /// Nothing is decided yet: a rule asks for what is known when the call has ended.
    pub waits: bool,
}

/// A message that looks for its ticket.
pub(super) struct Arrival<'a> {
    pub event: &'a Event,
    pub message_id: &'a MessageId,
    pub message: &'a Message,
    /// The call that it stands for, as far as is known.
    pub call: Option<&'a Call>,
    pub whose: &'a Whose,
    pub context: &'a Context,
    pub now: Moment,
}

impl Arrival<'_> {
    /// Whether a rule asks how the call ends, and nobody knows yet.
    fn waits(&self) -> bool {
        let is_open = self.call.is_some_and(|call| call.missed.is_none());
        is_open && self.context.book.rules.asks_for(MISSED)
    }
}

/// Finds the ticket of a message in `conversation`.
pub(super) fn place<'a>(arrival: &Arrival<'a>, conversation: &Conversation) -> Placement<'a> {
    let context = arrival.context;
    let mut placement = Placement {
        ticket: None,
        events: Vec::new(),
        is_opened: false,
        rule: None,
        tried: Vec::new(),
        facts: facts(arrival, conversation),
        outcome: String::new(),
        waits: false,
    };
    let current = conversation.ticket_id.as_ref().and_then(|id| context.tickets.get(id));
    if let Some(events) = current.and_then(|ticket| join(arrival, conversation, ticket, false)) {
        placement.joined(current, events, "its conversation's");
        return placement;
    }
    // Closed for good: work on it is new work.
    let follows = current;
    let automatic = arrival.message.automatic;
    if automatic.is_some_and(|automatic| !automatic.may_open_ticket()) {
        placement.outcome = "no ticket: an automatic reply or report opens none".to_owned();
        return placement;
    }
    if arrival.waits() {
        placement.outcome = "no ticket yet: the call goes on".to_owned();
        placement.waits = true;
        return placement;
    }
    (placement.rule, placement.tried) = context.book.rules.first_match(&placement.facts);
    let actions = placement.rule.map_or_else(Actions::default, |rule| rule.then.clone());
    // Without a rule a person's message is a case, a machine's is only recorded.
    let default_kind = if automatic.is_none() { "case" } else { "none" };
    if actions.kind.as_deref().unwrap_or(default_kind) == "none" {
        placement.outcome = "no ticket: recorded only".to_owned();
        return placement;
    }
    let queue = queue_of(&actions, arrival.event, &context.book);
    if follows.is_none() {
        let open = open_ticket_of(arrival, &queue);
        if let Some(events) = open.and_then(|ticket| join(arrival, conversation, ticket, true)) {
            placement.joined(open, events, "the contact's open one in this queue");
            return placement;
        }
    }
    placement.open(arrival, &opening(arrival, conversation, actions, queue, follows));
    placement
}

/// What the message does to a ticket that is there; `None` if the ticket takes
/// no more messages.
fn join(
    arrival: &Arrival<'_>,
    conversation: &Conversation,
    ticket: &Ticket,
    is_new_conversation: bool,
) -> Option<Vec<TicketEvent>> {
    let command = Command::Receive {
        message_id: arrival.message_id.clone(),
        conversation_id: conversation.id.clone(),
        is_new_conversation,
        at: arrival.event.received_at,
        occurred_at: super::occurred_at(arrival.event, arrival.message, &conversation.id, arrival.context),
        automatic: arrival.message.automatic.is_some(),
    };
    let actor = Actor::Contact(arrival.whose.contact_id.clone());
    handle(ticket, &command, &actor, arrival.now).ok()
}

/// What opens the ticket: the rule's wishes, and otherwise what is usual.
fn opening(
    arrival: &Arrival<'_>,
    conversation: &Conversation,
    actions: Actions,
    queue: String,
    follows: Option<&Ticket>,
) -> Opening {
    let context = arrival.context;
    let kind = actions.kind.clone().unwrap_or_else(|| "case".to_owned());
    let numbers = context.numbers.get(&kind);
    let number = numbers.and_then(|numbers| numbers.front()).cloned();
    Opening {
        id: TicketId::opened_by(arrival.message_id),
        number: number.unwrap_or_default(),
        kind,
        subject: subject_of(arrival.message),
        contact_id: arrival.whose.contact_id.clone(),
        conversation_id: conversation.id.clone(),
        message_id: arrival.message_id.clone(),
        policy: policy_of(&actions, &queue, &context.book),
        queue,
        impact: actions.impact.unwrap_or(Level::Low),
        urgency: actions.urgency.unwrap_or(Level::Medium),
        tags: actions.tags,
        follows: follows.map(|ticket| ticket.id.clone()),
        at: arrival.event.received_at,
    }
}

impl Placement<'_> {
    fn joined(&mut self, ticket: Option<&Ticket>, events: Vec<TicketEvent>, why: &str) {
        let number = ticket.map(|ticket| ticket.number.as_str()).unwrap_or_default();
        self.outcome = format!("ticket {number}: {why}");
        self.ticket = ticket.cloned();
        self.events = events;
    }

    fn open(&mut self, arrival: &Arrival<'_>, opening: &Opening) {
        let opener = match self.rule {
            Some(rule) => Actor::Rule(rule.name.clone()),
            None => Actor::Contact(arrival.whose.contact_id.clone()),
        };
        let events = match open(opening, &opener, arrival.now) {
            Ok(events) => events,
            Err(refusal) => {
                self.outcome = format!("no ticket: {refusal}");
                return;
            }
        };
        let Some(ticket) = Ticket::fold(&opening.id, &events, &arrival.context.book.sla) else {
            self.outcome = "no ticket: its first event does not open it".to_owned();
            return;
        };
        let why = match &self.rule {
            Some(rule) => format!("opened by rule {}", rule.name),
            None => "opened by default".to_owned(),
        };
        self.outcome = format!("ticket {}: {why}", ticket.number);
        self.is_opened = true;
        self.ticket = Some(ticket);
        self.events = events;
    }
}

/// Where the account joins open tickets: the contact's latest active one in the
/// queue that still waits for somebody.
fn open_ticket_of<'a>(arrival: &Arrival<'a>, queue: &str) -> Option<&'a Ticket> {
    let (event, context) = (arrival.event, arrival.context);
    let plan = context.book.accounts.get(&event.account)?;
    if plan.join != Join::Open {
        return None;
    }
    let candidates = context.tickets.values().filter(|ticket| {
        let is_open = matches!(
            ticket.category,
            Category::Open | Category::WaitingOnCustomer | Category::WaitingInternally
        );
        let is_recent = event.received_at.since_ms(ticket.updated_at) <= JOIN_OPEN_WITHIN_MS;
        is_open && is_recent && ticket.queue == queue && arrival.whose.is(&ticket.contact_id, context)
    });
    candidates.max_by_key(|ticket| (ticket.updated_at, ticket.id.clone()))
}

/// The rule's queue, else the account's, else the first one declared.
fn queue_of(actions: &Actions, event: &Event, book: &Book) -> String {
    let of_account = || book.accounts.get(&event.account).and_then(|plan| plan.queue.clone());
    let first = || book.queues.first().map(|queue| queue.name.clone());
    actions
        .queue
        .clone()
        .or_else(of_account)
        .or_else(first)
        .unwrap_or_else(|| "default".to_owned())
}

/// The rule's policy, else the queue's, in the versions of today.
fn policy_of(actions: &Actions, queue: &str, book: &Book) -> Option<PolicyReference> {
    let of_queue = || book.queues.iter().find(|known| known.name == queue)?.policy.clone();
    let name = actions.policy.clone().or_else(of_queue)?;
    let version = *book.current_policies.get(&name)?;
    let policy = book.sla.policies.get(&(name.clone(), version))?;
    let calendar = policy.calendar.as_ref();
    let calendar_version = calendar
        .and_then(|calendar| book.current_calendars.get(calendar))
        .copied();
    Some(PolicyReference {
        name,
        version,
        calendar_version: calendar_version.unwrap_or(0),
    })
}

/// A ticket's subject: the message's, else the beginning of its text.
fn subject_of(message: &Message) -> String {
    let given = message
        .subject
        .as_deref()
        .map(str::trim)
        .filter(|subject| !subject.is_empty());
    let from_text = || message.text.lines().map(str::trim).find(|line| !line.is_empty());
    let subject = given.or_else(from_text).unwrap_or("(no subject)");
    subject.chars().take(250).collect()
}

/// What the rules may ask for.
fn facts(arrival: &Arrival<'_>, conversation: &Conversation) -> Facts {
    let (event, message, book) = (arrival.event, arrival.message, &arrival.context.book);
    let sender = &message.sender;
    let domain = sender.domain();
    let is_employee = sender.verified
        && domain
            .as_ref()
            .is_some_and(|domain| book.employee_domains.contains(domain));
    let is_reply = conversation.version > 1 || !message.evidence.quoted_ids.is_empty();
    let names: Vec<&str> = message
        .attachments
        .iter()
        .map(|attachment| attachment.name.as_str())
        .collect();
    let recipients: Vec<&str> = message
        .recipients
        .iter()
        .map(|recipient| recipient.address.as_str())
        .collect();
    let pairs = [
        ("account", json!(event.account)),
        ("channel", json!(event.channel)),
        ("sender.address", json!(sender.address)),
        ("sender.domain", json!(domain)),
        ("sender.scheme", json!(sender.scheme)),
        ("sender.verified", json!(sender.verified)),
        ("sender.employee", json!(is_employee)),
        ("recipients", json!(recipients)),
        ("subject", json!(message.subject)),
        ("text", json!(message.text)),
        (
            "automatic",
            json!(message.automatic.map(|automatic| automatic.as_str())),
        ),
        ("attachments", json!(message.attachments.len())),
        ("attachment_names", json!(names)),
        ("is_reply", json!(is_reply)),
        (MISSED, json!(arrival.call.and_then(|call| call.missed))),
    ];
    let filled_in = message.fields.iter();
    let filled_in = filled_in.map(|(name, value)| (format!("{FORM}{name}"), json!(value)));
    let own = pairs.into_iter().map(|(field, value)| (field.to_owned(), value));
    own.chain(filled_in).collect()
}
