//! The harness. Suggested reading order:

pub mod world;

pub mod chat;
pub mod customer;
pub mod desk;
pub mod kafka;
pub mod mail;
pub mod ops;
pub mod power;

pub mod process;
pub mod proxy;
pub mod random;
pub mod servers;
pub mod settings;
pub mod strace;
pub mod vendor;
pub mod wait;
