//! The outbox: messages of ours on their way to a channel.

use crate::{Error, Store};
use model::event::DeliveryState;
use model::id::MessageId;
use model::outbound::Outbound;
use model::time::Moment;

/// A claimed row, ready to be sent.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub outbound: Outbound,
    /// How often it was tried before.
    pub attempts: i64,
    /// The fence under which it was claimed; `settle` checks it.
    pub fence: i64,
}

/// A row that was found in `sending` though nobody is at it (its sender died).
#[derive(Clone, Debug)]
pub struct Interrupted {
    pub message_id: MessageId,
    pub attempts: i64,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The provider took it, and calls it by these external ids.
    Sent { external_ids: Vec<String> },
    /// It will never work.
    Failed { error: String },
    /// Try again at this moment.
    Retry { at: Moment, error: String },
    /// Nobody knows; a person decides.
    Uncertain { error: String },
}

impl Store {
    /// Claims up to `limit` due rows of an account: of each conversation the
    /// oldest unsettled only, so that order holds. They go to `sending`.
    pub async fn claim_outbox(
        &self,
        _account: &str,
        _fence: i64,
        _now: Moment,
        _limit: i64,
    ) -> Result<Vec<Claimed>, Error> {
        unimplemented!()
    }

    /// Rows of an account that an earlier holder (a lower fence) left in `sending`.
    pub async fn interrupted_outbox(&self, _account: &str, _fence: i64) -> Result<Vec<Interrupted>, Error> {
        unimplemented!()
    }

    /// Puts an interrupted row back to `queued`, due now, or to `uncertain`.
    pub async fn recover_outbox(&self, _message_id: &MessageId, _fence: i64, _to: &Settlement) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Writes the outcome; `false` if the fence is no longer the row's (somebody
    /// else has it, nothing was written). Also writes the message's state and its
    /// announcement.
    pub async fn settle_outbox(
        &self,
        _message_id: &MessageId,
        _fence: i64,
        _settlement: &Settlement,
        _now: Moment,
    ) -> Result<bool, Error> {
        unimplemented!()
    }

    /// A person's word on an uncertain or failed message: send it again.
    /// `None`: no such message; `Some(false)`: its state does not allow it.
    pub async fn resend(&self, _message_id: &MessageId, _now: Moment) -> Result<Option<bool>, Error> {
        unimplemented!()
    }

    /// A person's word on an uncertain message: it was `Sent` or `Failed`.
    pub async fn settle_by_hand(
        &self,
        _message_id: &MessageId,
        _state: DeliveryState,
        _now: Moment,
    ) -> Result<Option<bool>, Error> {
        unimplemented!()
    }

    /// Rows not settled yet, uncertain ones not counted; and the earliest due moment.
    pub async fn outbox_pending(&self) -> Result<(i64, Option<Moment>), Error> {
        unimplemented!()
    }
}
