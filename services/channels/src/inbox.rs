//! `accept`: from what a channel understood to a durable event.

use std::time::Duration;

use model::inbound::Inbound;

use crate::channel::Input;

/// The door from a channel into the log.
#[derive(Clone)]
pub struct Inbox {
    pub bus: bus::Bus,
}

/// Whether the sender waits for us (then the spool helps) or its source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Webhooks, chat: spooled if Kafka is away.
    Pushed,
    /// Mailboxes, long polls: waits for Kafka.
    Pulled,
}

impl Inbox {
    /// Stamps each with account, thread key, times and derived id, keeps its
    /// attachments, and publishes all of them (pipelined). Durable when it returns.
    pub async fn accept(
        &self,
        _account: &str,
        _channel: &str,
        _input: &Input,
        _events: Vec<Inbound>,
        _arrival: Arrival,
    ) -> Result<(), bus::Error> {
        unimplemented!()
    }

    /// Keeps an input that could not be parsed (C6). Durable when it returns.
    pub async fn park(
        &self,
        _account: &str,
        _channel: &str,
        _input: &Input,
        _reason: &str,
        _arrival: Arrival,
    ) -> Result<(), bus::Error> {
        unimplemented!()
    }

    /// Keeps an input whose signature was wrong, best effort and under its quota.
    pub async fn quarantine(&self, _account: &str, _channel: &str, _input: &Input, _reason: &str) {
        unimplemented!("{:?}", Duration::ZERO)
    }
}
