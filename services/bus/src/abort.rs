//! Where a test lets a process die, or stand still: at points that no signal from
//! outside meets for sure. There is nothing of it in a release build.

/// Ends this process, as a crash would, when it comes here for the n-th time, if the
/// environment says `ABORT_AT=point:n`; with `STOP_AT=point:n` it stands still here
/// until somebody sends it SIGCONT.
#[cfg(debug_assertions)]
pub fn at(point: &str) {
    use std::sync::LazyLock;

    static ABORT: LazyLock<Option<Wanted>> = LazyLock::new(|| Wanted::of("ABORT_AT"));
    static STOP: LazyLock<Option<Wanted>> = LazyLock::new(|| Wanted::of("STOP_AT"));
    if ABORT.as_ref().is_some_and(|wanted| wanted.is_reached(point)) {
        std::process::abort();
    }
    if STOP.as_ref().is_some_and(|wanted| wanted.is_reached(point)) {
        let own = std::process::id().to_string();
        // Waits for its end, and so goes no further before the signal is here.
        let _ = std::process::Command::new("kill").args(["-STOP", &own]).status();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn at(_point: &str) {}

/// A point, and how often it is still to be passed.
#[cfg(debug_assertions)]
struct Wanted(String, std::sync::atomic::AtomicU64);

#[cfg(debug_assertions)]
impl Wanted {
    fn of(name: &str) -> Option<Self> {
        let wanted = std::env::var(name).ok()?;
        let (point, count) = wanted.split_once(':')?;
        Some(Self(
            point.to_owned(),
            std::sync::atomic::AtomicU64::new(count.parse().ok()?),
        ))
    }

    fn is_reached(&self, point: &str) -> bool {
        let Self(wanted, left) = self;
        wanted == point && left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
    }
}
