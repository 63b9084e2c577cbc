//! What a command does to a ticket: events, or a refusal that says what would be
//! possible. The ways between states are the kind's declaration.

use super::kind::{self, Kind, State, Verb};
use super::link::Relation;
use super::priority::Level;
use super::{Actor, Category, Change, Command, Opening, Resolution, Ticket, TicketEvent, WaitingOn};
use crate::error::Refusal;
use crate::id::{MessageId, TicketId};
use crate::sla::Metric;
use crate::time::Moment;

/// Opens a ticket: its first events, to be folded with [`Ticket::fold`].
pub fn open(opening: &Opening, actor: &Actor, now: Moment) -> Result<Vec<TicketEvent>, Refusal> {
    find_kind(&opening.kind)?;
    let mut changes = vec![
        Change::Opened {
            number: opening.number.clone(),
            kind: opening.kind.clone(),
            subject: opening.subject.clone(),
            contact_id: opening.contact_id.clone(),
            conversation_id: opening.conversation_id.clone(),
            queue: opening.queue.clone(),
            impact: opening.impact,
            urgency: opening.urgency,
            policy: opening.policy.clone(),
            tags: opening.tags.clone(),
        },
        // The opening starts the clocks, whoever wrote the message.
        Change::CustomerMessageReceived {
            message_id: opening.message_id.clone(),
            late: false,
            automatic: false,
        },
    ];
    if let Some(ticket_id) = &opening.follows {
        changes.push(Change::Linked {
            relation: Relation::Follows,
            ticket_id: ticket_id.clone(),
        });
    }
    Ok(events(changes, 0, opening.at, actor, now))
}

/// What the command does to the ticket in its present state: events with
/// consecutive versions (none, if it changes nothing), or why not.
pub fn handle(ticket: &Ticket, command: &Command, actor: &Actor, now: Moment) -> Result<Vec<TicketEvent>, Refusal> {
    let kind = find_kind(&ticket.kind)?;
    let at = match command {
        Command::Receive { at, .. } => *at,
        _ => now,
    };
    let changes = match command {
        Command::Receive { .. } => receive(ticket, kind, command)?,
        Command::AddConversation { conversation_id } => {
            refuse_if_over(ticket, "take in a conversation")?;
            let conversation_id = conversation_id.clone();
            vec![Change::ConversationAdded { conversation_id }]
        }
        Command::Reply { message_id, automatic } => reply(ticket, kind, message_id, *automatic)?,
        Command::Note { message_id } => vec![Change::NoteAdded {
            message_id: message_id.clone(),
        }],
        Command::Assign { assignee } => assign(ticket, kind, assignee.as_deref())?,
        Command::Prioritise { impact, urgency } => prioritise(ticket, *impact, *urgency)?,
        Command::Hold { waiting_on } => match waiting_on {
            WaitingOn::Customer => go(ticket, kind, Verb::HOLD_FOR_CUSTOMER)?,
            WaitingOn::Internal => go(ticket, kind, Verb::HOLD_INTERNALLY)?,
        },
        Command::Resolve { resolution } => end(ticket, kind, Verb::RESOLVE, Some(resolution))?,
        Command::Reopen => go(ticket, kind, Verb::REOPEN)?,
        Command::Close { resolution } => end(ticket, kind, Verb::CLOSE, resolution.as_ref())?,
        Command::Cancel => go(ticket, kind, Verb::CANCEL)?,
        Command::NeedAttention { reason } if ticket.needs_attention.as_ref() == Some(reason) => vec![],
        Command::NeedAttention { reason } => vec![Change::AttentionNeeded { reason: reason.clone() }],
        Command::ClockDue { metric } => clock_due(ticket, *metric, now),
        Command::Link { relation, ticket_id } => link(ticket, *relation, ticket_id)?,
    };
    let missed = missed(ticket, &changes, at);
    let mut told = events(missed, ticket.version, at, &Actor::System, now);
    let version = ticket.version + told.len() as i64;
    told.extend(events(changes, version, at, actor, now));
    Ok(told)
}

impl Ticket {
    /// What people can do with it in its present state, by the API's names.
    pub fn possible_verbs(&self) -> Vec<&'static str> {
        let Some(kind) = kind::find(&self.kind) else {
            return vec![];
        };
        let ways = [
            ("hold", Verb::HOLD_FOR_CUSTOMER),
            ("resolve", Verb::RESOLVE),
            ("reopen", Verb::REOPEN),
            ("close", Verb::CLOSE),
            ("cancel", Verb::CANCEL),
        ];
        let mut verbs = vec!["note"];
        if !is_over(self.category) {
            verbs.extend(["reply", "assign", "prioritise"]);
        }
        verbs.extend(
            ways.into_iter()
                .filter(|(_, way)| kind.target(way, &self.state).is_some())
                .map(|(verb, _)| verb),
        );
        verbs
    }
}

