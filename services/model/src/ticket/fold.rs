//! What each event makes of a ticket.

use super::priority::Priority;
use super::{Category, Change, Resolution, Ticket, TicketEvent, kind};
use crate::id::TicketId;
use crate::sla::Book;
use crate::time::Moment;

impl Ticket {
    /// The ticket that these events make. `None` without an `Opened` at their head.
    pub fn fold(id: &TicketId, events: &[TicketEvent], book: &Book) -> Option<Ticket> {
        let (first, rest) = events.split_first()?;
        let mut ticket = Self::opened(id, first, book)?;
        for event in rest {
            ticket.apply(event, book);
        }
        Some(ticket)
    }

    /// Folds one more event in, clocks included. An event that is not the next one
    /// (a repeat, a gap) changes nothing.
    pub fn apply(&mut self, event: &TicketEvent, book: &Book) {
        if event.version != self.version + 1 {
            return;
        }
        self.change(event);
        self.priority = Priority::of(self.impact, self.urgency);
        self.updated_at = self.updated_at.max(event.recorded_at);
        self.version = event.version;

        let Some(terms) = book.terms(self.policy.as_ref(), self.priority) else {
            return;
        };
        let (clocks, at) = (&mut self.clocks, event.at);
        match &event.change {
            Change::CustomerMessageReceived { late, automatic, .. } => {
                // Until the first response, that is what the contact waits for.
                if !late && !automatic && self.first_reply_at.is_some() {
                    terms.customer_waits(clocks, at);
                }
            }
            Change::Replied { automatic: false, .. } => terms.replied(clocks, at),
            Change::StateChanged { category, .. } => terms.moved(clocks, *category, at),
            Change::Prioritised { .. } => terms.prioritised(clocks, at),
            Change::ClockWarned { metric, .. } => terms.warned(clocks, *metric, at),
            Change::ClockBreached { metric, due_at } => terms.breached(clocks, *metric, *due_at),
            Change::Opened { .. }
            | Change::ConversationAdded { .. }
            | Change::Replied { automatic: true, .. }
            | Change::NoteAdded { .. }
            | Change::Assigned { .. }
            | Change::AttentionNeeded { .. }
            | Change::Linked { .. }
            | Change::ConversationErased { .. } => {}
        }
    }

    fn opened(id: &TicketId, event: &TicketEvent, book: &Book) -> Option<Ticket> {
        let Change::Opened {
            number,
            kind,
            subject,
            contact_id,
            conversation_id: _,
            queue,
            impact,
            urgency,
            policy,
            tags,
        } = &event.change
        else {
            return None;
        };
        let initial = kind::find(kind).map(kind::Kind::initial);
        let priority = Priority::of(*impact, *urgency);
        let mut clocks = Vec::new();
        if let Some(terms) = book.terms(policy.as_ref(), priority) {
            terms.opened(&mut clocks, event.at);
        }
        Some(Ticket {
            id: id.clone(),
            number: number.clone(),
            kind: kind.clone(),
            subject: subject.clone(),
            contact_id: contact_id.clone(),
            state: initial.map_or("new", |state| state.name).to_owned(),
            category: initial.map_or(Category::Open, |state| state.category),
            queue: queue.clone(),
            impact: *impact,
            urgency: *urgency,
            priority,
            assignee: None,
            tags: tags.clone(),
            needs_attention: None,
            first_reply_at: None,
            resolution: None,
            resolved_at: None,
            closed_at: None,
            policy: policy.clone(),
            clocks,
            opened_at: event.at,
            updated_at: event.recorded_at,
            version: event.version,
        })
    }

    fn change(&mut self, event: &TicketEvent) {
        match &event.change {
            Change::Replied { automatic: false, .. } => {
                self.first_reply_at.get_or_insert(event.at);
                self.needs_attention = None;
            }
            Change::NoteAdded { .. } => self.needs_attention = None,
            Change::Assigned { assignee } => self.assignee.clone_from(assignee),
            Change::StateChanged {
                state,
                category,
                resolution,
            } => {
                self.state.clone_from(state);
                self.category = *category;
                self.enter(resolution.clone(), event.at);
            }
            Change::Prioritised { impact, urgency } => {
                self.impact = *impact;
                self.urgency = *urgency;
            }
            Change::AttentionNeeded { reason } => self.needs_attention = Some(reason.clone()),
            Change::Opened { .. }
            | Change::ConversationAdded { .. }
            | Change::CustomerMessageReceived { .. }
            | Change::Replied { automatic: true, .. }
            | Change::ClockWarned { .. }
            | Change::ClockBreached { .. }
            | Change::Linked { .. }
            | Change::ConversationErased { .. } => {}
        }
    }

    /// What follows from its new category.
    fn enter(&mut self, resolution: Option<Resolution>, at: Moment) {
        (self.resolved_at, self.closed_at) = match self.category {
            Category::Resolved => (Some(at), None),
            Category::Closed => (self.resolved_at.or(Some(at)), Some(at)),
            Category::Cancelled => (None, Some(at)),
            Category::Open | Category::WaitingOnCustomer | Category::WaitingInternally => (None, None),
        };
        self.resolution = resolution;
    }
}
