//! The decision about one event: pure, so that it can be replayed.

use crate::context::{Changes, Context};
use crate::event::Event;
use crate::time::Moment;

/// What an event changes, given what is known. Never fails: what cannot be
/// decided is parked.
pub fn decide(event: &Event, context: &Context, now: Moment) -> Changes {
    unimplemented!("{event:?} {context:?} {now}")
}
