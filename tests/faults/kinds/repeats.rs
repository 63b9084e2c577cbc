//! Providers that say the same again, at once and later.

use anyhow::Result;
use futures_util::future::join_all;
use serde_json::Value;

use super::Told;
use super::processes::{all_of, with};
use crate::faults::Site;
use crate::faults::load::HOOKS;
use crate::faults::oracle::Input;
use crate::harness::customer::{Sender, message};
use crate::harness::random::Random;

/// How often at once.
const TIMES: [usize; 3] = [1, 10, 50];

/// Once, ten and fifty times at once over both gateways; and all of it again when
/// gateways and routers have died and begun anew.
pub async fn around_a_restart(site: &Site, random: &mut Random) -> Told {
    let run = format!("a{}", random.draw());
    let before = say(site, &run).await?;
    for role in ["gateway", "router"] {
        for name in all_of(site, role).await {
            with(site, &name, async |process| {
                process.kill().await?;
                process.launch_again()?;
                process.ready().await
            })
            .await?;
        }
    }
    let after = say(site, &run).await?;
    Ok((
        format!("({before} answers before, {after} after)"),
        before > 0 && after > 0,
    ))
}

/// Posts the messages of this run; how often one was taken.
async fn say(site: &Site, run: &str) -> Result<usize> {
    let gateways = site.world.public.iter().map(|public| Sender::new(public, HOOKS));
    let gateways: Vec<Sender> = gateways.collect::<Result<_>>()?;
    let mut taken = 0;
    for times in TIMES {
        let id = format!("{run}-{times}");
        let body = message("again@customer.example", &id, &format!("{id} is what I say."));
        let bytes = body.to_string().into_bytes();
        // What is known keeps what was told of it.
        if !site.oracle.inputs().contains_key(&id) {
            let input = Input {
                account: HOOKS,
                thread: id.clone(),
                index: 0,
                raw: Some(bytes.clone()),
                is_taken: false,
                message_id: None,
            };
            site.oracle.begin(&id, input);
        }
        let posts = gateways
            .iter()
            .cycle()
            .take(times)
            .map(|gateway| gateway.post(&id, bytes.clone()));
        for answer in join_all(posts).await.into_iter().flatten() {
            if answer.status == 200 {
                let told: Value = serde_json::from_str(&answer.body)?;
                site.oracle.taken(&id, told["message_id"].as_str());
                taken += 1;
            }
        }
    }
    Ok(taken)
}
