//! The command line: every command explains itself, ends with the right code, and
//! says what is wrong in one clear line.

use anyhow::{Context, Result, ensure};
use tests::harness::process;
use tests::harness::world::World;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["all"],
    &["gateway"],
    &["worker"],
    &["router"],
    &["api"],
    &["check"],
    &["migrate"],
    &["token"],
    &["token", "create"],
    &["send"],
    &["inspect"],
    &["parked"],
    &["parked", "list"],
    &["parked", "show"],
    &["parked", "replay"],
    &["spool"],
    &["spool", "status"],
    &["spool", "drain"],
    &["spool", "refused"],
];

pub async fn run(world: &World) -> Result<()> {
    for command in COMMANDS {
        let help = process::run(&[command, &["--help"][..]].concat()).await?;
        let text = String::from_utf8_lossy(&help.stdout);
        ensure!(
            help.status.code() == Some(0) && text.contains("Usage:"),
            "{command:?} --help: {text}"
        );
        ensure!(
            text.to_lowercase().contains("exit codes"),
            "{command:?} --help does not name its exit codes: {text}"
        );
    }
    refused(&["conquer"], 2, "conquer").await?;
    refused(&["parked", "show"], 2, "").await?;
    refused(
        &["check", "--config", "/nowhere/tributary.toml"],
        78,
        "/nowhere/tributary.toml",
    )
    .await?;

    // A key that nobody knows is refused with the nearest right one, by every command.
    let path = world.dir().join("wrong.toml");
    let wrong = path.to_string_lossy();
    let cases = [
        ("[desk]\nlistne = \"127.0.0.1:1\"\n", "listen"),
        ("[stroe]\nurl = \"sqlite:x\"\n", "store"),
        ("[[accounts]]\nname = \"a\"\nchannel = \"wehbook\"\n", "webhook"),
        (
            "[[accounts]]\nname = \"a\"\nchannel = \"webhook\"\nsecrest = []\n",
            "secrets",
        ),
        ("[[rules]]\nname = \"r\"\nthen = { kinds = \"case\" }\n", "kind"),
        ("[store]\nurl = \"mysql:x\"\n", "sqlite"),
    ];
    for (text, nearest) in cases {
        std::fs::write(&path, text)?;
        for command in [&["check"][..], &["all"][..]] {
            refused(&[command, &["--config", &wrong]].concat(), 78, nearest).await?;
        }
    }
    std::fs::write(&path, "[desk\n")?;
    refused(&["check", "--config", &wrong], 78, "wrong.toml").await?;

    // Other roles than `all` do not make up a key, and share log and database.
    let data = format!("[data]\npath = \"{}\"\n", world.dir().join("no-data").display());
    let kafka = "[bus]\nurl = \"kafka:127.0.0.1:1\"\n";
    let key = world.dir().join("shared-key");
    std::fs::write(&key, "a key of sixteen bytes or more")?;
    let key = format!("[keys]\nfiles = [\"{}\"]\n", key.display());
    std::fs::write(&path, format!("{data}{kafka}"))?;
    refused(&["gateway", "--config", &wrong], 78, "keys.files").await?;
    std::fs::write(&path, format!("{data}{key}"))?;
    refused(&["gateway", "--config", &wrong], 78, "kafka:HOST:PORT").await?;
    std::fs::write(&path, format!("{data}{key}{kafka}"))?;
    refused(&["router", "--config", &wrong], 78, "postgres://").await?;
    ensure!(
        !world.dir().join("no-data").exists(),
        "a folder was made before all was checked"
    );

    works(world).await
}

async fn works(world: &World) -> Result<()> {
    ensure!(!world.command(&["check"]).await?.is_empty(), "check shows nothing");
    world.command(&["migrate"]).await?;
    let token = world.command(&["token", "create", "--name", "a new colleague"]).await?;
    let desk = tests::harness::desk::Desk::new(&world.desk_url, token.trim())?;
    desk.get("/v1/accounts").await.context("the new token is no good")?;
    world.command(&["parked", "list"]).await?;
    let mail = world.dir().join("a.eml");
    std::fs::write(
        &mail,
        "Message-ID: <inspected@customer.example>\r\nFrom: a@customer.example\r\nSubject: Look\r\n\r\nHello.\r\n",
    )?;
    let printed = world.command(&["inspect", "email", &mail.to_string_lossy()]).await?;
    let value: serde_json::Value = serde_json::from_str(printed.trim())?;
    ensure!(value.to_string().contains("inspected@customer.example"), "{value}");
    let config = world.config.to_string_lossy();
    refused(
        &["parked", "show", "evt_nothing", "--config", &config],
        1,
        "evt_nothing",
    )
    .await?;
    refused(
        &["inspect", "pigeon", &mail.to_string_lossy(), "--config", &config],
        1,
        "pigeon",
    )
    .await?;
    refused(
        &[
            "send",
            "--account",
            "nobody",
            "--from",
            "a@b.example",
            "--text",
            "Hello",
            "--config",
            &config,
        ],
        1,
        "nobody",
    )
    .await
}

/// The command fails with this code and one line that names what is wrong.
async fn refused(arguments: &[&str], code: i32, names: &str) -> Result<()> {
    let output = process::run(arguments).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    let command = arguments.join(" ");
    ensure!(
        output.status.code() == Some(code),
        "{command}: {}, not {code}: {error}",
        output.status
    );
    ensure!(error.contains(names), "{command} does not name {names}: {error}");
    if code != 2 {
        ensure!(
            error.trim_end().lines().count() == 1,
            "{command}: more than one line: {error}"
        );
    }
    ensure!(!error.contains("panicked"), "{command} panicked: {error}");
    Ok(())
}
