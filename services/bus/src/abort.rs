//! Where a test lets a process die: at points that no signal from outside meets for
//! sure. There is nothing of it in a release build.

/// Ends this process, as a crash would, when it comes here for the n-th time, if the
/// environment says `ABORT_AT=point:n`.
#[cfg(debug_assertions)]
pub fn at(point: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let wanted = std::env::var("ABORT_AT").ok()?;
        let (point, count) = wanted.split_once(':')?;
        Some((point.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });
    if let Some((wanted, left)) = &*WANTED
        && wanted == point
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn at(_point: &str) {}
