//! How long to wait before something is tried again.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// After a panic: from, and at most.
const PANIC_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Runs it until it ends. A panic is a bug, and no end: `broke` tells of it, and it
/// begins again, later each time.
pub async fn outlive_panics<T, A, B>(stop: &CancellationToken, begin: impl Fn() -> A, broke: impl Fn() -> B) -> T
where
    A: Future<Output = T>,
    B: Future<Output = ()>,
{
    let mut panics = 0;
    loop {
        if let Ok(ended) = AssertUnwindSafe(begin()).catch_unwind().await {
            return ended;
        }
        broke().await;
        let wait = exponential(PANIC_WAIT.0, PANIC_WAIT.1, panics);
        panics += 1;
        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

/// `first` doubled `times` times, at most `longest`, with jitter.
pub fn exponential(first: Duration, longest: Duration, times: u32) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(times.min(30)));
    jittered(doubled.min(longest))
}

/// Between 80 % and 120 % of it, so that those who failed together do not come
/// back together.
pub fn jittered(duration: Duration) -> Duration {
    // Any random bits will do.
    let (random, _) = Uuid::new_v4().as_u64_pair();
    let share = (random >> 40) as f64 / (1_u64 << 24) as f64;
    duration.mul_f64(0.8 + 0.4 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let check = |times: u32, expected_s: u64| {
            let found = exponential(Duration::from_secs(5), Duration::from_secs(3600), times);
            let expected = Duration::from_secs(expected_s);
            assert!(
                found >= expected.mul_f64(0.79) && found <= expected.mul_f64(1.21),
                "{times}: {found:?}"
            );
        };
        check(0, 5);
        check(1, 10);
        check(9, 2560);
        check(10, 3600);
        check(4_000_000_000, 3600);
    }
}
