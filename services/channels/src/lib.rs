//! Protocols and vendors: the Channel trait, what channels share, and one folder
//! for each channel. Nothing here finds contacts, conversations or tickets.
//! Suggested reading order:

pub mod channel;
pub mod list;

pub mod deliver;
pub mod gateway;
pub mod inbox;
pub mod live;
pub mod media;
pub mod pull;

mod backoff;
pub mod guard;
pub mod limit;
pub mod links;
mod multipart;
pub mod parts;
mod phone;
pub mod signature;
mod text;
pub mod token;

pub mod chat;
pub mod email;
pub mod instagram;
pub mod line;
pub mod messenger;
mod meta;
pub mod slack;
pub mod sms;
pub mod telegram;
mod twilio;
pub mod voice;
pub mod webhook;
pub mod whatsapp;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod properties;
