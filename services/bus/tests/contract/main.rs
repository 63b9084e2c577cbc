//! What every log must do: the same cases for the local log and for Kafka.
//!
//! Kafka is the one named by `TRIBUTARY_TEST_KAFKA`, else librdkafka's mock
//! broker, which speaks the protocol and keeps records in memory.

mod cases;
mod world;

use libtest_mimic::{Arguments, Trial};

use crate::world::World;

fn main() {
    let mut trials = Vec::new();
    for (name, case) in cases::all() {
        trials.push(Trial::test(format!("local::{name}"), move || {
            runtime().block_on(case(World::local()));
            Ok(())
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
