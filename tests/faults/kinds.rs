//! Everything that breaks, a function each: it begins, lasts, ends, and says what it
//! did and whether it hit something that was under way.

mod brokers;
mod clients;
mod clock;
mod conflicts;
pub mod disks;
mod mailbox;
mod network;
mod own;
mod power;
mod processes;
mod repeats;
mod servers;
mod standing;
mod storage;

use std::pin::Pin;

use anyhow::Result;

use super::Site;
use crate::harness::random::Random;

/// What was done, and whether in mid-flight.
type Told = Result<(String, bool)>;

/// A kind of fault.
pub struct Fault {
    pub name: &'static str,
    pub run: for<'a> fn(&'a Site, &'a mut Random) -> Running<'a>,
}

/// A fault under way.
type Running<'a> = Pin<Box<dyn Future<Output = Told> + 'a>>;

macro_rules! fault {
    ($name:literal, $($run:tt)+) => {
        Fault {
            name: $name,
            run: |site, random| Box::pin(fault!(@ site, random, $($run)+)),
        }
    };
    (@ $site:ident, $random:ident, $module:ident::$function:ident($($argument:expr),*)) => {
        $module::$function($site, $random, $($argument),*)
    };
}

/// Faults of one lane come one after another, those of two at once.
pub fn lanes(world: &str, is_thorough: bool) -> Vec<Vec<&'static Fault>> {
    let (quick, thorough) = match world {
        "light" => (LIGHT, LIGHT_THOROUGH),
        _ => (HEAVY, HEAVY_THOROUGH),
    };
    let mut lanes: Vec<Vec<&Fault>> = quick.iter().map(|lane| lane.iter().collect()).collect();
    if is_thorough {
        for (lane, more) in lanes.iter_mut().zip(thorough) {
            lane.extend(more);
        }
    }
    lanes
}

/// The one process of the light world.
const LIGHT: [&[Fault]; 2] = [
    &[
        fault!("another UIDVALIDITY", mailbox::another_uid_validity()),
        fault!("another client marks mails as seen", mailbox::others_read()),
        fault!("slow clients, bodies without end", clients::slow_and_endless()),
    ],
    &[
        fault!("posts that are no messages", clients::poison()),
        fault!("SIGKILL of all", processes::kill("all", &[])),
        fault!("SIGSTOP of all", processes::pause("all", &[])),
        fault!("power cut under all", power::under_all()),
    ],
];

/// Those that take their time.
const LIGHT_THOROUGH: [&[Fault]; 2] = [
    &[
        fault!("the connection is cut in a mail", mailbox::cut_in_a_literal()),
        fault!("a mail is moved in mid-fetch", mailbox::moved_in_mid_fetch()),
    ],
    &[
        fault!(
            "death after publish, before the answer",
            processes::abort("all", "published")
        ),
        fault!(
            "death after apply, before anybody hears",
            processes::abort("all", "applied")
        ),
        fault!("death after send, before settle", processes::abort("all", "sent")),
        fault!("the disk under all is full", disks::full_under_all()),
        fault!("fsync fails under all", disks::fsync_fails_under_all()),
        fault!("the disk under all is read-only", disks::read_only_under_all()),
    ],
];

/// The same of the heavy world; the first ones want three brokers.
const HEAVY_THOROUGH: [&[Fault]; 2] = [
    &[
        fault!("a worker stands still with half a mail", standing::in_mid_fetch()),
        fault!("a worker stands still in mid-delivery", standing::in_mid_delivery()),
        fault!("a worker's clock jumps", clock::of_a_worker_jumps()),
        fault!("a router's clock jumps", clock::of_a_router_jumps()),
        fault!("repeats before and after a restart", repeats::around_a_restart()),
    ],
    &[
        fault!("one of three brokers is gone", brokers::one_is_gone()),
        fault!("two of three brokers are gone", brokers::two_are_gone()),
        fault!("a gateway starts before Kafka", brokers::starts_before_kafka()),
        fault!(
            "a gateway's clock goes back without Kafka",
            clock::goes_back_without_kafka()
        ),
        fault!("Kafka takes only small records", brokers::takes_only_small_records()),
        fault!("the disk of a spool is read-only", disks::read_only()),
        fault!("no room for blobs", disks::full_under_blobs()),
        fault!("power cut under a spool", power::under_a_spool()),
        fault!("deadlocks with another session", conflicts::deadlocks()),
        fault!("many mails wait", mailbox::many_wait()),
        fault!("ten thousand idle connections", clients::idle()),
        fault!("bodies that would be huge if unpacked", clients::bombs()),
    ],
];

/// The roles apart.
const HEAVY: [&[Fault]; 2] = [
    &[
        fault!("SIGKILL of a gateway", processes::kill("gateway", &[])),
        fault!(
            "SIGKILL of a worker",
            processes::kill("worker", &["outbox", "mailbox", "announcements"])
        ),
        fault!("SIGKILL of a router", processes::kill("router", &["bus"])),
        fault!("SIGKILL of the api", processes::kill("api", &[])),
        fault!(
            "death after publish, before the answer",
            processes::abort("gateway", "published")
        ),
        fault!(
            "death after apply, before anybody hears",
            processes::abort("router", "applied")
        ),
        fault!("death after send, before settle", processes::abort("worker", "sent")),
        fault!("SIGSTOP of a router", processes::pause("router", &["bus"])),
        fault!(
            "SIGSTOP of a worker",
            processes::pause("worker", &["outbox", "mailbox", "announcements"])
        ),
        fault!("a router more, for a while", processes::add_router()),
        fault!("a gateway's clock jumps", clock::jumps()),
    ],
    &[
        fault!("Kafka refuses", network::kafka_refuses()),
        fault!("Kafka is a black hole", network::kafka_is_a_hole()),
        fault!("Kafka flaps", network::kafka_flaps()),
        fault!("Kafka is slow", network::kafka_is_slow()),
        fault!("the disk of a spool is full", disks::full()),
        fault!("fsync of a spool fails", disks::fsync_fails()),
        fault!("more partitions", servers::more_partitions()),
        fault!("object storage is away", storage::is_away()),
        fault!("PostgreSQL crashes", servers::postgres_crashes()),
        fault!("connections to PostgreSQL are cut", servers::connections_are_cut()),
        fault!("PostgreSQL sees conflicts", conflicts::by_a_trigger()),
        fault!("Dovecot restarts", mailbox::dovecot_restarts()),
        fault!("another UIDVALIDITY", mailbox::another_uid_validity()),
        fault!("another client marks mails as seen", mailbox::others_read()),
        fault!("the connection is cut in a mail", mailbox::cut_in_a_literal()),
        fault!("a mail is moved in mid-fetch", mailbox::moved_in_mid_fetch()),
        fault!("slow clients, bodies without end", clients::slow_and_endless()),
        fault!("posts that are no messages", clients::poison()),
    ],
];
