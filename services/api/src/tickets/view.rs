//! A ticket in JSON.

use model::id::{ContactId, ConversationId, MessageId, TicketId};
use model::sla::{Clock, ClockState, Metric};
use model::ticket::priority::{Level, Priority};
use model::ticket::{Actor, Category, Change, Ticket, TicketEvent};
use model::time::Moment;
use model::trace::{RuleTrace, Trace};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::contacts::ConversationSummary;

/// A ticket as lists show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub struct TicketView {
    #[schema(value_type = String)]
    id: TicketId,
    #[schema(example = "CS0000001")]
    number: String,
    #[schema(example = "case")]
    kind: String,
    subject: String,
    /// Of several contacts that are one person, the first met.
    #[schema(value_type = String)]
    contact_id: ContactId,
    /// A state that the kind declares.
    state: String,
    /// What states have in common across kinds.
    #[schema(value_type = String, example = "open")]
    category: Category,
    queue: String,
    #[schema(value_type = String, example = "medium")]
    impact: Level,
    #[schema(value_type = String, example = "medium")]
    urgency: Level,
    /// 1 Critical to 5 Planning, from impact and urgency.
    #[schema(value_type = u8, minimum = 1, maximum = 5)]
    priority: Priority,
    /// A person's name.
    assignee: Option<String>,
    tags: Vec<String>,
    /// Something needs a person's eyes, and what.
    needs_attention: Option<String>,
    resolution: Option<ResolutionView>,
    /// Name of the SLA policy that its clocks run by.
    policy: Option<String>,
    clocks: Vec<ClockView>,
    /// What people can do with it in its present state.
    verbs: Vec<&'static str>,
    #[schema(value_type = String, format = DateTime)]
    opened_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Moment,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Moment>,
    #[schema(value_type = Option<String>, format = DateTime)]
    closed_at: Option<Moment>,
    /// Counts its events.
    version: i64,
}

/// A ticket with everything about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TicketDetail {
    #[serde(flatten)]
    pub ticket: TicketView,
    /// Ids of its conversations, the oldest first.
    #[schema(value_type = Vec<String>)]
    pub conversations: Vec<ConversationId>,
    /// All conversations of its contact, on all channels and of other tickets too, in the order of their
    /// beginnings: the latest 200.
    pub contact_conversations: Vec<ConversationSummary>,
    /// All that happened to it, in order.
    pub events: Vec<EventView>,
    /// Why the messages came here, in order. Only in the answer to GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<Vec<TraceView>>,
}

/// How it was solved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resolution)]
pub struct ResolutionView {
    code: String,
    notes: Option<String>,
}

/// One promise, counting.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Clock)]
pub struct ClockView {
    /// `first_response`, `next_response` or `resolution`.
    #[schema(value_type = String, example = "first_response")]
    metric: Metric,
    /// `running`, `paused`, `met` or `cancelled`.
    #[schema(value_type = String, example = "running")]
    state: ClockState,
    /// What was promised, in business time.
    target_ms: Option<i64>,
    #[schema(value_type = String, format = DateTime)]
    started_at: Moment,
    /// Since when it is in its state.
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// Business time that had passed by `since`.
    elapsed_ms: i64,
    /// When it will have been missed; null while it is paused and after its end.
    #[schema(value_type = Option<String>, format = DateTime)]
    due_at: Option<Moment>,
    /// Milliseconds until `due_at`, by the wall clock; negative if it has passed.
    remaining_ms: Option<i64>,
    /// It runs, and `due_at` has passed.
    overdue: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    warned_at: Option<Moment>,
    /// When it was missed; it may be met late.
    #[schema(value_type = Option<String>, format = DateTime)]
    breached_at: Option<Moment>,
    #[schema(value_type = Option<String>, format = DateTime)]
    met_at: Option<Moment>,
}

/// Something that happened to a ticket.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TicketEvent)]
pub struct EventView {
    /// The ticket's version after it.
    version: i64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
    /// When it was written down.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Moment,
    actor: ActorView,
    /// `opened`, `replied`, `state_changed`, `clock_breached`, ….
    #[serde(rename = "type")]
    kind: String,
    /// What the type brings with it.
    data: Value,
}

