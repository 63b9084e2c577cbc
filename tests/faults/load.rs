//! The world: people who go on writing whatever happens to us, each again until he
//! is told that it was taken, as providers and people do.

mod chat;
mod mail;
mod replies;
mod sms;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::oracle::Oracle;
use crate::harness::random::Random;
use crate::harness::world::World;
pub use chat::Visitors;
pub use replies::Receiver;

pub const HOOKS: &str = "faulty-hooks";
pub const SMS: &str = "faulty-sms";
pub const CHAT: &str = "faulty-chat";
pub const MAIL: &str = "faulty";
/// All accounts that are ours alone.
pub const ACCOUNTS: [&str; 4] = [HOOKS, SMS, CHAT, MAIL];

/// After the last fault, so long until the last input is taken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What everybody in it shares.
#[derive(Clone)]
pub struct Scene {
    pub world: Arc<World>,
    pub oracle: Arc<Oracle>,
    /// Stands in every id, so that runs in one world differ.
    pub run: String,
    pub random: Random,
    stop: Arc<AtomicBool>,
}

/// Everybody under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    people: JoinSet<Result<()>>,
    pub visitors: Visitors,
    pub receiver: Receiver,
    pub twilio: Arc<crate::vendors::twilio::Twilio>,
}

impl Load {
    pub async fn start(world: &Arc<World>, oracle: &Arc<Oracle>, seed: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let scene = Scene {
            world: world.clone(),
            oracle: oracle.clone(),
            run: format!("f{seed}"),
            random: Random::new(seed),
            stop: stop.clone(),
        };
        let mut people = JoinSet::new();
        let twilio = sms::start(&scene, &mut people).await?;
        let receiver = Receiver::start(&scene).await?;
        webhooks::start(&scene, &mut people)?;
        mail::start(&scene, &mut people);
        replies::start(&scene, &mut people);
        let visitors = chat::start(&scene, &mut people);
        Ok(Self {
            stop,
            people,
            visitors,
            receiver,
            twilio,
        })
    }

    /// Nobody begins anything new; what was begun is still brought to its end.
    pub async fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ending = async {
            while let Some(ended) = self.people.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, ending)
            .await
            .context("somebody is still not heard")?
    }
}

impl Scene {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Between two words of somebody.
async fn pause(random: &mut Random, from_ms: u64, to_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.between(from_ms, to_ms))).await;
}