fn receive(ticket: &Ticket, kind: &Kind, command: &Command) -> Result<Vec<Change>, Refusal> {
    let Command::Receive {
        message_id,
        conversation_id,
        is_new_conversation,
        occurred_at,
        automatic,
        ..
    } = command
    else {
        return Ok(vec![]);
    };
    let ended_at = ticket.resolved_at.or(ticket.closed_at);
    // Some sources count whole seconds (INTERNALDATE): what comes in the second of
    // the end is not late, since a ticket reopened for nothing is the smaller harm.
    let late = ended_at.is_some_and(|ended_at| *occurred_at < ended_at.plus_ms(-999));
    if !late {
        refuse_if_over(ticket, "take in a message")?;
    }
    let mut changes = Vec::new();
    if *is_new_conversation {
        let conversation_id = conversation_id.clone();
        changes.push(Change::ConversationAdded { conversation_id });
    }
    changes.push(Change::CustomerMessageReceived {
        message_id: message_id.clone(),
        late,
        automatic: *automatic,
    });
    match (automatic, late, ticket.category) {
        (true, _, _) => {}
        (false, true, _) => changes.push(Change::AttentionNeeded {
            reason: format!("a message from before it was {} arrived late", ticket.state),
        }),
        (false, false, Category::Resolved) => changes.extend(step(ticket, kind, Verb::REOPEN)),
        (false, false, _) => changes.extend(step(ticket, kind, Verb::ANSWERED)),
    }
    Ok(changes)
}

fn reply(ticket: &Ticket, kind: &Kind, message_id: &MessageId, automatic: bool) -> Result<Vec<Change>, Refusal> {
    refuse_if_over(ticket, "reply")?;
    let mut changes = vec![Change::Replied {
        message_id: message_id.clone(),
        automatic,
    }];
    if !automatic {
        changes.extend(step(ticket, kind, Verb::BEGIN));
    }
    Ok(changes)
}

fn assign(ticket: &Ticket, kind: &Kind, assignee: Option<&str>) -> Result<Vec<Change>, Refusal> {
    refuse_if_over(ticket, "assign it")?;
    if ticket.assignee.as_deref() == assignee {
        return Ok(vec![]);
    }
    if assignee.is_some_and(|name| name.trim().is_empty()) {
        return Err(Refusal::invalid(
            "the assignee has no name; leave it out to assign to nobody",
        ));
    }
    let mut changes = vec![Change::Assigned {
        assignee: assignee.map(str::to_owned),
    }];
    if assignee.is_some() {
        changes.extend(step(ticket, kind, Verb::BEGIN));
    }
    Ok(changes)
}

fn prioritise(ticket: &Ticket, impact: Level, urgency: Level) -> Result<Vec<Change>, Refusal> {
    refuse_if_over(ticket, "change the priority")?;
    if (ticket.impact, ticket.urgency) == (impact, urgency) {
        return Ok(vec![]);
    }
    Ok(vec![Change::Prioritised { impact, urgency }])
}

fn link(ticket: &Ticket, relation: Relation, ticket_id: &TicketId) -> Result<Vec<Change>, Refusal> {
    if *ticket_id == ticket.id {
        return Err(Refusal::invalid(
            "a ticket cannot be linked to itself; name another one",
        ));
    }
    let ticket_id = ticket_id.clone();
    Ok(vec![Change::Linked { relation, ticket_id }])
}

/// A verb that ends the work: it needs a resolution, given now or before.
fn end(ticket: &Ticket, kind: &Kind, verb: &str, given: Option<&Resolution>) -> Result<Vec<Change>, Refusal> {
    if let Some(given) = given {
        check_code(kind, given)?;
    }
    let Some(resolution) = given.or(ticket.resolution.as_ref()) else {
        return Err(Refusal::invalid(format!(
            "to {verb} a ticket that is {} needs a resolution code; a {} has {}",
            ticket.state,
            kind.name,
            kind.resolution_codes.join(", ")
        )));
    };
    let target = kind.target(verb, &ticket.state);
    let is_there_already = kind.verbs.iter().any(|way| way.name == verb && way.to == ticket.state);
    match target {
        Some(state) => Ok(vec![change_to(state, Some(resolution.clone()))]),
        None if is_there_already && ticket.resolution.as_ref() == Some(resolution) => Ok(vec![]),
        None => Err(wrong_state(ticket, verb)),
    }
}

