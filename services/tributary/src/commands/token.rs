//! `tributary token create`

use std::time::SystemTime;

use anyhow::Result;
use clap::{Args, Subcommand};
use model::time::Moment;

use crate::keys;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Creates a token (and the person, if missing) and prints it, this once
    #[command(after_help = super::EXIT_CODES)]
    Create {
        /// Whose it is
        #[arg(long)]
        name: String,
    },
}

/// Creates a token. Only its hash is kept.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let Action::Create { name } = &arguments.action;
    let name = name.trim();
    anyhow::ensure!(
        !name.is_empty() && name.len() <= 200 && !name.chars().any(char::is_control),
        "a name has 1 to 200 printable bytes"
    );
    let store = super::open_store(&settings).await?;
    let (token, sha256) = keys::new_token()?;
    store
        .create_token(name, &sha256, Moment::from(SystemTime::now()))
        .await?;
    super::print(&token)
}
