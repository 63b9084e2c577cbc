//! All stories: a new one is one file and one line of [`STORIES`].

use std::sync::Arc;

use tests::harness::world::World;

use super::Running;

mod attachments;
mod backup_is_restored;
mod bad_input;
mod chat_crowd;
mod chat_frames;
mod chat_refuses;
mod chat_resumes;
mod chat_terminal;
mod commands;
mod contacts_merge;
mod disk_is_full;
mod employee_reports_incident;
mod erasure;
mod everything_breaks;
mod greets_newcomers;
mod instagram;
mod line;
mod machines_get_no_answer;
mod mail_becomes_case;
mod messenger;
mod one_bad_apple;
mod one_message_however_often;
mod one_person;
mod one_person_many_ways;
mod processes_are_killed;
mod servers_go_away;
mod slack;
mod sms;
mod starts_again;
mod stops_without_servers;
mod strangers_stay_outside;
mod telegram;
mod topic_is_deleted;
mod two_workers_one_mailbox;
mod voice;
mod webhook_gets_answers;
mod whatsapp;

/// One story.
pub struct Story {
    pub name: &'static str,
    pub worlds: Worlds,
    pub act: Act,
    pub run: fn(Arc<World>) -> Running,
}

/// Whom it may run beside: the acts follow one another.
#[derive(Clone, Copy, PartialEq)]
pub enum Act {
    /// Anybody who is not about to disturb.
    Together,
    /// Stories whose vendors keep messages waiting, so that nothing becomes quiet.
    Vendors,
    /// Nobody: servers and processes go away.
    Alone,
}

/// Where a story makes sense.
pub enum Worlds {
    Both,
    Light,
    Heavy,
}

macro_rules! story {
    ($file:ident, $worlds:ident, $act:ident) => {
        Story {
            name: stringify!($file),
            worlds: Worlds::$worlds,
            act: Act::$act,
            run: |world| Box::pin(async move { $file::run(&world).await }),
        }
    };
}

/// In the order in which they are told.
pub const STORIES: &[Story] = &[
    story!(mail_becomes_case, Both, Together),
    story!(employee_reports_incident, Both, Together),
    story!(one_message_however_often, Both, Together),
    story!(machines_get_no_answer, Both, Together),
    story!(strangers_stay_outside, Both, Together),
    story!(webhook_gets_answers, Both, Together),
    story!(sms, Both, Vendors),
    story!(voice, Both, Vendors),
    story!(whatsapp, Both, Vendors),
    story!(messenger, Both, Vendors),
    story!(instagram, Both, Vendors),
    story!(slack, Both, Alone),
    story!(telegram, Both, Alone),
    story!(line, Both, Vendors),
    story!(attachments, Both, Together),
    story!(erasure, Both, Together),
    story!(one_bad_apple, Both, Together),
    story!(bad_input, Both, Together),
    story!(chat_resumes, Both, Together),
    story!(chat_refuses, Both, Together),
    story!(one_person, Both, Together),
    story!(one_person_many_ways, Both, Together),
    story!(contacts_merge, Both, Together),
    story!(chat_frames, Light, Together),
    story!(chat_terminal, Both, Together),
    story!(greets_newcomers, Light, Together),
    story!(starts_again, Light, Together),
    story!(disk_is_full, Light, Together),
    story!(commands, Light, Together),
    story!(two_workers_one_mailbox, Heavy, Alone),
    story!(topic_is_deleted, Heavy, Alone),
    story!(servers_go_away, Heavy, Alone),
    story!(backup_is_restored, Heavy, Alone),
    story!(stops_without_servers, Heavy, Alone),
    story!(chat_crowd, Heavy, Alone),
    story!(processes_are_killed, Heavy, Alone),
    story!(everything_breaks, Both, Alone),
];