/// A verb that people ask for. Asking for what is so already changes nothing.
fn go(ticket: &Ticket, kind: &Kind, verb: &str) -> Result<Vec<Change>, Refusal> {
    let is_so_already = match verb {
        Verb::REOPEN => ticket.category == Category::Open,
        Verb::CANCEL => ticket.category == Category::Cancelled,
        _ => false,
    };
    if is_so_already {
        return Ok(vec![]);
    }
    match kind.target(verb, &ticket.state) {
        Some(_) => Ok(step(ticket, kind, verb).into_iter().collect()),
        None => Err(wrong_state(ticket, verb)),
    }
}

/// Where the verb leads, if that is not where the ticket stands.
fn step(ticket: &Ticket, kind: &Kind, verb: &str) -> Option<Change> {
    let state = kind.target(verb, &ticket.state)?;
    (state.name != ticket.state).then(|| change_to(state, None))
}

fn change_to(state: &State, resolution: Option<Resolution>) -> Change {
    Change::StateChanged {
        state: state.name.to_owned(),
        category: state.category,
        resolution,
    }
}

/// Nothing if the moment has not come, or another router was faster. A warning that
/// nobody gave before the breach is not given after it.
fn clock_due(ticket: &Ticket, metric: Metric, now: Moment) -> Vec<Change> {
    let clock = ticket.clocks.iter().find(|clock| clock.metric == metric);
    let Some((next_at, due_at)) = clock.and_then(|clock| clock.next_at.zip(clock.due_at)) else {
        return vec![];
    };
    if due_at <= now {
        vec![Change::ClockBreached { metric, due_at }]
    } else if next_at <= now {
        vec![Change::ClockWarned { metric, due_at }]
    } else {
        vec![]
    }
}

/// Breaches that no router has said yet, of clocks that these changes may stop:
/// history tells them first.
fn missed(ticket: &Ticket, changes: &[Change], at: Moment) -> Vec<Change> {
    let may_stop = |change: &Change| {
        matches!(
            change,
            Change::Replied { automatic: false, .. } | Change::StateChanged { .. }
        )
    };
    if !changes.iter().any(may_stop) {
        return vec![];
    }
    let silent = ticket.clocks.iter().filter(|clock| clock.breached_at.is_none());
    silent
        .filter_map(|clock| Some((clock.metric, clock.due_at?)))
        .filter(|(_, due_at)| *due_at < at)
        .map(|(metric, due_at)| Change::ClockBreached { metric, due_at })
        .collect()
}

fn find_kind(name: &str) -> Result<&'static Kind, Refusal> {
    kind::find(name).ok_or_else(|| {
        let known: Vec<_> = kind::KINDS.iter().map(|kind| kind.name).collect();
        Refusal::invalid(format!("unknown kind `{name}`; known: {}", known.join(", ")))
    })
}

fn check_code(kind: &Kind, resolution: &Resolution) -> Result<(), Refusal> {
    if kind.resolution_codes.contains(&resolution.code.as_str()) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "unknown resolution code `{}`; a {} has {}",
        resolution.code,
        kind.name,
        kind.resolution_codes.join(", ")
    )))
}

fn is_over(category: Category) -> bool {
    matches!(category, Category::Closed | Category::Cancelled)
}

fn refuse_if_over(ticket: &Ticket, wish: &str) -> Result<(), Refusal> {
    if is_over(ticket.category) {
        return Err(wrong_state(ticket, wish));
    }
    Ok(())
}

fn wrong_state(ticket: &Ticket, wish: &str) -> Refusal {
    let wish = wish.replace('_', " ");
    let hint = if is_over(ticket.category) {
        "; a new message from the contact opens a ticket that follows it"
    } else {
        ""
    };
    Refusal::wrong_state(format!(
        "cannot {wish}: the ticket is {}; possible: {}{hint}",
        ticket.state,
        ticket.possible_verbs().join(", ")
    ))
}

fn events(changes: Vec<Change>, version: i64, at: Moment, actor: &Actor, now: Moment) -> Vec<TicketEvent> {
    (version + 1..)
        .zip(changes)
        .map(|(version, change)| TicketEvent {
            version,
            at,
            recorded_at: now,
            actor: actor.clone(),
            change,
        })
        .collect()
}
