//! Limits on what strangers may make us keep.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

#[cfg(test)]
mod tests {
    use super::*;

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
