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
    /// It disturbs others, so it runs alone, after them.
    pub alone: bool,
    pub run: fn(Arc<World>) -> Running,
}

/// Where a story makes sense.
pub enum Worlds {
    Both,
    Light,
    Heavy,
}

macro_rules! story {
    ($file:ident, $worlds:ident, $alone:literal) => {
        Story {
            name: stringify!($file),
            worlds: Worlds::$worlds,
            alone: $alone,
            run: |world| Box::pin(async move { $file::run(&world).await }),
        }
    };
}

/// In the order in which they are told.
pub const STORIES: &[Story] = &[
    story!(mail_becomes_case, Both, false),
    story!(employee_reports_incident, Both, false),
    story!(one_message_however_often, Both, false),
    story!(machines_get_no_answer, Both, false),
    story!(strangers_stay_outside, Both, false),
    story!(webhook_gets_answers, Both, false),
    story!(sms, Both, true),
    story!(voice, Both, true),
    story!(whatsapp, Both, true),
    story!(messenger, Both, true),
    story!(instagram, Both, true),
    story!(slack, Both, true),
    story!(telegram, Both, true),
    story!(line, Both, true),
    story!(attachments, Both, false),
    story!(erasure, Both, false),
    story!(one_bad_apple, Both, false),
    story!(bad_input, Both, false),
    story!(chat_resumes, Both, false),
    story!(chat_refuses, Both, false),
    story!(one_person, Both, false),
    story!(one_person_many_ways, Both, false),
    story!(contacts_merge, Both, false),
    story!(chat_frames, Light, false),
    story!(chat_terminal, Both, false),
    story!(greets_newcomers, Light, false),
    story!(starts_again, Light, false),
    story!(disk_is_full, Light, false),
    story!(commands, Light, false),
    story!(two_workers_one_mailbox, Heavy, true),
    story!(topic_is_deleted, Heavy, true),
    story!(servers_go_away, Heavy, true),
    story!(backup_is_restored, Heavy, true),
    story!(stops_without_servers, Heavy, true),
    story!(chat_crowd, Heavy, true),
    story!(processes_are_killed, Heavy, true),
    story!(everything_breaks, Both, true),
];
