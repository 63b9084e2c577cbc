//! What every log must do: the same cases for the local log and for Kafka.
//!
//! Kafka is the one named by `TRIBUTARY_TEST_KAFKA`, else librdkafka's mock
//! broker, which speaks the protocol and keeps records in memory.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops where something is wrong"
)]

mod broker;
mod cases;
mod kafka;
mod local;
mod spool;
mod world;

use libtest_mimic::{Arguments, Trial};

use crate::cases::Case;
use crate::world::World;

fn main() {
    let mut trials = Vec::new();
    for (name, case) in cases::all() {
        trials.push(trial(format!("local::{name}"), case, World::local));
        trials.push(trial(format!("kafka::{name}"), case, World::kafka));
    }
    for (name, case) in local::all() {
        trials.push(trial(format!("local::{name}"), case, World::local));
    }
    for (name, case) in kafka::all() {
        trials.push(trial(format!("kafka::{name}"), case, World::kafka));
    }
    for (name, case) in spool::all() {
        trials.push(trial(format!("spool::{name}"), case, World::mock_kafka));
    }
    trials.push(trial(
        "kafka::events_do_not_wait_for_hints".to_owned(),
        |world| Box::pin(kafka::events_do_not_wait_for_hints(world)),
        World::mock_without_hints,
    ));
    let mut arguments = Arguments::from_args();
    // They mostly wait: the mock broker lets a group form for three seconds.
    arguments.test_threads.get_or_insert(8);
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: String, case: Case, world: fn() -> World) -> Trial {
    Trial::test(name, move || {
        runtime().block_on(case(world()));
        Ok(())
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
