//! What a message, a conversation, a ticket, an SLA clock, a calendar and a
//! rule are, and how they change.
//!
//! Values and rules only: nothing here reads the time, does I/O or is async.
//! Whatever depends on the present takes `now`. Suggested reading order:

pub mod error;
pub mod id;
pub mod time;

pub mod change;
pub mod event;
pub mod file;
pub mod html;
pub mod inbound;
pub mod outbound;
pub mod template;

pub mod contact;
pub mod conversation;
pub mod evidence;

pub mod context;
pub mod decide;
pub mod trace;

pub mod calendar;
pub mod rule;
pub mod sla;
pub mod ticket;

#[cfg(test)]
mod properties;
