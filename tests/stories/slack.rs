//! Customers write on Slack and get answers: directly, in threads, with files, and
//! with a vendor that fails, repeats and mixes up the order; by posts and over a
//! socket, whose reader is killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::ops::metrics;
use tests::harness::settings::SLACK_SOCKET;
use tests::harness::vendor::{delivered, mend};
use tests::harness::wait::{eventually, until};
use tests::harness::world::{LEASE_SECONDS, World};
use tests::vendors::Mood;
use tests::vendors::slack::{PICTURE, Posted, SIGNING_SECRET, Slack, direct, event, message};

const ACCOUNT: &str = "slack";

pub async fn run(world: &World) -> Result<()> {
    let slack = Slack::start(world.vendor_port(ACCOUNT)?, &world.public[0]).await?;
    slack_asks_who_we_are(&slack).await?;
    let asked = a_message_comes_ten_times(world, &slack).await?;
    it_is_answered(world, &slack, &asked).await?;
    files_come(world, &slack).await?;
    files_go(world, &slack, &asked).await?;
    a_thread_is_a_conversation(world, &slack).await?;
    what_was_said_changes(world, &slack).await?;
    buttons_and_commands(world, &slack).await?;
    slack_is_busy_and_fails(world, &slack).await?;
    nobody_knows_whether_it_left(world, &slack).await?;
    the_strange_is_kept(world, &slack).await?;
    a_wrong_secret_is_mended(world, &slack).await?;
    ensure!(
        slack.refusals() == ["chat.postMessage: channel_not_found"],
        "{:?}",
        slack.refusals()
    );
    the_token_is_revoked(world, &slack).await?;
    over_a_socket(world).await?;
    a_reader_hides_no_broken_token(world).await?;
    the_reader_is_killed(world).await?;
    let said = world.command(&["check", "--live", ACCOUNT]).await?;
    ensure!(said.contains("support in the workspace The stories"), "{said}");
    let said = world.command(&["check", "--live", SLACK_SOCKET]).await?;
    ensure!(said.contains("Socket Mode is open to us"), "{said}");
    Ok(())
}

/// A time of a message of this story.
fn at(number: u32) -> String {
    format!("{}.{number:06}", 1_780_000_000 + number)
}

/// Posts an event, which must be taken.
async fn post(slack: &Slack, id: &str, what: Value) -> Result<()> {
    let answer = slack.post(ACCOUNT, &event(id, what)).await?;
    ensure!(answer.status == 200 && answer.body.is_empty(), "{answer:?}");
    Ok(())
}

/// Somebody writes directly; the conversation that comes of it.
async fn ask(world: &World, slack: &Slack, number: u32, said: &str) -> Result<String> {
    post(
        slack,
        &format!("ask{number}"),
        direct(&format!("U{number}"), &at(number), said),
    )
    .await?;
    let ticket = world.desk.ticket(ACCOUNT, said).await?;
    Ok(conversation(&ticket)?.to_owned())
}

/// What Slack took last, as soon as it has this many.
async fn taken(slack: &Slack, count: usize) -> Result<Posted> {
    eventually(&format!("{count} messages at Slack"), SOON * 2, async || {
        let posted = slack.posted();
        Ok((posted.len() >= count).then(|| posted.last().cloned()).flatten())
    })
    .await
    .with_context(|| format!("refused: {:?}", slack.refusals()))
}

async fn slack_asks_who_we_are(slack: &Slack) -> Result<()> {
    let question = json!({ "token": "legacy", "challenge": "3eZbrw1aBm2rZgRN", "type": "url_verification" });
    let answer = slack.post(ACCOUNT, &question).await?;
    ensure!(
        (answer.status, answer.body.as_str()) == (200, "3eZbrw1aBm2rZgRN"),
        "{answer:?}"
    );
    let media_type = "application/json";
    let forged = slack
        .post_signed(ACCOUNT, media_type, &question.to_string(), "another", 0, 0)
        .await?;
    ensure!(forged.status == 401, "{forged:?}");
    // Signed well, and long ago.
    let old = slack
        .post_signed(
            ACCOUNT,
            media_type,
            &question.to_string(),
            SIGNING_SECRET,
            1_767_225_600,
            0,
        )
        .await?;
    ensure!(old.status == 401, "{old:?}");
    Ok(())
}

