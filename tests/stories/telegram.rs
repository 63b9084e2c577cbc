//! Customers write to a bot of Telegram's: with files, albums, edits, reactions and
//! buttons, and a vendor that fails, repeats and mixes up the order. Then the bot
//! moves from its webhook to long polling and back, and no message is lost or doubled.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::chat::Socket;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::settings::WRONG_BOT_SECRET;
use tests::harness::vendor::{delivered, release, reply};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tests::vendors::Mood;
use tests::vendors::telegram::{PICTURE, SECRET, Sent, TOKEN, Telegram, USERNAME, person};

const ANN: i64 = 5_550_001;
/// One that the account listens to, and one that it does not.
const GROUP: i64 = -1_001_234_567_890;
const OTHER_GROUP: i64 = -1_009_999_999_999;

pub async fn run(world: &World) -> Result<()> {
    let telegram = Telegram::start(world.vendor_port("bot")?).await?;
    the_bot_is_tried_out(world, &telegram).await?;
    let asked = a_message_comes_ten_times(world, &telegram).await?;
    let stalled = one_stalls_and_others_go_on(world, &telegram).await?;
    it_is_answered(world, &telegram, &asked).await?;
    all_that_can_be_said(world, &telegram, &asked).await?;
    what_happens_to_messages(world, &telegram, &asked).await?;
    telegram_is_busy_and_fails(world, &telegram, &asked).await?;
    who_blocks_the_bot_gets_nothing(world, &telegram).await?;
    a_link_joins_who_opens_it(world, &telegram).await?;
    groups_are_listened_to_if_allowed(world, &telegram).await?;
    a_wrong_secret_is_mended(world, &telegram).await?;
    the_bot_moves(world, &telegram).await?;
    let message = world.desk.get(&stalled).await?;
    ensure!(message["delivery"] != "sent", "it was never answered: {message}");
    the_token_stands_nowhere(world).await
}

async fn the_bot_is_tried_out(world: &World, telegram: &Telegram) -> Result<()> {
    let said = world.command(&["check", "--live", "bot"]).await?;
    let url = format!("{}/in/bot", world.public[0]);
    ensure!(
        said.contains(&format!("@{USERNAME} answers")) && said.contains(&url),
        "{said}"
    );
    ensure!(!said.contains(TOKEN) && !said.contains(SECRET), "{said}");
    ensure!(telegram.webhook() == Some(url), "{:?}", telegram.webhook());
    Ok(())
}

/// Somebody writes; the conversation that comes of it.
async fn ask(world: &World, telegram: &Telegram, from: i64, message_id: i64, words: &str) -> Result<String> {
    telegram.happens(Telegram::message(from, message_id, json!({ "text": words })));
    let ticket = world.desk.ticket("bot", words).await?;
    Ok(conversation(&ticket)?.to_owned())
}

async fn a_message_comes_ten_times(world: &World, telegram: &Telegram) -> Result<String> {
    let words = "Grüße! Where is my bike? 🚲";
    let url = telegram.webhook().context("no webhook")?;
    let told = telegram.happens(Telegram::message(ANN, 7, json!({ "text": words })));
    let asked = conversation(&world.desk.ticket("bot", words).await?)?.to_owned();
    for _ in 0..10 {
        ensure!(
            telegram.push(&url, Some(SECRET), &told).await? == 200,
            "a repeat is refused"
        );
    }
    // The later one overtakes the earlier one.
    for (message_id, words) in [(9, "And my helmet?"), (8, "Hello?")] {
        let mut update = Telegram::message(ANN, message_id, json!({ "text": words }));
        update["update_id"] = (800_000_000 + message_id).into();
        update["message"]["date"] = told["message"]["date"].clone();
        ensure!(telegram.push(&url, Some(SECRET), &update).await? == 200, "refused");
    }
    let messages = world.desk.messages_at_least(&asked, 3).await?;
    let said: Vec<&str> = messages.iter().filter_map(|message| message["text"].as_str()).collect();
    ensure!(said == [words, "Hello?", "And my helmet?"], "{said:?}");
    let sender = &messages[0]["sender"];
    ensure!(sender["verified"] == true && sender["scheme"] == "telegram", "{sender}");
    Ok(asked)
}

/// What Telegram took last, as soon as it has this many.
async fn taken(telegram: &Telegram, count: usize) -> Result<Sent> {
    eventually(&format!("{count} messages at Telegram"), SOON * 2, async || {
        let sent = telegram.sent();
        Ok((sent.len() >= count).then(|| sent.last().cloned()).flatten())
    })
    .await
    .with_context(|| format!("refused: {:?}", telegram.refusals()))
}

