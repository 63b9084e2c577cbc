//! What the world was told: every input that was begun, every one that was taken,
//! and every answer that the desk has given. What was taken is an obligation.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::vendors::lock;

/// Whatever happened within so long is in mid-flight.
const FRESH: Duration = Duration::from_millis(150);

#[derive(Default)]
pub struct Oracle {
    inputs: Mutex<BTreeMap<String, Input>>,
    replies: Mutex<BTreeMap<String, Reply>>,
    accepts: Mutex<Vec<Accept>>,
    wrong: Mutex<Vec<String>>,
    taken_at: Mutex<Option<Instant>>,
    in_flight: AtomicI64,
    /// How often something was sent that had been sent before.
    pub repeats: AtomicUsize,
    /// Mails that no parser can read.
    pub poisoned: AtomicUsize,
}

/// Something that somebody said to us, under an id of its own.
#[derive(Clone, Debug)]
pub struct Input {
    pub account: &'static str,
    /// Who said it: all of his are one conversation, in this order.
    pub thread: String,
    pub index: usize,
    /// The bytes, where we know them: mail servers add to them.
    pub raw: Option<Vec<u8>>,
    /// A 2xx, an `ack` or a mail server told that it was taken.
    pub is_taken: bool,
    pub message_id: Option<String>,
}

/// An answer of the desk's, by the id in its text.
#[derive(Clone, Debug)]
pub struct Reply {
    pub account: &'static str,
    pub message_id: String,
}

/// One that was taken, and how long that took.
#[derive(Clone, Copy, Debug)]
pub struct Accept {
    pub at: Instant,
    pub took: Duration,
}

/// Something is on its way as long as this lives.
pub struct Flight<'a>(&'a Oracle);

impl Oracle {
    /// Somebody is about to say this.
    pub fn begin(&self, id: &str, input: Input) {
        lock(&self.inputs).insert(id.to_owned(), input);
    }

    /// It was taken; `message_id` is what it is called, where we were told. The raw
    /// bytes are those that were sent last.
    pub fn taken(&self, id: &str, message_id: Option<&str>) {
        *lock(&self.taken_at) = Some(Instant::now());
        let mut inputs = lock(&self.inputs);
        let Some(input) = inputs.get_mut(id) else {
            return;
        };
        input.is_taken = true;
        let Some(told) = message_id else { return };
        let known = input.message_id.get_or_insert_with(|| told.to_owned());
        if known != told {
            let wrong = format!("{id} is called {known} and {told}");
            drop(inputs);
            self.wrong(wrong);
        }
    }

    pub fn accepted(&self, at: Instant, took: Duration) {
        lock(&self.accepts).push(Accept { at, took });
    }

    pub fn replied(&self, id: &str, reply: Reply) {
        lock(&self.replies).insert(id.to_owned(), reply);
    }

    /// Something that must never be.
    pub fn wrong(&self, what: String) {
        eprintln!("      WRONG: {what}");
        lock(&self.wrong).push(what);
    }

    pub fn fly(&self) -> Flight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight(self)
    }

    /// Whether a fault now hits something that is under way.
    pub fn is_busy(&self) -> bool {
        let is_fresh = lock(&self.taken_at).is_some_and(|at| at.elapsed() < FRESH);
        is_fresh || self.in_flight.load(Ordering::Relaxed) > 0
    }

    pub fn inputs(&self) -> BTreeMap<String, Input> {
        lock(&self.inputs).clone()
    }

    pub fn replies(&self) -> BTreeMap<String, Reply> {
        lock(&self.replies).clone()
    }

    pub fn accepts(&self) -> Vec<Accept> {
        lock(&self.accepts).clone()
    }

    pub fn all_wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
