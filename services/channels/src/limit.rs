//! Limits: on what strangers may make us keep, and on how fast we send.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use tokio::time::timeout;

use crate::channel::Sent;

/// So many inputs and bytes for each account in each period, counted in this process.
#[derive(Debug)]
pub struct Quota {
    inputs: u64,
    bytes: u64,
    period: Duration,
    used: Mutex<HashMap<String, Used>>,
}

#[derive(Debug)]
struct Used {
    since: Instant,
    inputs: u64,
    bytes: u64,
}

impl Quota {
    /// A quota of `inputs` and `bytes` for each account in each `period`.
    pub fn new(inputs: u64, bytes: u64, period: Duration) -> Self {
        Self {
            inputs,
            bytes,
            period,
            used: Mutex::default(),
        }
    }

    /// Takes one input of this size out of the account's quota, or says no.
    pub fn take(&self, account: &str, bytes: u64, now: Instant) -> bool {
        let mut accounts = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = accounts.entry(account.to_owned()).or_insert(Used {
            since: now,
            inputs: 0,
            bytes: 0,
        });
        if now.duration_since(used.since) >= self.period {
            *used = Used {
                since: now,
                inputs: 0,
                bytes: 0,
            };
        }
        let is_over = used.inputs + 1 > self.inputs || used.bytes + bytes > self.bytes;
        if is_over {
            return false;
        }
        used.inputs += 1;
        used.bytes += bytes;
        true
    }
}

/// How fast an account may send: so many a second as its settings say, and not
/// before the moment that its vendor has asked to wait for.
#[derive(Debug)]
pub struct Pace {
    limiter: DefaultDirectRateLimiter,
    /// Set by a 429 with Retry-After.
    paused_until: Mutex<Option<Instant>>,
}

impl Pace {
    /// A message waits for its turn so long; then it goes back to the outbox. To be
    /// added to the channel's `send_deadline`.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// `per_second` messages a second, evenly.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            limiter: RateLimiter::direct(Rate::per_second(per_second).allow_burst(NonZeroU32::MIN)),
            paused_until: Mutex::default(),
        }
    }

    /// Waits for the next turn, or says when to come again.
    pub async fn take_turn(&self) -> Result<(), Sent> {
        if let Some(after) = self.paused_for(Instant::now()) {
            return Err(Sent::Later {
                after: Some(after),
                error: "the provider asked us to wait".to_owned(),
            });
        }
        let turn = timeout(Self::PATIENCE, self.limiter.until_ready()).await;
        turn.map_err(|_| Sent::Later {
            after: None,
            error: "more messages wait than the account may send".to_owned(),
        })
    }

    /// Nothing is sent for so long.
    pub fn pause(&self, after: Duration, now: Instant) {
        let until = now.checked_add(after);
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = (*paused).max(until);
    }

    fn paused_for(&self, now: Instant) -> Option<Duration> {
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = paused.and_then(|until| until.checked_duration_since(now));
        let left = left.filter(|left| !left.is_zero());
        if left.is_none() {
            *paused = None;
        }
        left
    }
}

/// How fast an account may send to each of its threads: so many a second as the
/// vendor takes for one.
#[derive(Debug)]
pub struct PaceEach {
    limiter: DefaultKeyedRateLimiter<String>,
}

impl PaceEach {
    /// Threads that are remembered before those that rest are forgotten.
    const MANY: usize = 1_000;

    /// `per_second` messages a second to each, evenly.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            limiter: RateLimiter::keyed(Rate::per_second(per_second).allow_burst(NonZeroU32::MIN)),
        }
    }

    /// Waits for this one's next turn, at most [`Pace::PATIENCE`].
    pub async fn take_turn(&self, thread: &str) -> Result<(), Sent> {
        if self.limiter.len() > Self::MANY {
            self.limiter.retain_recent();
        }
        let key = thread.to_owned();
        let turn = timeout(Pace::PATIENCE, self.limiter.until_key_ready(&key)).await;
        turn.map_err(|_| Sent::Later {
            after: None,
            error: "more messages wait than one thread may get".to_owned(),
        })
    }
}

/// The seconds of a `Retry-After`, at most a day. A date is not read: the back-off
/// does instead.
pub fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    const LONGEST_S: u64 = 24 * 60 * 60;
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_S)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_as_long_as_the_longest_that_was_asked_for() {
        let pace = Pace::new(NonZeroU32::MIN);
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let check = |now: Instant, expected_s: Option<u64>| {
            assert_eq!(pace.paused_for(now), expected_s.map(Duration::from_secs));
        };
        check(at(0), None);
        pace.pause(Duration::from_secs(10), at(0));
        pace.pause(Duration::from_secs(3), at(1));
        check(at(2), Some(8));
        check(at(10), None);
        check(at(0), None);
    }

    #[tokio::test]
    async fn who_is_asked_to_wait_does_not_send() {
        let pace = Pace::new(NonZeroU32::MIN);
        assert_eq!(pace.take_turn().await, Ok(()));
        pace.pause(Duration::from_secs(60), Instant::now());
        let Err(Sent::Later { after: Some(after), .. }) = pace.take_turn().await else {
            panic!("it went");
        };
        assert!(
            after <= Duration::from_secs(60) && after > Duration::from_secs(50),
            "{after:?}"
        );
    }

    #[tokio::test]
    async fn each_thread_has_its_own_pace() {
        let each = PaceEach::new(NonZeroU32::MIN);
        for thread in 0..=2 * PaceEach::MANY {
            assert_eq!(each.take_turn(&thread.to_string()).await, Ok(()));
        }
        // The latest: a busy machine may have needed its second for all of them.
        let latest = (2 * PaceEach::MANY).to_string();
        let again = timeout(Duration::ZERO, each.take_turn(&latest));
        assert!(again.await.is_err(), "twice at once");
    }

    #[test]
    fn each_account_has_its_own_quota_in_each_period() {
        let quota = Quota::new(2, 100, Duration::from_secs(60));
        let start = Instant::now();
        let check = |account: &str, bytes: u64, after_s: u64, expected: bool| {
            let now = start + Duration::from_secs(after_s);
            assert_eq!(quota.take(account, bytes, now), expected, "{account} {bytes} {after_s}");
        };
        check("a", 60, 0, true);
        check("a", 60, 1, false);
        check("a", 40, 2, true);
        check("a", 0, 3, false);
        check("b", 100, 3, true);
        check("b", 1, 3, false);
        check("a", 101, 60, false);
        check("a", 100, 61, true);
    }
}
