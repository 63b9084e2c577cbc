//! Presence: who looks now and who has left, as the store and other replicas know it.

use bus::hints::Hint;
use model::id::ConversationId;
use model::time::Moment;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{Key, LOOK_EVERY, Live, now};

/// Somebody who left, to be noted.
pub(super) struct Goodbye {
    pub key: Key,
    pub conversation_id: ConversationId,
    pub noted_at: Moment,
}

impl Live {
    /// Notes in the store who is there, and who left.
    pub(super) async fn note(&self, leaving: &mut mpsc::Receiver<Goodbye>) {
        let mut beat = interval(self.inner.beat.min(LOOK_EVERY));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => self.note_presence().await,
                () = self.note_leaving(leaving) => {}
            }
        }
    }

    async fn note_presence(&self) {
        let now = now();
        let beat_ms = i64::try_from(self.inner.beat.as_millis()).unwrap_or(i64::MAX);
        let mut here = Vec::new();
        let mut came = Vec::new();
        for (key, watched) in &self.threads().watched {
            let is_due = watched.noted_at.is_none_or(|at| now.since_ms(at) >= beat_ms);
            if let (true, Some(place)) = (is_due, &watched.seen.borrow().head) {
                here.push((key.clone(), place.conversation_id.clone()));
                if watched.noted_at.is_none() {
                    came.push(key.clone());
                }
            }
        }
        let conversations: Vec<ConversationId> = here.iter().map(|(_, id)| id.clone()).collect();
        if let Err(error) = self.inner.store.visitors_seen(&conversations, now).await {
            tracing::debug!(%error, "presence not noted");
            return;
        }
        let mut threads = self.threads();
        for (key, _) in here {
            if let Some(watched) = threads.watched.get_mut(&key) {
                watched.noted_at = Some(now);
            }
        }
        drop(threads);
        came.into_iter().for_each(|key| self.tell_presence(key, true));
    }

    /// The next who left.
    pub(super) async fn note_leaving(&self, leaving: &mut mpsc::Receiver<Goodbye>) {
        let Some(goodbye) = leaving.recv().await else { return };
        let store = &self.inner.store;
        let noted = store.visitor_gone(&goodbye.conversation_id, goodbye.noted_at, now());
        if let Err(error) = noted.await {
            tracing::debug!(%error, "a visitor's leave not noted");
        }
        self.tell_presence(goodbye.key, false);
    }

    fn tell_presence(&self, (account, thread): Key, is_here: bool) {
        self.inner.hints.publish(Hint::Presence {
            account: account.to_string(),
            thread: thread.to_string(),
            is_here,
        });
    }
}
