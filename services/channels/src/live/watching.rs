//! One who looks at a thread.

use bus::hints::{Hint, Typist};
use tokio::sync::watch;

use super::{Key, Live, Place, Seen};

/// Somebody looks at a thread, for as long as this lives.
pub struct Watch {
    pub(super) live: Live,
    pub(super) key: Key,
    pub(super) seen: watch::Receiver<Seen>,
}

impl Watch {
    /// Waits for news. Safe to drop while it waits.
    pub async fn changed(&mut self) {
        // The sender lives as long as this does.
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What is known now.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// How many look at this thread in this process, this one among them.
    pub fn viewers(&self) -> usize {
        self.live
            .threads()
            .watched
            .get(&self.key)
            .map_or(0, |watched| watched.viewers)
    }

    /// A message of this thread is on its way.
    pub fn expect(&self) {
        if let Some(watched) = self.live.threads().watched.get_mut(&self.key) {
            watched.is_expected = true;
        }
    }

    /// Looks at once instead of with the others.
    pub fn look(&self) -> impl Future<Output = Result<Option<Place>, store::Error>> + Send + use<> {
        let (live, key, seen) = (self.live.clone(), self.key.clone(), self.seen.clone());
        async move {
            let heads = live.store().heads(&[(&*key.0, &*key.1)]).await?;
            heads.into_iter().for_each(|head| live.learn(head));
            Ok(seen.borrow().head.clone())
        }
    }

    /// The visitor is writing.
    pub fn tell_typing(&self) {
        self.live.inner.hints.publish(Hint::Typing {
            account: self.key.0.to_string(),
            thread: self.key.1.to_string(),
            by: Typist::Visitor,
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.live.leave(&self.key);
    }
}
