//! How long to wait before something is tried again.

use std::time::Duration;

use uuid::Uuid;

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
