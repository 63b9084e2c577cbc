//! The executable: reads the command line, runs one command, and turns what came
//! of it into an exit code. Suggested reading order:

mod commands;
mod settings;

mod greeting;
mod keys;
mod roles;
mod tasks;

mod descriptors;
mod gauges;
mod listener;
mod ops;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Every request makes and drops dozens of small texts. With the system's allocator
/// a quarter of the gateway's time went there; mimalloc goes through a page before it
/// takes a freed piece again, so that with hundreds of requests under way every
/// piece is cold. This one gives back the piece that was freed last.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = commands::Arguments::parse();
    // One provider of cryptography for everything that speaks TLS.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::report(&anyhow::Error::new(error).context("cannot start")),
    };
    let outcome = runtime.block_on(commands::run(arguments));
    // What still runs (a DNS look-up, a blocking read) must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => commands::report(&error),
    }
}
