//! Visitors of a chat: each says one thing after another, and comes again on
//! another gateway when his socket is gone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{CHAT, Scene, pause};
use crate::faults::oracle::Input;
use crate::harness::chat::Socket;
use crate::harness::random::Random;
use crate::vendors::lock;

const VISITORS: usize = 6;
/// For an `ack`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sessions by the visitors' names, to look at their conversations as they do.
pub type Visitors = Arc<Mutex<Vec<(String, String)>>>;

struct Visitor {
    scene: Scene,
    name: String,
    random: Random,
    session: Option<String>,
    socket: Option<Socket>,
    gateway: usize,
}

pub fn start(scene: &Scene, people: &mut JoinSet<Result<()>>) -> Visitors {
    let visitors = Visitors::default();
    for number in 0..VISITORS {
        let name = format!("c{number}");
        let visitor = Visitor {
            random: scene.random.fork(&name),
            scene: scene.clone(),
            session: None,
            socket: None,
            gateway: number,
            name,
        };
        people.spawn(visitor.run(visitors.clone()));
    }
    visitors
}

impl Visitor {
    async fn run(mut self, visitors: Visitors) -> Result<()> {
        let mut index = 0;
        while !self.scene.is_over() {
            let id = format!("{}-{}-{index}", self.scene.run, self.name);
            let input = Input {
                account: CHAT,
                thread: self.name.clone(),
                index,
                raw: None,
                is_taken: false,
                message_id: None,
            };
            self.scene.oracle.begin(&id, input);
            while !self.say(&id).await {
                self.socket = None;
                self.gateway += 1;
                self.scene.oracle.repeats.fetch_add(1, Ordering::Relaxed);
                pause(&mut self.random, 100, 500).await;
            }
            index += 1;
            pause(&mut self.random, 300, 1_500).await;
        }
        lock(&visitors).extend(self.session.map(|session| (self.name, session)));
        Ok(())
    }

    /// Whether it was acknowledged.
    async fn say(&mut self, id: &str) -> bool {
        let oracle = self.scene.oracle.clone();
        let _flight = oracle.fly();
        let public = &self.scene.world.public;
        if self.socket.is_none() {
            let coming = Socket::visit(&public[self.gateway % public.len()], CHAT, self.session.as_deref());
            let Ok(Ok(socket)) = tokio::time::timeout(PATIENCE, coming).await else {
                return false;
            };
            self.session = Some(socket.session.clone());
            self.socket = Some(socket);
        }
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let begun = Instant::now();
        match tokio::time::timeout(PATIENCE, socket.send(id, id)).await {
            Ok(Ok(message_id)) => {
                oracle.accepted(begun, begun.elapsed());
                oracle.taken(id, Some(&message_id));
                true
            }
            _ => false,
        }
    }
}
