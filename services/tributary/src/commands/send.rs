//! `tributary send`: a message as a customer's system would send it, through the
//! public door, and the ticket that comes of it.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use channels::list::AccountSettings;
use channels::signature::WebhookSecret;
use clap::Args;
use model::time::Moment;
use serde_json::{Value, json};

use crate::keys;
use crate::settings::Settings;

/// How long the ticket may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The channel whose shape and signature `send` knows.
const CHANNEL: &str = "webhook";
/// Overrides the administrator's token in the data folder.
const TOKEN_VARIABLE: &str = "TRIBUTARY_TOKEN";

#[derive(Debug, Args)]
pub struct Arguments {
    /// To which account, of channel `webhook`
    #[arg(long, default_value = "demo")]
    account: String,
    /// Who writes: `ADDRESS` or `NAME <ADDRESS>`
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// What the sender is called
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    subject: Option<String>,
    #[arg(long)]
    text: String,
    /// The sending system's name of the thread: messages of one name are one conversation
    #[arg(long)]
    thread: Option<String>,
    /// A file to attach; may be repeated
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The public listener; else as the settings say
    #[arg(long)]
    url: Option<String>,
    /// The account's secret (whsec_…); else as the settings say
    #[arg(long)]
    secret: Option<String>,
    /// Names the message, so that sending it again changes nothing
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Sends, waits for the ticket, and shows it.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let account = account(arguments, &settings)?;
    let body = body(arguments)?;
    let headers = sign(arguments, &account, &body)?;
    let base = arguments.url.clone().unwrap_or_else(|| settings.public_url());
    let url = format!("{}/in/{}", base.trim_end_matches('/'), arguments.account);
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()?;
    let sent_at = Instant::now();
    let message_id = post(&client, &url, &headers, body).await?;
    super::print(&format!(
        "accepted after {} ms: {message_id}",
        sent_at.elapsed().as_millis()
    ))?;
    let token = std::env::var(TOKEN_VARIABLE)
        .ok()
        .or_else(|| keys::read_token(&settings.in_data(keys::TOKEN_FILE)));
    let Some(token) = token else {
        return super::print(&format!(
            "no token in {TOKEN_VARIABLE} or the data folder, so its ticket is not shown"
        ));
    };
    let desk = Desk {
        client,
        base: format!("http://{}", settings.desk.listen),
        token,
    };
    let Some(ticket) = desk.ticket_of(&message_id).await? else {
        return super::print("no ticket came of it");
    };
    let took = sent_at.elapsed().as_millis();
    for line in describe(&ticket) {
        super::print(&line)?;
    }
    super::print(&format!("  from sending to ticket: {took} ms"))
}

/// The account as the settings have it, or one that the command line describes.
fn account(arguments: &Arguments, settings: &Settings) -> Result<AccountSettings> {
    let found = settings
        .accounts
        .iter()
        .find(|account| account.name == arguments.account);
    let mut account = match (found, &arguments.secret) {
        (Some(account), _) => account.clone(),
        (None, Some(_)) => AccountSettings {
            name: arguments.account.clone(),
            channel: CHANNEL.to_owned(),
            queue: None,
            join: None,
            rest: toml::Table::new(),
        },
        (None, None) => bail!("the settings have no account {}; name its --secret", arguments.account),
    };
    ensure!(
        account.channel == CHANNEL,
        "account {} is of channel {}; only {CHANNEL} can be sent to",
        account.name,
        account.channel
    );
    if let Some(secret) = &arguments.secret {
        account.rest.insert("secrets".to_owned(), vec![secret.clone()].into());
    }
    Ok(account)
}

fn body(arguments: &Arguments) -> Result<Vec<u8>> {
    let (name, address) = match arguments
        .from
        .trim()
        .strip_suffix('>')
        .and_then(|from| from.split_once('<'))
    {
        Some((name, address)) => (Some(name.trim().trim_matches('"').to_owned()), address.trim()),
        None => (None, arguments.from.trim()),
    };
    let name = arguments.name.clone().or(name).filter(|name| !name.is_empty());
    let mut body = json!({ "from": { "address": address }, "text": arguments.text });
    for (key, value) in [("subject", &arguments.subject), ("thread", &arguments.thread)] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    if let Some(name) = name {
        body["from"]["name"] = json!(name);
    }
    let mut attachments = Vec::new();
    for path in &arguments.files {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        attachments.push(json!({
            "name": name,
            "media_type": "application/octet-stream",
            "content": STANDARD.encode(bytes),
        }));
    }
    if !attachments.is_empty() {
        body["attachments"] = Value::Array(attachments);
    }
    Ok(serde_json::to_vec(&body)?)
}

