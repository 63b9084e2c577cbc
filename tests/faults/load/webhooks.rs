//! Systems that post webhooks: each keeps the order of its own messages, posts some
//! of them ten or fifty times at once over both gateways, and old ones again.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{HOOKS, Scene, pause};
use crate::faults::oracle::Input;
use crate::harness::customer::{Answer, Sender};
use crate::harness::random::Random;

const SYSTEMS: usize = 24;
/// Posted again, sometimes.
const KEPT: usize = 50;

struct System {
    scene: Scene,
    name: String,
    gateways: Vec<Sender>,
    random: Random,
    sent: Vec<(String, Vec<u8>)>,
}

pub fn start(scene: &Scene, people: &mut JoinSet<Result<()>>) -> Result<()> {
    for number in 0..SYSTEMS {
        let name = format!("w{number}");
        let gateways = scene.world.public.iter().map(|public| Sender::new(public, HOOKS));
        let system = System {
            gateways: gateways.collect::<Result<_>>()?,
            random: scene.random.fork(&name),
            scene: scene.clone(),
            name,
            sent: Vec::new(),
        };
        people.spawn(system.run());
    }
    Ok(())
}

impl System {
    async fn run(mut self) -> Result<()> {
        let mut index = 0;
        while !self.scene.is_over() {
            let id = format!("{}-{}-{index}", self.scene.run, self.name);
            let body = self.body(&id).to_string().into_bytes();
            let input = Input {
                account: HOOKS,
                thread: self.name.clone(),
                index,
                raw: Some(body.clone()),
                is_taken: false,
                message_id: None,
            };
            self.scene.oracle.begin(&id, input);
            self.until_taken(&id, &body).await;
            self.again(&id, &body).await;
            index += 1;
            pause(&mut self.random, 150, 700).await;
        }
        Ok(())
    }

    fn body(&self, id: &str) -> Value {
        json!({
            "from": { "address": format!("{}-{}@customer.example", self.scene.run, self.name) },
            "thread": format!("{}-{}", self.scene.run, self.name),
            "subject": format!("{}-{}", self.scene.run, self.name),
            "text": format!("{id} is what I say."),
            "sent_at": jiff::Timestamp::now().to_string(),
        })
    }

    async fn until_taken(&mut self, id: &str, body: &[u8]) {
        let mut gateway = self.random.index(self.gateways.len());
        let mut is_repeat = false;
        loop {
            let times = if is_repeat { 1 } else { self.times() };
            if self.post(id, body, gateway, times).await {
                return;
            }
            is_repeat = true;
            self.scene.oracle.repeats.fetch_add(1, Ordering::Relaxed);
            gateway += 1;
            pause(&mut self.random, 50, 250).await;
        }
    }

    fn times(&mut self) -> usize {
        match self.random.below(60) {
            0 => 50,
            1 | 2 => 10,
            _ => 1,
        }
    }

    /// Posts it so many times at once, in turn over the gateways from this one on;
    /// whether it was taken.
    async fn post(&self, id: &str, body: &[u8], gateway: usize, times: usize) -> bool {
        let oracle = &self.scene.oracle;
        oracle.repeats.fetch_add(times - 1, Ordering::Relaxed);
        let posts = (gateway..gateway + times).map(|gateway| async move {
            let _flight = oracle.fly();
            let begun = Instant::now();
            let answer = self.gateways[gateway % self.gateways.len()]
                .post(id, body.to_vec())
                .await;
            // Of many at once each waits for the others.
            if times == 1 && answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                oracle.accepted(begun, begun.elapsed());
            }
            answer
        });
        let mut is_taken = false;
        for answer in join_all(posts).await.into_iter().flatten() {
            is_taken |= self.hear(id, &answer);
        }
        is_taken
    }

    /// Whether this answer is a word that we have it. No answer at all is none.
    fn hear(&self, id: &str, answer: &Answer) -> bool {
        match answer.status {
            200 => {
                let told: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                self.scene.oracle.taken(id, told["message_id"].as_str());
                true
            }
            503 => false,
            status => {
                let wrong = format!("{id} was refused: {status} {}", answer.body);
                self.scene.oracle.wrong(wrong);
                false
            }
        }
    }

    /// An old one again, as providers do that did not hear our answer.
    async fn again(&mut self, id: &str, body: &[u8]) {
        if self.sent.len() < KEPT {
            self.sent.push((id.to_owned(), body.to_vec()));
        }
        if self.random.one_in(25) {
            let (id, body) = self.sent[self.random.index(self.sent.len())].clone();
            self.scene.oracle.repeats.fetch_add(1, Ordering::Relaxed);
            self.post(&id, &body, self.random.clone().index(2), 1).await;
        }
    }
}