/// Where the message is that stalls.
async fn one_stalls_and_others_go_on(world: &World, telegram: &Telegram) -> Result<String> {
    let asked = ask(world, telegram, 5_550_002, 1, "Is anybody there at all?").await?;
    let before = telegram.sent().len();
    telegram.moods.will([Mood::Stalls]);
    let reply = world.desk.reply(&asked, "bot-stalls", "Yes.").await?;
    taken(telegram, before + 1).await?;
    Ok(format!("/v1/messages/{}", text(&reply, "id")?))
}

async fn it_is_answered(world: &World, telegram: &Telegram, asked: &str) -> Result<()> {
    let before = telegram.sent().len();
    let path = format!("/v1/conversations/{asked}/replies");
    let messages = world.desk.messages(asked).await?;
    let body = json!({ "text": "It is on its way.", "quotes": messages[0]["id"] });
    let (status, reply) = world.desk.post(&path, "bot-1", &body).await?;
    ensure!(status == 201, "{status} {reply}");
    let sent = taken(telegram, before + 1).await?;
    ensure!(
        sent.fields["chat_id"] == ANN && sent.fields["text"] == "It is on its way.",
        "{sent:?}"
    );
    let quoted = &sent.fields["reply_parameters"];
    ensure!(
        quoted["message_id"] == 7 && quoted["allow_sending_without_reply"] == true,
        "{quoted}"
    );
    let message = delivered(world, &reply, "sent").await?;
    let name = format!("{ANN}/{}", sent.message_id);
    ensure!(message["external_ids"].to_string().contains(&name), "{message}");

    let sentence = "This sentence is one of very many. ";
    let reply = world
        .desk
        .reply(asked, "bot-2", sentence.repeat(150).trim_end())
        .await?;
    taken(telegram, before + 3).await?;
    let parts = telegram.sent().split_off(before + 1);
    let ends = |sent: &Sent| sent.fields["text"].as_str().is_some_and(|text| text.ends_with("many."));
    ensure!(parts.iter().all(ends), "not cut at sentences: {parts:?}");
    delivered(world, &reply, "sent").await?;

    let file = |name: &str, media_type: &str, content: &str| json!({ "name": name, "media_type": media_type, "content": content });
    let files = [
        file("größe.png", "image/png", "iVBORw0KGgoAAAA="),
        file("map.txt", "text/plain", "aGVsbG8="),
    ];
    let body = json!({ "text": "See here.", "attachments": files });
    let (status, reply) = world.desk.post(&path, "bot-3", &body).await?;
    ensure!(status == 201, "{status} {reply}");
    taken(telegram, before + 5).await?;
    delivered(world, &reply, "sent").await?;
    let sent = telegram.sent().split_off(before + 3);
    let shape = |sent: &Sent| {
        let file = sent.file.clone().map(|file| (file.name, file.bytes));
        (sent.method.clone(), file, sent.fields.get("caption").cloned())
    };
    let photo = b"\x89PNG\r\n\x1a\n\0\0\0".to_vec();
    let expected = [
        (
            "sendPhoto".to_owned(),
            Some(("größe.png".to_owned(), photo)),
            Some(json!("See here.")),
        ),
        (
            "sendDocument".to_owned(),
            Some(("map.txt".to_owned(), b"hello".to_vec())),
            None,
        ),
    ];
    let found: Vec<_> = sent.iter().map(shape).collect();
    ensure!(found == expected, "{found:?}");
    Ok(())
}

/// Waits for the message of this text, and all its files.
async fn said(world: &World, asked: &str, words: &str, files: usize) -> Result<Value> {
    eventually(&format!("\"{words}\" with {files} files"), SOON * 2, async || {
        let messages = world.desk.messages(asked).await?;
        let mut found = messages.iter().filter(|message| message["text"] == words);
        let Some(message) = found.next() else { return Ok(None) };
        ensure!(found.next().is_none(), "it is there twice");
        let attachments = message["attachments"].as_array().cloned().unwrap_or_default();
        let is_here = |file: &&Value| file["sha256"].as_str().is_some_and(|sha256| !sha256.is_empty());
        ensure!(attachments.iter().filter(is_here).count() == files, "{attachments:?}");
        Ok(Some(message.clone()))
    })
    .await
}

