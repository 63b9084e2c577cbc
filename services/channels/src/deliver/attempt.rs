//! One attempt to send a message, and what becomes of its row.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use model::outbound::{Declaration, Outbound};
use store::outbox::{Claimed, Settlement};
use tokio::time::timeout;

use super::{Deliverer, now};
use crate::backoff;
use crate::channel::Sent;
use crate::list::Account;

const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// A message of an account that a person has to mend is tried so often.
const BROKEN_WAIT: Duration = Duration::from_secs(300);
/// Ten attempts in the first hours, then one each hour: about three days.
pub(super) const MAX_ATTEMPTS: i64 = 80;
/// A message whose sender has ended in the middle of so many attempts may be what
/// ends it, and with it every other message's: about ten minutes of trying.
const MAX_INTERRUPTED: i64 = 8;

impl Deliverer {
    pub(super) async fn attempt(&self, account: &Account, claimed: &Claimed) -> Settlement {
        let outbound = &claimed.outbound;
        let declaration = account.channel.declaration();
        // What the channel declared that it cannot carry is not given to it.
        if let Err(refusal) = declaration.carries(&outbound.text, &outbound.attachments) {
            return Settlement::Failed { error: refusal.detail };
        }
        let files = match self.files(outbound).await {
            Ok(files) => files,
            Err(sent) => return settlement(sent, &declaration, claimed.attempts),
        };
        let sending = AssertUnwindSafe(async {
            let deadline = account.channel.send_deadline();
            let outbound = self.with_way_back(claimed);
            let sent = timeout(deadline, account.channel.send(&outbound, &files)).await;
            sent.unwrap_or_else(|_| Sent::Unknown {
                error: format!("no answer within {} s", deadline.as_secs()),
            })
        });
        let sent = sending.catch_unwind().await.unwrap_or_else(|_| Sent::Unknown {
            error: "the channel failed while sending".to_owned(),
        });
        settlement(sent, &declaration, claimed.attempts)
    }

    async fn files(&self, outbound: &Outbound) -> Result<Vec<Vec<u8>>, Sent> {
        let mut files = Vec::new();
        for attachment in &outbound.attachments {
            match self.blobs.get(&attachment.sha256).await {
                Ok(Some(bytes)) => files.push(bytes),
                Ok(None) => {
                    let error = format!("the bytes of attachment {} are missing", attachment.sha256);
                    return Err(Sent::Refused { error });
                }
                Err(error) => {
                    let error = format!("attachments cannot be read: {error}");
                    return Err(Sent::Later { after: None, error });
                }
            }
        }
        Ok(files)
    }
}

/// What becomes of the row. An unknown outcome is tried again only where the
/// customer gets the message at most once all the same. `attempts`: those before.
pub(super) fn settlement(sent: Sent, declaration: &Declaration, attempts: i64) -> Settlement {
    match sent {
        Sent::Accepted { external_ids } => Settlement::Sent { external_ids },
        Sent::Refused { error } => Settlement::Failed { error },
        Sent::Later { error, .. } if attempts + 1 >= MAX_ATTEMPTS => Settlement::Failed {
            error: given_up(attempts + 1, &error),
        },
        Sent::Later { after, error } => retry(after, error, attempts),
        // However long it takes: the message is not to blame.
        Sent::Broken { error } => retry(Some(BROKEN_WAIT), error, 0),
        Sent::Unknown { error } if !declaration.resend_safe => Settlement::Uncertain { error },
        Sent::Unknown { error } if attempts + 1 >= MAX_ATTEMPTS => Settlement::Uncertain {
            error: given_up(attempts + 1, &error),
        },
        Sent::Unknown { error } => retry(None, error, attempts),
    }
}

/// What becomes of a row whose sender ended in the middle of its last attempt,
/// the `attempts`th.
pub(super) fn interrupted(declaration: &Declaration, attempts: i64) -> Settlement {
    let error = "the process that was sending it ended".to_owned();
    if declaration.resend_safe && attempts >= MAX_INTERRUPTED {
        return Settlement::Uncertain {
            error: given_up(attempts, &error),
        };
    }
    settlement(Sent::Unknown { error }, declaration, attempts - 1)
}

/// The same without the provider's words, for a database that refuses those.
pub(super) fn bare(settlement: &Settlement) -> Settlement {
    let error = || "the provider's answer cannot be stored".to_owned();
    match settlement {
        Settlement::Sent { .. } => Settlement::Sent {
            external_ids: Vec::new(),
        },
        Settlement::Failed { .. } => Settlement::Failed { error: error() },
        Settlement::Retry { at, .. } => Settlement::Retry {
            at: *at,
            error: error(),
        },
        Settlement::Uncertain { .. } => Settlement::Uncertain { error: error() },
    }
}

/// As the metric names it.
pub(super) fn outcome(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Sent { .. } => "sent",
        Settlement::Failed { .. } => "failed",
        Settlement::Retry { .. } => "retry",
        Settlement::Uncertain { .. } => "uncertain",
    }
}

fn retry(after: Option<Duration>, error: String, attempts: i64) -> Settlement {
    let times = u32::try_from(attempts).unwrap_or(0);
    let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, times).max(after.unwrap_or_default());
    let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    Settlement::Retry {
        at: now().plus_ms(wait_ms),
        error,
    }
}

fn given_up(attempts: i64, error: &str) -> String {
    format!("given up after {attempts} attempts: {error}")
}