/// Who did it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Actor)]
pub struct ActorView {
    /// `contact`, `person`, `rule` or `system`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The contact's id, the person's or the rule's name; null for the system.
    id: Option<String>,
}

/// Why a decision came out as it did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Trace)]
pub struct TraceView {
    #[schema(value_type = String)]
    message_id: MessageId,
    #[schema(value_type = String, format = DateTime)]
    decided_at: Moment,
    /// W3C trace context of the request that brought the message.
    traceparent: Option<String>,
    rules_version: i64,
    /// How the conversation was found, a line for each piece of evidence weighed.
    threading: Vec<String>,
    /// The rules that were tried: name, whether it matched, what each condition saw.
    #[schema(value_type = Vec<Value>)]
    rules: Vec<RuleTrace>,
    outcome: String,
    /// What the rules saw, long texts cut.
    facts: Value,
}

impl TicketView {
    /// The ticket with its clocks as they stand at `now`.
    pub fn of(ticket: Ticket, now: Moment) -> Self {
        let verbs = ticket.possible_verbs();
        // A clock without a target counts silently: nothing is promised.
        let promised = ticket.clocks.iter().filter(|clock| clock.target_ms.is_some());
        Self {
            verbs,
            clocks: promised.map(|clock| ClockView::of(clock, now)).collect(),
            id: ticket.id,
            number: ticket.number,
            kind: ticket.kind,
            subject: ticket.subject,
            contact_id: ticket.contact_id,
            state: ticket.state,
            category: ticket.category,
            queue: ticket.queue,
            impact: ticket.impact,
            urgency: ticket.urgency,
            priority: ticket.priority,
            assignee: ticket.assignee,
            tags: ticket.tags,
            needs_attention: ticket.needs_attention,
            resolution: ticket.resolution.map(|resolution| ResolutionView {
                code: resolution.code,
                notes: resolution.notes,
            }),
            policy: ticket.policy.map(|policy| policy.name),
            opened_at: ticket.opened_at,
            updated_at: ticket.updated_at,
            resolved_at: ticket.resolved_at,
            closed_at: ticket.closed_at,
            version: ticket.version,
        }
    }
}

impl ClockView {
    fn of(clock: &Clock, now: Moment) -> Self {
        let remaining_ms = clock.due_at.map(|due_at| due_at.since_ms(now));
        Self {
            metric: clock.metric,
            state: clock.state,
            target_ms: clock.target_ms,
            started_at: clock.started_at,
            since: clock.since,
            elapsed_ms: clock.elapsed_ms,
            due_at: clock.due_at,
            remaining_ms,
            overdue: clock.state == ClockState::Running && remaining_ms.is_some_and(|ms| ms < 0),
            warned_at: clock.warned_at,
            breached_at: clock.breached_at,
            met_at: (clock.state == ClockState::Met).then_some(clock.since),
        }
    }
}

impl From<TicketEvent> for EventView {
    fn from(event: TicketEvent) -> Self {
        let (kind, data) = taken_apart(&event.change);
        Self {
            version: event.version,
            at: event.at,
            recorded_at: event.recorded_at,
            actor: event.actor.into(),
            kind,
            data,
        }
    }
}

impl From<Actor> for ActorView {
    fn from(actor: Actor) -> Self {
        let (kind, id) = match actor {
            Actor::Contact(id) => ("contact", Some(id.as_str().to_owned())),
            Actor::Person(name) => ("person", Some(name)),
            Actor::Rule(name) => ("rule", Some(name)),
            Actor::System => ("system", None),
        };
        Self { kind, id }
    }
}

impl From<Trace> for TraceView {
    fn from(trace: Trace) -> Self {
        Self {
            message_id: trace.message_id,
            decided_at: trace.decided_at,
            traceparent: trace.traceparent,
            rules_version: trace.rules_version,
            threading: trace.threading,
            rules: trace.rules,
            outcome: trace.outcome,
            facts: trace.facts,
        }
    }
}

/// The change's tag and its fields, so that a new change needs no line here.
fn taken_apart(change: &Change) -> (String, Value) {
    let mut data = serde_json::to_value(change).unwrap_or_default();
    let tag = data.as_object_mut().and_then(|fields| fields.remove("type"));
    let kind = tag.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    (kind, data)
}
