//! Everything that breaks, a function each: it begins, lasts, ends, and says what it
//! did and whether it hit something that was under way.

mod clients;
mod clock;
mod disks;
mod mailbox;
mod network;
mod own;
mod processes;
mod servers;

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
pub const LANES: [&[Fault]; 2] = [
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
        fault!("PostgreSQL crashes", servers::postgres_crashes()),
        fault!("connections to PostgreSQL are cut", servers::connections_are_cut()),
        fault!("Dovecot restarts", mailbox::dovecot_restarts()),
        fault!("another UIDVALIDITY", mailbox::another_uid_validity()),
        fault!("another client marks mails as seen", mailbox::others_read()),
        fault!("slow clients, bodies without end", clients::slow_and_endless()),
        fault!("posts that are no messages", clients::poison()),
    ],
];
