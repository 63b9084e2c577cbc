//! People who write mails; one mail in some that no parser can follow.

use std::sync::atomic::Ordering;

use anyhow::Result;
use tokio::task::JoinSet;

use super::{MAIL, Scene, pause};
use crate::faults::oracle::Input;
use crate::harness::mail::Letter;

const WRITERS: [&str; 2] = ["gina", "hanna"];

pub fn start(scene: &Scene, people: &mut JoinSet<Result<()>>) {
    for (number, writer) in WRITERS.into_iter().enumerate() {
        people.spawn(write(scene.clone(), format!("m{number}"), writer));
    }
}

async fn write(scene: Scene, name: String, writer: &str) -> Result<()> {
    let mut random = scene.random.fork(&name);
    let (from, to) = (scene.world.theirs(writer), scene.world.ours(MAIL));
    let mut index = 0;
    while !scene.is_over() {
        let id = format!("{}-{name}-{index}", scene.run);
        let letter = Letter::new(
            &from,
            &to,
            &format!("{id}@customer.example"),
            &id,
            &format!("{id} is what I write."),
        );
        index += 1;
        if random.one_in(15) {
            scene.world.mail.send(&letter.unparsable()).await?;
            scene.oracle.poisoned.fetch_add(1, Ordering::Relaxed);
        } else {
            // Each mail begins a conversation.
            let input = Input {
                account: MAIL,
                thread: format!("{name}-{index}"),
                index: 0,
                raw: None,
                is_taken: false,
                message_id: None,
            };
            scene.oracle.begin(&id, input);
            scene.world.mail.send(&letter).await?;
            scene.oracle.taken(&id, None);
        }
        pause(&mut random, 500, 2_000).await;
    }
    Ok(())
}