async fn a_message_comes_ten_times(world: &World, slack: &Slack) -> Result<String> {
    let asked = ask(world, slack, 1, "Grüße! Where is my bike?").await?;
    let again = event("ask1", direct("U1", &at(1), "Grüße! Where is my bike?"));
    for retry in 1..=10 {
        let answer = slack.post_again(ACCOUNT, &again, retry).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    // Of the other workspace of a shared channel: the same message in another event.
    post(slack, "shared", direct("U1", &at(1), "Grüße! Where is my bike?")).await?;
    // The later one first.
    post(slack, "third", direct("U1", &at(3), "Are you there?")).await?;
    post(
        slack,
        "second",
        direct("U1", &at(2), "It is red &amp; fast, see <https://example.com|this>"),
    )
    .await?;
    let messages = world.desk.messages_at_least(&asked, 3).await?;
    let said: Vec<_> = messages
        .iter()
        .map(|message| message["text"].as_str().unwrap_or_default())
        .collect();
    let expected = [
        "Grüße! Where is my bike?",
        "It is red & fast, see this (https://example.com)",
        "Are you there?",
    ];
    ensure!(said == expected, "{said:?}");
    Ok(asked)
}

async fn it_is_answered(world: &World, slack: &Slack, asked: &str) -> Result<()> {
    let before = slack.posted().len();
    let reply = world
        .desk
        .reply(asked, "slack-1", "On its way: <5 km> & *fast*.")
        .await?;
    let posted = taken(slack, before + 1).await?;
    ensure!(
        (posted.channel.as_str(), &posted.thread_ts) == ("D1", &None),
        "{posted:?}"
    );
    ensure!(posted.text == "On its way: &lt;5 km&gt; &amp; *fast*.", "{posted:?}");
    let message = delivered(world, &reply, "sent").await?;
    ensure!(
        message["external_ids"]
            .to_string()
            .contains(&format!("D1/{}", posted.ts)),
        "{message}"
    );
    // Slack shows it to us as well, and somebody likes it.
    post(slack, "echo", slack.shown(&posted)).await?;
    let liked = json!({ "type": "reaction_added", "user": "U1", "reaction": "heart", "event_ts": at(4),
        "item": { "type": "message", "channel": "D1", "ts": posted.ts } });
    post(slack, "liked", liked).await?;
    let path = format!("/v1/messages/{}", text(&reply, "id")?);
    until("the answer is liked", SOON, async || {
        let reactions = &world.desk.get(&path).await?["reactions"];
        Ok(reactions[0]["emoji"] == ":heart:")
    })
    .await?;
    let messages = world.desk.messages(asked).await?;
    ensure!(messages.len() == 4, "our words came back as another's: {messages:?}");
    Ok(())
}

async fn files_come(world: &World, slack: &Slack) -> Result<()> {
    let port = world.vendor_port(ACCOUNT)?;
    let file = |id: &str, name: &str| {
        json!({ "id": id, "name": name, "mimetype": "image/png", "size": PICTURE.len(), "mode": "hosted",
            "url_private_download": format!("http://127.0.0.1:{port}/files/{name}") })
    };
    let mut what = direct("U10", &at(10), "Look at this");
    what["subtype"] = json!("file_share");
    what["files"] = json!([
        file("F1", "bike.png"),
        { "id": "F2", "mode": "file_access", "file_access": "check_file_info" },
        file("F3", "forbidden.png"),
    ]);
    post(slack, "files", what).await?;
    let ticket = world.desk.ticket(ACCOUNT, "Look at this").await?;
    let messages = world.desk.messages_at_least(conversation(&ticket)?, 1).await?;
    let path = format!("/v1/messages/{}", text(&messages[0], "id")?);
    let files = eventually("the files are here or lost", SOON * 2, async || {
        let message = world.desk.get(&path).await?;
        let files = message["attachments"].as_array().context("no files")?.clone();
        Ok((!files.iter().any(|file| file["state"] == "pending")).then_some(files))
    })
    .await?;
    let states: Vec<_> = files
        .iter()
        .map(|file| file["state"].as_str().unwrap_or_default())
        .collect();
    ensure!(states == ["here", "here", "lost"], "{files:?}");
    ensure!(files[2]["lost"].to_string().contains("web page"), "{files:?}");
    let sha256 = text(&files[0], "sha256")?;
    let bytes = world.desk.get_bytes(&format!("{path}/attachments/{sha256}")).await?;
    ensure!(bytes == PICTURE, "other bytes");
    Ok(())
}

async fn files_go(world: &World, slack: &Slack, asked: &str) -> Result<()> {
    let before = slack.posted().len();
    let file = |name: &str| json!({ "name": name, "media_type": "text/plain", "content": "aGVsbG8=" });
    let body = json!({ "text": "See here.", "attachments": [file("map.txt"), file("way.txt")] });
    let path = format!("/v1/conversations/{asked}/replies");
    let (status, reply) = world.desk.post(&path, "slack-2", &body).await?;
    ensure!(status == 201, "{status} {reply}");
    let shared = taken(slack, before + 2).await?;
    let names: Vec<_> = shared.files.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(shared.channel == "D1" && names == ["map.txt", "way.txt"], "{shared:?}");
    ensure!(shared.files.iter().all(|(_, bytes)| bytes == b"hello"), "{shared:?}");
    delivered(world, &reply, "sent").await?;
    Ok(())
}

/// A mention comes as two events, in whatever order; others join the thread.
async fn a_thread_is_a_conversation(world: &World, slack: &Slack) -> Result<()> {
    let said = "@U0BOT my bike squeaks";
    let mut mention = message("C20", "U20", &at(20), "<@U0BOT> my bike squeaks");
    let told = mention.clone();
    mention["type"] = json!("app_mention");
    post(slack, "mention", mention).await?;
    post(slack, "told", told).await?;
    let ticket = world.desk.ticket(ACCOUNT, said).await?;
    let asked = conversation(&ticket)?;
    let before = slack.posted().len();
    world.desk.reply(asked, "slack-20", "Oil it.").await?;
    let posted = taken(slack, before + 1).await?;
    ensure!(
        (posted.channel.as_str(), posted.thread_ts.as_deref()) == ("C20", Some(at(20).as_str())),
        "{posted:?}"
    );
    for (number, user, subtype) in [(21, "U20", None), (22, "U21", Some("thread_broadcast"))] {
        let mut answer = message("C20", user, &at(number), "It still does");
        answer["thread_ts"] = json!(at(20));
        if let Some(subtype) = subtype {
            answer["subtype"] = json!(subtype);
        }
        post(slack, &format!("thread{number}"), answer).await?;
    }
    let messages = world.desk.messages_at_least(asked, 4).await?;
    ensure!(messages.len() == 4, "{messages:?}");
    // The next one begins another conversation, of the same work.
    post(slack, "next", message("C20", "U20", &at(23), "And the bell is gone")).await?;
    let number = text(&ticket, "number")?;
    until("both threads are on one ticket", SOON, async || {
        let ticket = world.desk.show(number).await?;
        Ok(ticket["conversations"].as_array().is_some_and(|all| all.len() == 2))
    })
    .await
}

/// An edit overtakes its message; a link is unfurled; a message is taken back.
async fn what_was_said_changes(world: &World, slack: &Slack) -> Result<()> {
    let changed = |now: &str, before: &str, number: u32| {
        json!({ "type": "message", "subtype": "message_changed", "hidden": true, "channel": "D30", "ts": at(number),
            "event_ts": at(number), "message": { "type": "message", "user": "U30", "text": now, "ts": at(30) },
            "previous_message": { "type": "message", "user": "U30", "text": before, "ts": at(30) } })
    };
    post(slack, "edited", changed("I want a blue bike", "I want a bleu bike", 31)).await?;
    let asked = ask(world, slack, 30, "I want a bleu bike").await?;
    post(
        slack,
        "unfurled",
        changed("I want a blue bike", "I want a blue bike", 32),
    )
    .await?;
    let shown = async |expected: &str, deleted: bool| {
        until("it reads otherwise", SOON, async || {
            let messages = world.desk.messages(&asked).await?;
            let message = &messages[0];
            ensure!(message["text"] == expected, "{message}");
            Ok(message["deleted_at"].is_string() == deleted)
        })
        .await
    };
    shown("I want a blue bike", false).await?;
    let deleted = json!({ "type": "message", "subtype": "message_deleted", "channel": "D30", "deleted_ts": at(30),
        "ts": at(33), "event_ts": at(33), "previous_message": { "user": "U30", "text": "x", "ts": at(30) } });
    post(slack, "deleted", deleted).await?;
    shown("", true).await
}

async fn buttons_and_commands(world: &World, slack: &Slack) -> Result<()> {
    let pressed = json!({ "type": "block_actions", "user": { "id": "U40", "name": "ann" }, "trigger_id": "1.40",
        "container": { "type": "message", "message_ts": at(40), "channel_id": "C40" },
        "actions": [{ "action_id": "a", "text": { "text": "Call me" }, "value": "call", "action_ts": at(41) }] });
    let escaped = pressed
        .to_string()
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace('&', "%26");
    let answer = slack.post_form(ACCOUNT, &format!("payload={escaped}")).await?;
    ensure!(answer.status == 200 && answer.body.is_empty(), "{answer:?}");
    let ticket = world.desk.ticket(ACCOUNT, "Call me").await?;
    conversation(&ticket)?;
    let command = "command=%2Fbike&text=order+%2342&user_id=U41&user_name=ben&channel_id=C40&trigger_id=1.41";
    for _ in 0..2 {
        let answer = slack.post_form(ACCOUNT, command).await?;
        ensure!(answer.status == 200 && answer.body.is_empty(), "{answer:?}");
    }
    let ticket = world.desk.ticket(ACCOUNT, "/bike order #42").await?;
    let before = slack.posted().len();
    world
        .desk
        .reply(conversation(&ticket)?, "slack-41", "It is here.")
        .await?;
    ensure!(
        taken(slack, before + 1).await?.channel == "D41",
        "not to the person alone"
    );
    Ok(())
}

async fn slack_is_busy_and_fails(world: &World, slack: &Slack) -> Result<()> {
    let asked = ask(world, slack, 50, "Is anybody there?").await?;
    let before = slack.posted().len();
    slack.moods.will([Mood::Busy { retry_after_s: 1 }, Mood::Fails(503)]);
    let reply = world.desk.reply(&asked, "slack-50", "Patience!").await?;
    taken(slack, before + 1).await?;
    delivered(world, &reply, "sent").await?;
    ensure!(slack.posted().len() == before + 1, "it left twice");
    // Slack says no, under a good status.
    post(
        slack,
        "gone",
        message("CGONE", "U51", &at(51), "This channel will be gone"),
    )
    .await?;
    let ticket = world.desk.ticket(ACCOUNT, "This channel will be gone").await?;
    let reply = world.desk.reply(conversation(&ticket)?, "slack-51", "Is it?").await?;
    let message = delivered(world, &reply, "failed").await?;
    let error = text(&message, "delivery_error")?;
    ensure!(
        error.contains("channel_not_found") && error.contains("may not see it"),
        "{error}"
    );
    Ok(())
}

/// Slack fails in the middle, or takes the message and never answers: that it shows
/// us the message tells; else a person does.
async fn nobody_knows_whether_it_left(world: &World, slack: &Slack) -> Result<()> {
    let asked = ask(world, slack, 60, "Do you ever answer?").await?;
    slack.moods.will([Mood::Fails(500)]);
    let reply = world.desk.reply(&asked, "slack-60", "We do.").await?;
    delivered(world, &reply, "uncertain").await?;
    let path = format!("/v1/messages/{}/settle", text(&reply, "id")?);
    let (status, answer) = world
        .desk
        .post(&path, "slack-settle", &json!({ "state": "failed" }))
        .await?;
    ensure!(status == 200, "{status} {answer}");
    let before = slack.posted().len();
    slack.moods.will([Mood::Stalls]);
    let reply = world.desk.reply(&asked, "slack-61", "Really.").await?;
    let posted = taken(slack, before + 1).await?;
    post(slack, "shown", slack.shown(&posted)).await?;
    delivered(world, &reply, "sent").await?;
    Ok(())
}

async fn the_strange_is_kept(world: &World, slack: &Slack) -> Result<()> {
    let strange = event("strange", json!({ "type": "one_that_may_come", "user": "U1" }));
    for retry in 0..3 {
        let answer = slack.post_again(ACCOUNT, &strange, retry).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    post(slack, "home", json!({ "type": "app_home_opened", "user": "U1" })).await?;
    let limited = json!({ "type": "app_rate_limited", "team_id": "T1", "minute_rate_limited": 1_518_467_820 });
    ensure!(slack.post(ACCOUNT, &limited).await?.status == 200, "not taken");
    until("both are kept, once", SOON, async || {
        let parked = world.desk.list("/v1/parked").await?;
        let ours = parked
            .iter()
            .filter(|input| input["account"] == ACCOUNT && input["quarantined"] == false);
        let mut reasons: Vec<_> = ours.map(|input| input["reason"].to_string()).collect();
        reasons.sort();
        let is_expected =
            reasons.len() == 2 && reasons[0].contains("lets events fall") && reasons[1].contains("not known");
        ensure!(is_expected, "{reasons:?}");
        Ok(true)
    })
    .await
}

/// The settings have a wrong secret: what Slack signs is kept, and released when the
/// secret is mended.
async fn a_wrong_secret_is_mended(world: &World, slack: &Slack) -> Result<()> {
    let said = "You never answer on Slack";
    let envelope = event("wrong", direct("U70", &at(70), said));
    for retry in 0..3 {
        let answer = slack.post_again("slack-wrong", &envelope, retry).await?;
        ensure!(answer.status == 401, "{answer:?}");
    }
    mend(world, "slack-wrong", SIGNING_SECRET).await?;
    world.desk.ticket("slack-wrong", said).await?;
    Ok(())
}

/// What is wrong with an account, as soon as it says this; nothing: all is well.
async fn account_says(world: &World, name: &str, expected: Option<&str>) -> Result<()> {
    until(&format!("{name} says {expected:?}"), SOON * 2, async || {
        let accounts = world.desk.list("/v1/accounts").await?;
        let account = accounts.iter().find(|account| account["name"] == name);
        let error = account.context("no such account")?["error"].as_str();
        Ok(match (error, expected) {
            (Some(error), Some(expected)) => error.contains(expected),
            (error, expected) => error == expected,
        })
    })
    .await
}

/// Slack says so before anything fails; what leaves again makes the account whole.
async fn the_token_is_revoked(world: &World, slack: &Slack) -> Result<()> {
    let asked = ask(world, slack, 75, "Are you still in business?").await?;
    let revoked = json!({ "type": "tokens_revoked", "tokens": { "oauth": [], "bot": ["UBOT"] } });
    slack.revoke(true);
    let mut told = event("revoked", revoked);
    // In whole seconds, and later than what was sent last.
    told["event_time"] = json!(jiff::Timestamp::now().as_second() + 1);
    let answer = slack.post(ACCOUNT, &told).await?;
    ensure!(answer.status == 200, "{answer:?}");
    account_says(world, ACCOUNT, Some("token was revoked")).await?;
    let up = format!("tributary_account_up{{account=\"{ACCOUNT}\"}} 0");
    until("it alarms", SOON, async || {
        let all: Vec<String> = world.processes().await.iter().map(|one| one.ops.clone()).collect();
        for ops in &all {
            if metrics(ops).await?.contains(&up) {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await?;
    slack.revoke(false);
    let reply = world.desk.reply(&asked, "slack-75", "We are.").await?;
    delivered(world, &reply, "sent").await?;
    account_says(world, ACCOUNT, None).await
}

/// The socket is well, and says so; that nothing can be sent shows all the same.
async fn a_reader_hides_no_broken_token(world: &World) -> Result<()> {
    let slack = &world.slack;
    let tell = async |number: u32, said: &str| {
        slack.tell(
            "events_api",
            &event(said, direct(&format!("U{number}"), &at(number), said)),
        );
        let ticket = world.desk.ticket(SLACK_SOCKET, said).await?;
        Ok::<_, anyhow::Error>(conversation(&ticket)?.to_owned())
    };
    let (first, second) = (tell(86, "May I come in?").await?, tell(87, "Is the door open?").await?);
    slack.revoke(true);
    world.desk.reply(&first, "slack-86", "Please do.").await?;
    account_says(world, SLACK_SOCKET, Some("token_revoked")).await?;
    let (opened, _) = slack.sockets();
    slack.part("warning");
    until("there is another socket", SOON, async || Ok(slack.sockets().0 > opened)).await?;
    // Whatever the reader had to say of itself stands before this.
    let number = slack.tell("events_api", &event("late", direct("U86", &at(88), "Hello?")));
    acknowledged(slack, &[number]).await?;
    account_says(world, SLACK_SOCKET, Some("token_revoked")).await?;
    slack.revoke(false);
    let reply = world.desk.reply(&second, "slack-87", "It is.").await?;
    delivered(world, &reply, "sent").await?;
    account_says(world, SLACK_SOCKET, None).await?;
    // The first answer would wait for minutes.
    let status = world.desk.delete(&format!("/v1/conversations/{first}")).await?;
    ensure!(status == 204, "{status}");
    Ok(())
}

/// What comes over a socket is what would be posted: acknowledged when it is durable,
/// and nothing is lost when Slack moves its sockets.
async fn over_a_socket(world: &World) -> Result<()> {
    let slack = &world.slack;
    let what = event("socket1", direct("U80", &at(80), "Is this a socket?"));
    let numbers: Vec<u64> = (0..10).map(|_| slack.tell("events_api", &what)).collect();
    let ticket = world.desk.ticket(SLACK_SOCKET, "Is this a socket?").await?;
    let asked = conversation(&ticket)?;
    acknowledged(slack, &numbers).await?;
    let messages = world.desk.messages(asked).await?;
    ensure!(messages.len() == 1, "{messages:?}");
    // As it would be called if it were posted.
    ensure!(
        messages[0]["external_ids"] == json!([format!("D80/{}", at(80))]),
        "{messages:?}"
    );
    let command =
        json!({ "command": "/bike", "text": "#1", "user_id": "U80", "channel_id": "C1", "trigger_id": "1.80" });
    acknowledged(slack, &[slack.tell("slash_commands", &command)]).await?;
    acknowledged(slack, &[slack.tell("one_that_may_come", &json!({ "type": "x" }))]).await?;
    // Nothing is taken from the public door.
    ensure!(slack.post(SLACK_SOCKET, &what).await?.status == 404, "the door is open");
    let (opened, _) = slack.sockets();
    let mut told = Vec::new();
    for (number, reason) in [(82, "warning"), (83, "refresh_requested")] {
        let said = format!("Socket {number}");
        told.push(slack.tell("events_api", &event(&said, direct("U80", &at(number), &said))));
        slack.part(reason);
        until("there is another socket", SOON, async || {
            Ok(slack.sockets().0 > opened + u64::from(number) - 82)
        })
        .await?;
    }
    acknowledged(slack, &told).await?;
    let messages = world.desk.messages_at_least(asked, 4).await?;
    ensure!(messages.len() == 4, "{messages:?}");
    let before = slack.posted().len();
    world.desk.reply(asked, "slack-80", "It is.").await?;
    ensure!(taken(slack, before + 1).await?.channel == "D80", "not answered there");
    ensure!(slack.strange().is_empty(), "{:?}", slack.strange());
    Ok(())
}

async fn acknowledged(slack: &Slack, numbers: &[u64]) -> Result<()> {
    until("all is acknowledged", SOON, async || {
        let known = slack.acknowledged();
        Ok(numbers.iter().all(|number| known.contains(number)))
    })
    .await
}

/// Killed in the middle: what was acknowledged is there, what was not comes again.
async fn the_reader_is_killed(world: &World) -> Result<()> {
    const MANY: u32 = 40;
    let slack = &world.slack;
    let tell = |number: u32| {
        let said = format!("Reader {number}");
        slack.tell(
            "events_api",
            &event(&said, direct(&format!("U9{number:02}"), &at(900 + number), &said)),
        )
    };
    let holder = eventually("somebody listens", SOON, async || holder(world).await).await?;
    let mut told: Vec<u64> = (0..MANY / 2).map(tell).collect();
    until("some are acknowledged", SOON, async || {
        Ok(slack.acknowledged().contains(&told[0]))
    })
    .await?;
    let index = kill(world, &holder).await?;
    let lost = slack.acknowledged();
    told.extend((MANY / 2..MANY).map(tell));
    let mut processes = world.processes().await;
    processes[index].launch_again()?;
    processes[index].ready().await?;
    drop(processes);
    // Whoever comes next waits for the lease, and then for its socket.
    let patience = Duration::from_secs(4 * LEASE_SECONDS);
    until("somebody goes on", patience, async || {
        Ok(slack.acknowledged().len() > lost.len() && slack.sockets().1 == 1)
    })
    .await?;
    acknowledged(slack, &told).await?;
    world.quiet().await?;
    let tickets = world.desk.tickets(SLACK_SOCKET).await?;
    for number in 0..MANY {
        let said = format!("Reader {number}");
        let count = tickets
            .iter()
            .filter(|ticket| ticket["subject"] == said.as_str())
            .count();
        ensure!(count == 1, "{count} tickets of {said}");
    }
    Ok(())
}

/// Who listens, as the API says.
async fn holder(world: &World) -> Result<Option<String>> {
    let accounts = world.desk.list("/v1/accounts").await?;
    let found = accounts.iter().find(|account| account["name"] == SLACK_SOCKET);
    Ok(found.context("no such account")?["held_by"].as_str().map(str::to_owned))
}

/// Kills the process of that name, and gives its place among the processes.
async fn kill(world: &World, holder: &str) -> Result<usize> {
    let mut processes = world.processes().await;
    for (index, process) in processes.iter_mut().enumerate() {
        let pid = process.pid()?.to_string();
        if holder.split('-').any(|part| part == pid) {
            process.kill().await?;
            return Ok(index);
        }
    }
    anyhow::bail!("no process is {holder}")
}