async fn all_that_can_be_said(world: &World, telegram: &Telegram, asked: &str) -> Result<()> {
    let photo = |id: &str| json!([{ "file_id": id, "file_unique_id": id, "width": 90, "height": 60, "file_size": 20 }]);
    telegram.happens(Telegram::message(
        ANN,
        20,
        json!({ "photo": photo("AgAC-20"), "caption": "Look at this" }),
    ));
    let message = said(world, asked, "Look at this", 1).await?;
    let sha256 = text(&message["attachments"][0], "sha256")?;
    let path = format!("/v1/messages/{}/attachments/{sha256}", text(&message, "id")?);
    ensure!(world.desk.get_bytes(&path).await? == PICTURE, "other bytes");

    // An album is one message, whichever part of it comes first.
    let part = |message_id: i64, id: &str, caption: Option<&str>| {
        let mut content = json!({ "photo": photo(id), "media_group_id": "13000" });
        if let Some(caption) = caption {
            content["caption"] = caption.into();
        }
        Telegram::message(ANN, message_id, content)
    };
    telegram.happens(part(22, "AgAC-22", None));
    telegram.happens(part(21, "AgAC-21", Some("Both wheels")));
    said(world, asked, "Both wheels", 2).await?;

    let too_big = json!({ "document": { "file_id": "too_big", "file_unique_id": "b", "file_name": "film.mp4" },
        "caption": "A film" });
    telegram.happens(Telegram::message(ANN, 23, too_big));
    until("it says why the film is not here", SOON * 2, async || {
        let messages = world.desk.messages(asked).await?;
        let film = messages.iter().find(|message| message["text"] == "A film");
        Ok(film.is_some_and(|film| film["attachments"].to_string().contains("file is too big")))
    })
    .await?;

    let place = json!({ "location": { "latitude": 52.52, "longitude": 13.405 } });
    telegram.happens(Telegram::message(ANN, 24, place));
    said(world, asked, "[location] 52.52, 13.405", 0).await?;

    // Only one's own number is proven by sharing it.
    for (message_id, number, user_id) in [(25, "15552229001", ANN), (26, "15552229002", 77)] {
        let contact = json!({ "contact": { "phone_number": number, "first_name": "A", "user_id": user_id } });
        telegram.happens(Telegram::message(ANN, message_id, contact));
    }
    said(world, asked, "[contact] A, 15552229002", 0).await?;
    let conversation = world.desk.get(&format!("/v1/conversations/{asked}")).await?;
    let path = format!("/v1/contacts/{}", text(&conversation, "contact_id")?);
    let contact = world.desk.get(&path).await?.to_string();
    ensure!(
        contact.contains("+15552229001") && !contact.contains("15552229002"),
        "{contact}"
    );

    let button = json!({ "callback_query": { "id": "41", "from": person(ANN, "Ann"), "chat_instance": "1", "data": "yes",
        "message": { "message_id": 9_000, "date": 1, "chat": { "id": ANN, "type": "private" },
            "reply_markup": { "inline_keyboard": [[{ "text": "Yes, please", "callback_data": "yes" }]] } } } });
    telegram.happens(button);
    said(world, asked, "Yes, please", 0).await?;
    ensure!(telegram.answered() == ["41"], "{:?}", telegram.answered());

    telegram.happens(json!({ "a_new_kind": { "of": "update" } }));
    until("what nobody knows is kept", SOON, async || {
        let parked = world.desk.list("/v1/parked").await?;
        Ok(parked
            .iter()
            .any(|input| input["account"] == "bot" && input["quarantined"] == false))
    })
    .await?;
    until("Telegram keeps nothing", SOON, async || Ok(telegram.waiting() == 0)).await
}

