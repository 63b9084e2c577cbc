//! Clocks that fall due: each warning and each breach is written once, however
//! many routers run, because each is an event at an expected version.

use std::time::{Duration, SystemTime};

use model::context::Changes;
use model::ticket::{Actor, Command, Ticket};
use model::time::Moment;
use store::Store;
use store::apply::Outcome;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::{Error, chain};

/// Longest time between two looks: another router may have moved a clock.
const LOOK: Duration = Duration::from_secs(1);
/// Tickets of one look.
const LIMIT: i64 = 200;

/// Writes what falls due, until `stop`. Ends earlier only with a fault.
pub async fn run(store: Store, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    loop {
        let wait = match look(&store, &metrics, &stop).await {
            Ok(wait) => wait,
            Err(error @ (store::Error::Corrupt(_) | store::Error::Settings(_))) => return Err(Error::Store(error)),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "clocks could not be looked at, trying again soon");
                LOOK
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One look; says how long until the next.
async fn look(store: &Store, metrics: &Metrics, stop: &CancellationToken) -> Result<Duration, store::Error> {
    let tickets = store.tickets_with_due_clocks(now(), LIMIT).await?;
    for ticket in &tickets {
        if stop.is_cancelled() {
            return Ok(Duration::ZERO);
        }
        ring(store, metrics, ticket).await?;
    }
    if tickets.len() as i64 == LIMIT {
        return Ok(Duration::ZERO);
    }
    let until_next_ms = store
        .next_clock_at()
        .await?
        .map_or(i64::MAX, |next_at| next_at.since_ms(now()));
    Ok(Duration::from_millis(u64::try_from(until_next_ms).unwrap_or(0)).clamp(Duration::from_millis(10), LOOK))
}

/// Writes what is due of one ticket. Stale means that somebody else did, or that
/// the ticket moved: the next look sees.
async fn ring(store: &Store, metrics: &Metrics, ticket: &Ticket) -> Result<(), store::Error> {
    let book = store.book().await?;
    let now = now();
    for clock in ticket
        .clocks
        .iter()
        .filter(|clock| clock.next_at.is_some_and(|next_at| next_at <= now))
    {
        let command = Command::ClockDue { metric: clock.metric };
        let changes = match Changes::of_command(ticket, &command, &Actor::System, now, &book.sla) {
            Ok(changes) if !changes.is_empty() => changes,
            Ok(_) => continue,
            Err(refusal) => {
                tracing::error!(ticket.number = %ticket.number, error = %refusal, "clock could not ring");
                continue;
            }
        };
        let events = changes.ticket_events.len() as u64;
        if store.commit(&changes).await? == Outcome::Applied {
            metrics.clocks_due.inc_by(events);
        }
        // The ticket has another version now; its other clocks wait for the next look.
        return Ok(());
    }
    Ok(())
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}