/// The headers that sign the body with the account's first secret.
fn sign(arguments: &Arguments, account: &AccountSettings, body: &[u8]) -> Result<[(&'static str, String); 3]> {
    let secrets = account.rest.get("secrets").and_then(toml::Value::as_array);
    let secret = secrets
        .and_then(|secrets| secrets.first())
        .and_then(toml::Value::as_str)
        .with_context(|| format!("account {} has no secrets", account.name))?;
    let secret = WebhookSecret::parse(secret).map_err(anyhow::Error::msg)?;
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => format!("send_{}", uuid::Uuid::new_v4().simple()),
    };
    Ok(secret.sign(&id, Moment::from(SystemTime::now()), body))
}

/// Posts the message; the id that it was given.
async fn post(
    client: &reqwest::Client,
    url: &str,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
) -> Result<String> {
    let mut request = client.post(url).header("content-type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.send().await.map_err(|error| reached(url, &error))?;
    let status = response.status();
    let answer = response.text().await.unwrap_or_default();
    ensure!(status.is_success(), "{url} answered {status} {}", answer.trim());
    let answer: Value = serde_json::from_str(&answer).with_context(|| format!("{url} answered no JSON"))?;
    let id = text(&answer, "message_id");
    ensure!(!id.is_empty(), "{url} answered without a message_id");
    Ok(id)
}

/// `reqwest` repeats the address in each link of its chain; one line is enough.
fn reached(url: &str, error: &reqwest::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    anyhow::anyhow!("cannot reach {url} (is Tributary running?): {cause}")
}

/// The desk's API, as this command uses it.
struct Desk {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Desk {
    /// The ticket that the message came to, waiting for it. `None`: it made none.
    async fn ticket_of(&self, message: &str) -> Result<Option<Value>> {
        let deadline = Instant::now() + PATIENCE;
        let message = loop {
            if let Some(found) = self.get(&format!("/v1/messages/{message}")).await? {
                break found;
            }
            ensure!(
                Instant::now() < deadline,
                "it was accepted, but did not reach the desk within {} seconds",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(POLL).await;
        };
        let conversation = text(&message, "conversation_id");
        let conversation = self.get(&format!("/v1/conversations/{conversation}")).await?;
        let number = conversation.map(|conversation| text(&conversation, "ticket_number"));
        match number.filter(|number| !number.is_empty()) {
            Some(number) => self.get(&format!("/v1/tickets/{number}")).await,
            None => Ok(None),
        }
    }

    /// `None`: there is no such thing.
    async fn get(&self, path: &str) -> Result<Option<Value>> {
        let url = format!("{}{path}", self.base);
        let request = self.client.get(&url).bearer_auth(&self.token);
        let response = request.send().await.map_err(|error| reached(&url, &error))?;
        let status = response.status();
        match status.as_u16() {
            200 => Ok(Some(response.json().await?)),
            404 => Ok(None),
            401 => bail!("the desk does not know this token"),
            _ => bail!("{url} answered {status}"),
        }
    }
}

fn describe(ticket: &Value) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {}", text(ticket, "number"), text(ticket, "subject")),
        format!("  priority         {} of 5 (1 is critical)", ticket["priority"]),
        format!("  state            {}", text(ticket, "state")),
        format!("  queue            {}", text(ticket, "queue")),
    ];
    let clocks = ticket["clocks"].as_array().into_iter().flatten();
    lines.extend(clocks.map(|clock| {
        let metric = text(clock, "metric").replace('_', " ");
        let state = text(clock, "state");
        match (clock["due_at"].as_str(), clock["remaining_ms"].as_i64()) {
            (Some(due_at), Some(remaining_ms)) => {
                format!("  {metric:<16} {state}, {} (due {due_at})", left(remaining_ms))
            }
            _ => format!("  {metric:<16} {state}"),
        }
    }));
    lines
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// A length of time in its two largest units.
fn left(ms: i64) -> String {
    let seconds = ms.unsigned_abs() / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let length = match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    };
    if ms < 0 {
        format!("{length} late")
    } else {
        format!("{length} left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_short() {
        let cases = [
            (0, "0 s left"),
            (59_999, "59 s left"),
            (61_000, "1 min 1 s left"),
            (4 * 3_600_000, "4 h 0 min left"),
            (-90_000, "1 min 30 s late"),
            (2 * 86_400_000 + 3_600_000, "2 d 1 h left"),
        ];
        for (ms, expected) in cases {
            assert_eq!(left(ms), expected);
        }
    }
}