async fn what_happens_to_messages(world: &World, telegram: &Telegram, asked: &str) -> Result<()> {
    // The edit overtakes what it edits.
    let edited = |message_id: i64, words: &str| {
        let mut update = Telegram::message(ANN, message_id, json!({ "text": words }));
        update["message"]["edit_date"] = update["message"]["date"].clone();
        json!({ "edited_message": update["message"] })
    };
    telegram.happens(edited(30, "It is red"));
    telegram.happens(Telegram::message(ANN, 30, json!({ "text": "It is read" })));
    let message = said(world, asked, "It is red", 0).await?;
    ensure!(!message["edited_at"].is_null(), "{message}");

    let ours = telegram.sent().into_iter().find(|sent| sent.fields["chat_id"] == ANN);
    let ours = ours.context("nothing was sent")?.message_id;
    let reaction = |emojis: Value| {
        json!({ "message_reaction": { "chat": { "id": ANN, "type": "private" }, "message_id": ours,
            "user": person(ANN, "Ann"), "date": 1_767_225_600, "old_reaction": [], "new_reaction": emojis } })
    };
    telegram.happens(reaction(json!([{ "type": "emoji", "emoji": "👍" }])));
    telegram.happens(reaction(json!([{ "type": "emoji", "emoji": "🎉" }])));
    until("the reaction shows", SOON, async || {
        let messages = world.desk.messages(asked).await?;
        let message = messages.iter().find(|message| message["text"] == "It is on its way.");
        let reactions = message.map(|message| message["reactions"].clone()).unwrap_or_default();
        ensure!(!reactions.to_string().contains("👍"), "{reactions}");
        Ok(reactions.to_string().contains("🎉"))
    })
    .await?;

    telegram.happens(Telegram::message(ANN, 31, json!({ "text": "/start" })));
    let message = said(world, asked, "/start", 0).await?;
    ensure!(message["automatic"] == "command", "{message}");
    Ok(())
}

