//! The command line: one subcommand for each role and each of the operator's
//! errands.

mod chat;
mod check;
mod inspect;
mod migrate;
mod parked;
mod restored;
mod send;
mod spool;
mod token;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use store::Store;

use crate::keys;
use crate::roles::{self, Role};
use crate::settings::check::Checked;
use crate::settings::{self, Invalid, Settings};

/// It did not work.
const FAILED: u8 = 1;
/// The settings are wrong (EX_CONFIG of sysexits.h). A wrong command line is 2.
const MISCONFIGURED: u8 = 78;

const EXIT_CODES: &str = "Exit codes: 0 it worked, 1 it failed, 2 wrong command line, 78 wrong settings.";

/// Every message from every channel, turned into one stream of events, and the
/// stream into tickets with running clocks.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Arguments {
    /// Settings (TOML). Without it: ./tributary.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything in one process
    #[command(after_help = EXIT_CODES)]
    All,
    /// Takes webhooks; needs neither the database nor, for a while, Kafka
    #[command(after_help = EXIT_CODES)]
    Gateway,
    /// Reads mailboxes, delivers answers, announces changes; shared by leases
    #[command(after_help = EXIT_CODES)]
    Worker,
    /// Turns events into conversations and tickets, and watches their clocks
    #[command(after_help = EXIT_CODES)]
    Router,
    /// Serves the desk's API
    #[command(after_help = EXIT_CODES)]
    Api,
    /// Checks the settings and shows what they configure
    #[command(after_help = EXIT_CODES)]
    Check(check::Arguments),
    /// Brings the database to this version; `all` does it by itself
    #[command(after_help = EXIT_CODES)]
    Migrate,
    /// Makes access tokens for the desk's API
    #[command(after_help = EXIT_CODES)]
    Token(token::Arguments),
    /// Sends a message as a customer would, and shows the ticket that comes of it
    #[command(after_help = EXIT_CODES)]
    Send(send::Arguments),
    /// Chats as a visitor of a site would, in the terminal
    #[command(after_help = EXIT_CODES)]
    Chat(chat::Arguments),
    /// Shows what would be made of some input; nothing is stored
    #[command(after_help = EXIT_CODES)]
    Inspect(inspect::Arguments),
    /// Shows and replays inputs that wait for a person
    #[command(after_help = EXIT_CODES)]
    Parked(parked::Arguments),
    /// Catches up after a backup of the database was put back, while workers, routers and api are stopped
    #[command(after_help = EXIT_CODES)]
    Restored(restored::Arguments),
    /// Shows or empties a gateway's spool
    #[command(after_help = EXIT_CODES)]
    Spool(spool::Arguments),
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> Result<()> {
    if let Command::Check(arguments) = &arguments.command
        && arguments.defaults
    {
        return print(settings::DEFAULTS);
    }
    let settings = settings::load(arguments.config.as_deref())?;
    match arguments.command {
        Command::All => roles::run(Role::All, settings).await,
        Command::Gateway => roles::run(Role::Gateway, settings).await,
        Command::Worker => roles::run(Role::Worker, settings).await,
        Command::Router => roles::run(Role::Router, settings).await,
        Command::Api => roles::run(Role::Api, settings).await,
        Command::Check(arguments) => check::run(&arguments, settings).await,
        Command::Migrate => migrate::run(settings).await,
        Command::Token(arguments) => token::run(&arguments, settings).await,
        Command::Send(arguments) => send::run(&arguments, settings).await,
        Command::Chat(arguments) => chat::run(&arguments, settings).await,
        Command::Inspect(arguments) => inspect::run(&arguments, settings).await,
        Command::Parked(arguments) => parked::run(&arguments, settings).await,
        Command::Restored(arguments) => restored::run(&arguments, settings).await,
        Command::Spool(arguments) => spool::run(&arguments, settings).await,
    }
}

/// Says what went wrong, one line for each problem, and with which code to end.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let (code, lines) = match error.downcast_ref::<Invalid>() {
        Some(Invalid(problems)) => (MISCONFIGURED, problems.clone()),
        None => (FAILED, vec![format!("{error:#}").replace('\n', " ")]),
    };
    let mut stderr = std::io::stderr().lock();
    for line in lines {
        let _ = writeln!(stderr, "tributary: {line}");
    }
    ExitCode::from(code)
}

/// Prints a line. A reader that has gone away (`| head`) is an error like others,
/// not a panic.
pub fn print(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", line.trim_end_matches('\n'))?;
    stdout.flush()?;
    Ok(())
}

/// Text of strangers, made harmless for a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let is_shown = !character.is_control() || character == '\n' || character == '\t';
            let (shown, escaped) = match is_shown {
                true => (Some(character), None),
                false => (None, Some(character.escape_default())),
            };
            shown.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// The settings with their accounts; an errand that signs nothing needs no key.
fn checked(settings: Settings) -> Result<Checked> {
    let keys = match keys::read(&settings)? {
        Some(keys) => keys,
        None => keys::throwaway()?,
    };
    Ok(settings::check::check(settings, keys)?)
}

/// The store that the settings name, with the schema that this program needs.
async fn open_store(settings: &Settings) -> Result<Store> {
    let store = Store::open(&settings.store_url()).await?;
    store.check_schema().await?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_defined() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_that_is_shown_can_steer_a_terminal() {
        assert_eq!(plain("a\nb\tc"), "a\nb\tc");
        assert_eq!(plain("\u{1b}[2J\r\u{7}"), "\\u{1b}[2J\\r\\u{7}");
        assert_eq!(plain("größe"), "größe");
    }

    #[test]
    fn every_command_explains_its_exit_codes() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let help = sub.clone().render_help().to_string();
                let is_leaf = !sub.has_subcommands();
                assert!(!is_leaf || help.contains("Exit codes:"), "{} {help}", sub.get_name());
                check(sub);
            }
        }
        check(&Arguments::command());
    }
}
