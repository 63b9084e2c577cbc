//! People who send text messages: Twilio posts them, each until it is taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{SMS, Scene, pause};
use crate::faults::oracle::Input;
use crate::harness::random::Random;
use crate::vendors::twilio::{Form, TOKEN, Twilio, sign};

const PEOPLE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

struct Person {
    scene: Scene,
    name: String,
    number: String,
    twilio: Arc<Twilio>,
    client: reqwest::Client,
    random: Random,
}

pub async fn start(scene: &Scene, people: &mut JoinSet<Result<()>>) -> Result<Arc<Twilio>> {
    let twilio = Arc::new(Twilio::start(scene.world.vendor_port(SMS)?, &scene.world.public[0]).await?);
    for number in 0..PEOPLE {
        let name = format!("s{number}");
        let person = Person {
            random: scene.random.fork(&name),
            scene: scene.clone(),
            number: format!("+1555777{number:04}"),
            twilio: twilio.clone(),
            client: reqwest::Client::builder().timeout(PATIENCE).build()?,
            name,
        };
        people.spawn(person.run());
    }
    Ok(twilio)
}

impl Person {
    async fn run(mut self) -> Result<()> {
        let mut index = 0;
        while !self.scene.is_over() {
            let id = format!("{}-{}-{index}", self.scene.run, self.name);
            let sid = format!("SM{:016x}{:016x}", self.random.draw(), self.random.draw());
            let form = self.twilio.text(&sid, &self.number, &id);
            let input = Input {
                account: SMS,
                thread: self.name.clone(),
                index,
                raw: Some(form.encoded().into_bytes()),
                is_taken: false,
                message_id: None,
            };
            self.scene.oracle.begin(&id, input);
            let mut gateway = self.random.index(2);
            while !self.post(&id, &form, gateway).await {
                self.scene.oracle.repeats.fetch_add(1, Ordering::Relaxed);
                gateway += 1;
                pause(&mut self.random, 100, 400).await;
            }
            self.scene.oracle.taken(&id, None);
            index += 1;
            pause(&mut self.random, 400, 1_500).await;
        }
        Ok(())
    }

    /// Twilio signs the address that it knows, whichever gateway it comes to.
    async fn post(&self, id: &str, form: &Form, gateway: usize) -> bool {
        let oracle = &self.scene.oracle;
        let _flight = oracle.fly();
        let public = &self.scene.world.public;
        let path = format!("/in/{SMS}");
        let signature = sign(TOKEN, &format!("{}{path}", public[0]), form);
        let begun = Instant::now();
        let posting = self
            .client
            .post(format!("{}{path}", public[gateway % public.len()]))
            .header("content-type", "application/x-www-form-urlencoded; charset=UTF-8")
            .header("x-twilio-signature", signature)
            .body(form.encoded())
            .send();
        let Ok(answer) = posting.await else {
            return false;
        };
        match answer.status().as_u16() {
            200 => {
                oracle.accepted(begun, begun.elapsed());
                true
            }
            503 => false,
            status => {
                oracle.wrong(format!("{id} was refused: {status}"));
                false
            }
        }
    }
}