async fn telegram_is_busy_and_fails(world: &World, telegram: &Telegram, asked: &str) -> Result<()> {
    let before = telegram.sent().len();
    telegram.moods.will([Mood::Busy { retry_after_s: 1 }, Mood::Fails(500)]);
    let reply = world.desk.reply(asked, "bot-4", "Patience!").await?;
    taken(telegram, before + 1).await?;
    delivered(world, &reply, "sent").await?;
    ensure!(telegram.sent().len() == before + 1, "it left twice");

    // It leaves, and nobody says so: a person decides.
    telegram.moods.will([Mood::Breaks]);
    let reply = world.desk.reply(asked, "bot-5", "Once.").await?;
    delivered(world, &reply, "uncertain").await?;
    ensure!(telegram.sent().len() == before + 2, "it left twice");
    let path = format!("/v1/messages/{}/settle", text(&reply, "id")?);
    let (status, answer) = world.desk.post(&path, "bot-6", &json!({ "state": "sent" })).await?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

async fn who_blocks_the_bot_gets_nothing(world: &World, telegram: &Telegram) -> Result<()> {
    let ben = 5_550_003;
    let asked = ask(world, telegram, ben, 1, "What do you sell?").await?;
    // We do not know it yet.
    telegram.block(ben);
    let reply = world.desk.reply(&asked, "bot-20", "Bikes!").await?;
    let message = delivered(world, &reply, "failed").await?;
    let error = text(&message, "delivery_error")?;
    ensure!(error.contains("does not let the bot write"), "{error}");

    let member = |status: &str| {
        let bot = json!({ "id": 123_456_789, "is_bot": true, "first_name": "Stories" });
        json!({ "my_chat_member": { "chat": { "id": ben, "type": "private" }, "from": person(ben, "Ben"),
            "date": 1_767_225_600, "old_chat_member": { "user": bot, "status": "member" },
            "new_chat_member": { "user": bot, "status": status } } })
    };
    telegram.happens(member("kicked"));
    let path = format!("/v1/conversations/{asked}");
    let consent = async |given: bool| {
        until("the contact's word counts", SOON, async || {
            Ok(world.desk.get(&path).await?["consent"]["given"] == given)
        })
        .await
    };
    consent(false).await?;
    let (status, refusal) = world
        .desk
        .post(&format!("{path}/replies"), "bot-21", &json!({ "text": "Bikes!" }))
        .await?;
    ensure!(
        (status, &refusal["code"]) == (409, &json!("opted_out")),
        "{status} {refusal}"
    );
    telegram.unblock(ben);
    telegram.happens(member("member"));
    consent(true).await?;
    let before = telegram.sent().len();
    world.desk.reply(&asked, "bot-22", "Bikes!").await?;
    taken(telegram, before + 1).await?;
    Ok(())
}

/// A visitor of the site's chat gets a link to the bot, and is known there. Whoever
/// else comes by it is not, nor by one that was made up.
async fn a_link_joins_who_opens_it(world: &World, telegram: &Telegram) -> Result<()> {
    let words = "May I ask you on Telegram?";
    let mut visitor = Socket::visit(&world.public[0], "chat", None).await?;
    visitor.resume(None).await?;
    visitor.send("link", words).await?;
    let ticket = world.desk.ticket("chat", words).await?;
    let chat = conversation(&ticket)?;
    let path = format!("/v1/conversations/{chat}/links");
    let (status, link) = world.desk.post(&path, "bot-40", &json!({ "account": "bot" })).await?;
    ensure!(status == 201, "{status} {link}");
    let url = text(&link, "url")?;
    let token = url.strip_prefix(&format!("https://t.me/{USERNAME}?start="));
    let token = token.with_context(|| format!("another link: {url}"))?;
    let start = |from: i64, token: &str| {
        let command = format!("/start {token}");
        telegram.happens(Telegram::message(from, 1, json!({ "text": command })));
    };
    let visitor = 5_550_020;
    start(visitor, token);
    let contact = format!("/v1/contacts/{}", text(&ticket, "contact_id")?);
    let evidence = eventually("the visitor is known at the bot", SOON, async || {
        let contact = world.desk.get(&contact).await?;
        Ok(contact["merges"].get(0).map(|merge| merge["evidence"].clone()))
    })
    .await?;
    ensure!(
        evidence["type"] == "linked" && evidence["conversation_id"] == chat,
        "{evidence}"
    );
    for (from, token, words) in [
        (5_550_021, token.to_owned(), "I have found this link"),
        (5_550_022, format!("{token}a"), "I have made this link up"),
    ] {
        start(from, &token);
        let asked = ask(world, telegram, from, 2, words).await?;
        let stranger = world.desk.get(&format!("/v1/conversations/{asked}")).await?;
        ensure!(stranger["contact_id"] != ticket["contact_id"], "{words}: {stranger}");
    }
    let shown = world.desk.get(&contact).await?;
    ensure!(shown["merges"].as_array().map(Vec::len) == Some(1), "{shown}");
    let before = telegram.sent().len();
    let body = json!({ "text": "Of course.", "via": { "account": "bot" } });
    reply(world, chat, "bot-41", &body).await?;
    let sent = taken(telegram, before + 1).await?;
    ensure!(sent.fields["chat_id"] == visitor, "{sent:?}");
    Ok(())
}

async fn groups_are_listened_to_if_allowed(world: &World, telegram: &Telegram) -> Result<()> {
    let group = |id: i64, message_id: i64, words: &str| {
        let chat = json!({ "id": id, "type": "supergroup", "title": "Friends", "is_forum": true });
        let content = json!({ "text": words, "chat": chat, "message_thread_id": 4, "is_topic_message": true });
        Telegram::message(5_550_004, message_id, content)
    };
    telegram.happens(group(OTHER_GROUP, 1, "Nobody hears this"));
    telegram.happens(group(GROUP, 1, "Hello, friends"));
    let ticket = world.desk.ticket("bot", "Hello, friends").await?;
    let before = telegram.sent().len();
    world.desk.reply(conversation(&ticket)?, "bot-30", "Hello!").await?;
    let sent = taken(telegram, before + 1).await?;
    ensure!(
        sent.fields["chat_id"] == GROUP && sent.fields["message_thread_id"] == 4,
        "{sent:?}"
    );
    let tickets = world.desk.tickets("bot").await?;
    ensure!(
        !tickets.iter().any(|ticket| ticket["subject"] == "Nobody hears this"),
        "{tickets:?}"
    );
    Ok(())
}

/// The settings have a wrong secret: what Telegram pushes is kept, and released when
/// the secret is mended.
async fn a_wrong_secret_is_mended(world: &World, telegram: &Telegram) -> Result<()> {
    let words = "You never answer";
    let mut update = Telegram::message(5_550_005, 1, json!({ "text": words }));
    update["update_id"] = 900_000_000.into();
    let url = format!("{}/in/mended-bot", world.public[0]);
    for secret in [Some(SECRET), Some(SECRET), None, Some("another_secret_of_nobody")] {
        ensure!(
            telegram.push(&url, secret, &update).await? == 401,
            "{secret:?} was taken"
        );
    }
    let id = eventually("it is in quarantine", SOON, async || {
        let parked = world.desk.list("/v1/parked").await?;
        let ours: Vec<&Value> = parked.iter().filter(|input| input["account"] == "mended-bot").collect();
        // Each secret once, none of them shown.
        ensure!(ours.len() == 3, "{ours:?}");
        for input in &ours {
            let id = text(input, "id")?;
            if world.command(&["parked", "show", id]).await?.contains(SECRET) {
                return Ok(Some(id.to_owned()));
            }
        }
        Ok(None)
    })
    .await?;
    release(world, "mended-bot", &id, [WRONG_BOT_SECRET, SECRET]).await?;
    world.desk.ticket("mended-bot", words).await?;
    Ok(())
}

/// From the webhook to long polling and back, each time with updates that come while
/// nobody is there, and one that Telegram brings once more.
async fn the_bot_moves(world: &World, telegram: &Telegram) -> Result<()> {
    let pushed = format!("mode = \"webhook\"\nwebhook_secrets = [\"{SECRET}\"]");
    let polled = "mode = \"polling\"\npoll_seconds = 5";
    let mut expected = BTreeSet::new();
    let mut number = 0;
    let mut say = |count: i64| {
        for _ in 0..count {
            number += 1;
            let words = format!("Move {number}");
            let told = telegram.happens(Telegram::message(5_560_000 + number, 1, json!({ "text": words })));
            if number % 3 == 0 {
                telegram.again(&told);
            }
            expected.insert(words);
        }
    };
    let url = telegram.webhook().context("no webhook")?;
    say(3);
    restart(world, (&pushed, polled), || say(4)).await?;
    say(3);
    until("the bot is polled", SOON * 4, async || {
        Ok(telegram.webhook().is_none() && telegram.waiting() == 0)
    })
    .await?;
    let late = telegram.happens(Telegram::message(5_560_000, 1, json!({ "text": "Polled" })));
    world.desk.ticket("bot", "Polled").await?;
    ensure!(
        telegram.push(&url, Some(SECRET), &late).await? == 404,
        "pushed to an account that polls"
    );
    let button = json!({ "callback_query": { "id": "42", "from": person(5_560_000, "Ann"), "chat_instance": "1",
        "data": "no", "message": { "message_id": 1, "date": 0, "chat": { "id": 5_560_000, "type": "private" } } } });
    telegram.happens(button);
    until("the button is answered", SOON, async || {
        Ok(telegram.answered().iter().any(|id| id == "42"))
    })
    .await?;
    let account = eventually("the account is well", SOON, async || {
        let accounts = world.desk.list("/v1/accounts").await?;
        let bot = accounts.into_iter().find(|account| account["name"] == "bot");
        Ok(bot.filter(|bot| bot["error"].is_null()))
    })
    .await?;
    ensure!(!account["last_seen_at"].is_null(), "{account}");

    say(3);
    restart(world, (polled, &pushed), || say(4)).await?;
    world.command(&["check", "--live", "bot"]).await?;
    say(3);
    ensure!(
        telegram.push(&url, Some(SECRET), &late).await? == 200,
        "not pushed any more"
    );
    eventually("every message of the move is there once", SOON * 4, async || {
        let tickets = world.desk.tickets("bot").await?;
        let moved = tickets.iter().filter_map(|ticket| ticket["subject"].as_str());
        let moved: Vec<&str> = moved.filter(|subject| subject.starts_with("Move ")).collect();
        let all: BTreeSet<String> = moved.iter().map(ToString::to_string).collect();
        ensure!(all.len() == moved.len(), "one came twice: {moved:?}");
        let missing: Vec<_> = expected.difference(&all).collect();
        ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(Some(()))
    })
    .await?;
    let polled = world.desk.ticket("bot", "Polled").await?;
    let messages = world.desk.messages(conversation(&polled)?).await?;
    ensure!(messages.len() == 2, "{messages:?}");
    Ok(())
}

/// Changes the settings, and starts whoever reads them again.
async fn restart(world: &World, (from, to): (&str, &str), meanwhile: impl FnOnce()) -> Result<()> {
    let settings = std::fs::read_to_string(&world.config)?;
    ensure!(
        settings.matches(from).count() == 1,
        "the settings say otherwise: {from}"
    );
    std::fs::write(&world.config, settings.replace(from, to))?;
    let mut processes = world.processes().await;
    let is_meant = |name: &str| name == "all" || name.starts_with("gateway") || name.starts_with("worker");
    for process in processes.iter_mut().filter(|process| is_meant(&process.name)) {
        process.terminate().await?;
    }
    meanwhile();
    for process in processes.iter_mut().filter(|process| is_meant(&process.name)) {
        process.launch_again()?;
    }
    for process in processes.iter_mut().filter(|process| is_meant(&process.name)) {
        process.ready().await?;
    }
    Ok(())
}

async fn the_token_stands_nowhere(world: &World) -> Result<()> {
    for process in world.processes().await.iter() {
        let log = std::fs::read_to_string(&process.log)?;
        let (_, secret) = TOKEN.split_once(':').context("no token")?;
        ensure!(
            !log.contains(secret) && !log.contains(SECRET),
            "{} holds it",
            process.log.display()
        );
    }
    Ok(())
}
