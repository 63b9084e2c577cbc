//! Customers write on WhatsApp and get answers: in batches, with files, changes,
//! delivery states and a window that closes, from a Meta that fails, repeats and
//! mixes up the order. Who is known by SMS under the same number is the same person.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::vendor::{delivered, fetched, mend, refused, reply, template};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tests::vendors::Mood;
use tests::vendors::meta::{
    APP_SECRET, BUSINESS_ID, Meta, NUMBER_ID, PICTURE, VERIFY_TOKEN, moments_ago, user_id, whatsapp, whatsapp_message,
    whatsapp_status,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub async fn run(world: &World) -> Result<()> {
    let meta = Meta::start(world.vendor_port("wa")?, &world.public[0]).await?;
    meta_shakes_hands(&meta).await?;
    let asked = a_message_comes_ten_times(world, &meta).await?;
    it_is_answered_and_arrives(world, &meta, &asked).await?;
    long_answers_and_files(world, &meta, &asked).await?;
    meta_is_busy_and_fails(world, &meta, &asked).await?;
    a_batch_in_any_order(world, &meta).await?;
    a_file_comes(world, &meta).await?;
    a_colleague_answers_in_the_app(world, &meta, &asked).await?;
    nobody_knows_whether_it_left(world, &meta).await?;
    the_window_closes(world, &meta).await?;
    an_answer_fails(world, &meta).await?;
    a_user_without_a_number(world, &meta).await?;
    a_user_by_other_digits(world, &meta).await?;
    a_wrong_secret_is_mended(world, &meta).await?;
    the_account_is_tried_out(world, &meta).await
}

async fn meta_shakes_hands(meta: &Meta) -> Result<()> {
    let answer = meta.shake_hands("wa", VERIFY_TOKEN).await?;
    ensure!(answer == (200, "1158201444".to_owned()), "{answer:?}");
    let (status, _) = meta.shake_hands("wa", "another").await?;
    ensure!(status == 403, "{status}");
    Ok(())
}

fn said(id: &str, from: &str, words: &str, ago_ms: i64) -> Value {
    whatsapp_message(id, from, "text", &json!({ "body": words }), ago_ms)
}

async fn post(meta: &Meta, posted: &Value) -> Result<()> {
    let status = meta.post("wa", posted).await?;
    ensure!(status == 200, "{status}: Meta would repeat this for seven days");
    Ok(())
}

/// A customer writes; the conversation that comes of it.
async fn ask(world: &World, meta: &Meta, id: &str, from: &str, words: &str) -> Result<String> {
    post(meta, &said(id, from, words, 0)).await?;
    let ticket = world.desk.ticket("wa", words).await?;
    Ok(conversation(&ticket)?.to_owned())
}

/// What Meta took last, as soon as it has this many.
async fn taken(meta: &Meta, count: usize) -> Result<Value> {
    eventually(&format!("{count} messages at Meta"), SOON * 2, async || {
        let messages = meta.messages();
        Ok((messages.len() >= count).then(|| messages.last().cloned()).flatten())
    })
    .await
    .with_context(|| format!("refused: {:?}", meta.refusals()))
}

async fn report(meta: &Meta, message: &Value, states: &[&str]) -> Result<()> {
    let statuses: Vec<Value> = states
        .iter()
        .map(|state| whatsapp_status(message, state, None))
        .collect();
    post(meta, &whatsapp(&json!({ "statuses": statuses }))).await
}

async fn a_message_comes_ten_times(world: &World, meta: &Meta) -> Result<String> {
    let words = "Grüße! Where is my bike? 🚲 https://example.com/a";
    let conversation = ask(world, meta, "wamid.1", "15553330001", words).await?;
    for _ in 0..10 {
        post(meta, &said("wamid.1", "15553330001", words, 0)).await?;
    }
    post(meta, &said("wamid.2", "15553330001", "Hello?", 0)).await?;
    let messages = world.desk.messages_at_least(&conversation, 2).await?;
    ensure!(messages.len() == 2, "{messages:?}");
    let sender = &messages[0]["sender"];
    ensure!(sender["scheme"] == "whatsapp" && sender["verified"] == true, "{sender}");
    let shown = world.desk.get(&format!("/v1/conversations/{conversation}")).await?;
    let contact = world
        .desk
        .get(&format!("/v1/contacts/{}", text(&shown, "contact_id")?))
        .await?;
    let has = |scheme: &str, address: &str| {
        let identities = contact["identities"].as_array().into_iter().flatten();
        identities
            .into_iter()
            .any(|one| one["scheme"] == scheme && one["address"] == address && one["standing"] == "verified")
    };
    ensure!(
        has("phone", "+15553330001") && has("whatsapp", "us.915553330001"),
        "{contact}"
    );
    Ok(conversation)
}

async fn it_is_answered_and_arrives(world: &World, meta: &Meta, asked: &str) -> Result<()> {
    let before = meta.messages().len();
    let question = world.desk.messages(asked).await?;
    let body = json!({ "text": "It is on its way.", "quotes": question[0]["id"] });
    let answer = reply(world, asked, "wa-1", &body).await?;
    let message = taken(meta, before + 1).await?;
    ensure!(message["to"] == "15553330001", "{message}");
    ensure!(message["text"]["body"] == "It is on its way.", "{message}");
    ensure!(message["context"]["message_id"] == "wamid.1", "{message}");
    // In the wrong order, and more than once.
    report(meta, &message, &["delivered", "sent", "delivered", "warning"]).await?;
    delivered(world, &answer, "delivered").await?;
    report(meta, &message, &["read"]).await?;
    report(meta, &message, &["sent"]).await?;
    let shown = delivered(world, &answer, "read").await?;
    ensure!(shown["external_ids"].to_string().contains("wamid.OUT"), "{shown}");

    // They react to it, take that back, and quote it.
    let reaction = |id: &str, emoji: &str| {
        let body = json!({ "message_id": message["id"], "emoji": emoji });
        whatsapp_message(id, "15553330001", "reaction", &body, 0)
    };
    let path = format!("/v1/messages/{}", text(&answer, "id")?);
    post(meta, &reaction("wamid.3", "👍")).await?;
    until("the reaction is shown", SOON, async || {
        Ok(world.desk.get(&path).await?["reactions"][0]["emoji"] == "👍")
    })
    .await?;
    let mut quoting = said("wamid.5", "15553330001", "Thank you!", 0);
    let quoted = json!({ "from": "15550001111", "id": message["id"] });
    quoting["entry"][0]["changes"][0]["value"]["messages"][0]["context"] = quoted;
    post(meta, &quoting).await?;
    let messages = world.desk.messages_at_least(asked, 4).await?;
    let last = messages.last().context("no message")?;
    ensure!(last["quotes"] == json!([message["id"]]), "{last}");
    Ok(())
}

async fn long_answers_and_files(world: &World, meta: &Meta, asked: &str) -> Result<()> {
    let before = meta.messages().len();
    let sentence = "This sentence is one of very many. ";
    let answer = world.desk.reply(asked, "wa-2", sentence.repeat(150).trim_end()).await?;
    taken(meta, before + 2).await?;
    let parts = meta.messages().split_off(before);
    let ends = |part: &Value| {
        part["text"]["body"]
            .as_str()
            .is_some_and(|body| body.ends_with("many."))
    };
    ensure!(parts.iter().all(ends), "not cut at sentences: {parts:?}");
    report(meta, &parts[0], &["delivered"]).await?;
    delivered(world, &answer, "sent").await?;
    report(meta, &parts[1], &["delivered"]).await?;
    delivered(world, &answer, "delivered").await?;

    let file = json!({ "name": "map.txt", "media_type": "text/plain", "content": "aGVsbG8=" });
    let answer = reply(
        world,
        asked,
        "wa-3",
        &json!({ "text": "See here.", "attachments": [file] }),
    )
    .await?;
    let message = taken(meta, before + 3).await?;
    let document = &message["document"];
    ensure!(
        document["filename"] == "map.txt" && document["caption"] == "See here.",
        "{message}"
    );
    ensure!(
        meta.files().last() == Some(&("text/plain".to_owned(), b"hello".to_vec())),
        "other bytes were uploaded"
    );
    delivered(world, &answer, "sent").await?;
    Ok(())
}

async fn meta_is_busy_and_fails(world: &World, meta: &Meta, asked: &str) -> Result<()> {
    let other = ask(world, meta, "wamid.9", "15553330009", "Are you busy? (wa)").await?;
    let before = meta.messages().len();
    meta.moods.will([Mood::Fails(500), Mood::Busy { retry_after_s: 1 }]);
    let first = world.desk.reply(asked, "wa-4", "Patience!").await?;
    let second = world.desk.reply(&other, "wa-5", "We are.").await?;
    delivered(world, &first, "sent").await?;
    delivered(world, &second, "sent").await?;
    ensure!(meta.messages().len() == before + 2, "one left twice");
    Ok(())
}

/// One POST with an edit and a deletion before what they change, two customers, and
/// something that nobody knows.
async fn a_batch_in_any_order(world: &World, meta: &Meta) -> Result<()> {
    let from = "15553330020";
    let of = |kind: &str, id: &str, body: Value| {
        let posted = whatsapp_message(id, from, kind, &body, 0);
        posted["entry"][0]["changes"][0]["value"]["messages"][0].clone()
    };
    let edited = json!({ "type": "text", "text": { "body": "I want two" } });
    let messages = [
        of(
            "edit",
            "wamid.23",
            json!({ "original_message_id": "wamid.20", "message": edited }),
        ),
        of("revoke", "wamid.24", json!({ "original_message_id": "wamid.21" })),
        of("text", "wamid.20", json!({ "body": "I want one (batch)" })),
        of("text", "wamid.21", json!({ "body": "Please forget this" })),
        of("hologram", "wamid.22", json!({ "id": "1" })),
        of(
            "location",
            "wamid.25",
            json!({ "latitude": 52.5, "longitude": 13.4, "name": "Home" }),
        ),
    ];
    let mut posted = whatsapp(&json!({ "messages": messages }));
    let other = said("wamid.26", "15553330021", "Me too (batch)", 0);
    let Some(entries) = posted["entry"].as_array_mut() else {
        anyhow::bail!("no entries");
    };
    entries.push(other["entry"][0].clone());
    post(meta, &posted).await?;
    world.desk.ticket("wa", "Me too (batch)").await?;
    let found = eventually("the batch is here", SOON, async || {
        let tickets = world.desk.tickets("wa").await?;
        let mut ours = tickets
            .iter()
            .filter(|ticket| text(ticket, "subject").is_ok_and(|subject| subject.contains("(batch)")));
        let Some(number) = ours.find_map(|ticket| {
            let number = ticket["number"].as_str()?;
            (ticket["subject"] != "Me too (batch)").then(|| number.to_owned())
        }) else {
            return Ok(None);
        };
        let ticket = world.desk.show(&number).await?;
        let messages = world.desk.messages(conversation(&ticket)?).await?;
        let is_whole = messages.len() == 4 && messages.iter().any(|message| !message["deleted_at"].is_null());
        Ok(is_whole.then_some(messages))
    })
    .await?;
    let texts: Vec<&str> = found.iter().filter_map(|message| message["text"].as_str()).collect();
    ensure!(texts.contains(&"I want two"), "not edited: {texts:?}");
    ensure!(!texts.contains(&"Please forget this"), "not taken back: {texts:?}");
    ensure!(texts.iter().any(|text| text.contains("\"hologram\"")), "{texts:?}");
    ensure!(texts.iter().any(|text| text.contains("Home")), "{texts:?}");
    Ok(())
}

async fn a_file_comes(world: &World, meta: &Meta) -> Result<()> {
    let body = json!({ "id": "300000000000003", "mime_type": "image/png", "caption": "Look at this (wa)" });
    post(meta, &whatsapp_message("wamid.30", "15553330030", "image", &body, 0)).await?;
    let ticket = world.desk.ticket("wa", "Look at this (wa)").await?;
    let messages = world.desk.messages_at_least(conversation(&ticket)?, 1).await?;
    ensure!(messages[0]["attachments"][0]["name"] == "image.png", "{messages:?}");
    ensure!(fetched(world, &messages[0]).await? == PICTURE, "other bytes");
    Ok(())
}

/// In the app of the number itself: it stands in the conversation, and is not sent.
async fn a_colleague_answers_in_the_app(world: &World, meta: &Meta, asked: &str) -> Result<()> {
    let before = meta.messages().len();
    let echo = json!({ "from": "15550001111", "to": "15553330001", "id": "wamid.35", "type": "text",
        "timestamp": (moments_ago(0) / 1_000).to_string(), "text": { "body": "I have called them." } });
    let mut posted = whatsapp(&json!({ "message_echoes": [echo] }));
    posted["entry"][0]["changes"][0]["field"] = json!("smb_message_echoes");
    for _ in 0..2 {
        post(meta, &posted).await?;
    }
    let found = eventually("the colleague's answer", SOON, async || {
        let messages = world.desk.messages(asked).await?;
        let mut found = messages.into_iter().filter(|one| one["text"] == "I have called them.");
        let first = found.next();
        ensure!(found.next().is_none(), "it stands twice");
        Ok(first)
    })
    .await?;
    ensure!(
        found["direction"] == "outbound" && found["author"] == "elsewhere",
        "{found}"
    );
    ensure!(meta.messages().len() == before, "it was sent");
    Ok(())
}

/// Meta takes the message and never answers: its report tells.
async fn nobody_knows_whether_it_left(world: &World, meta: &Meta) -> Result<()> {
    let asked = ask(world, meta, "wamid.40", "15553330040", "Is anybody there at all? (wa)").await?;
    let before = meta.messages().len();
    meta.moods.will([Mood::Stalls]);
    let answer = world.desk.reply(&asked, "wa-40", "Yes.").await?;
    let message = taken(meta, before + 1).await?;
    report(meta, &message, &["delivered"]).await?;
    delivered(world, &answer, "delivered").await?;
    Ok(())
}

/// The window of a message that is nearly a day old closes while the agent looks.
async fn the_window_closes(world: &World, meta: &Meta) -> Result<()> {
    let words = "I wrote this yesterday";
    post(meta, &said("wamid.50", "15553330050", words, DAY_MS - 5_000)).await?;
    let ticket = world.desk.ticket("wa", words).await?;
    let asked = conversation(&ticket)?.to_owned();
    let path = format!("/v1/conversations/{asked}");
    let way = async || anyhow::Ok(world.desk.get(&path).await?["reachable"][0].clone());
    until(
        "the window has closed",
        SOON,
        async || Ok(way().await?["open"] == false),
    )
    .await?;
    let shown = way().await?;
    ensure!(shown["window"].is_string() && shown["templates"] == true, "{shown}");
    ensure!(shown["outside_window"] == "an approved template", "{shown}");
    let words = refused(
        world,
        &asked,
        "wa-50",
        &json!({ "text": "Too late?" }),
        "reply_window_closed",
    )
    .await?;
    ensure!(words.contains("only an approved template"), "{words}");

    let before = meta.messages().len();
    let body = json!({ "template": template(&["Zoë", "42"]), "text": "Hello Zoë, order 42 has left." });
    let answer = reply(world, &asked, "wa-51", &body).await?;
    let message = taken(meta, before + 1).await?;
    ensure!(
        message["template"]["components"][0]["parameters"][1]["text"] == "42",
        "{message}"
    );
    report(meta, &message, &["delivered"]).await?;
    delivered(world, &answer, "delivered").await?;
    // Meta does not know every template.
    let body = json!({ "template": template(&["too few"]) });
    let answer = reply(world, &asked, "wa-52", &body).await?;
    let failed = delivered(world, &answer, "failed").await?;
    ensure!(text(&failed, "delivery_error")?.contains("132000"), "{failed}");
    // They write again, and it is open.
    post(meta, &said("wamid.51", "15553330050", "Thank you", 0)).await?;
    until("the window is open", SOON, async || Ok(way().await?["open"] == true)).await?;
    let answer = world.desk.reply(&asked, "wa-53", "You are welcome.").await?;
    delivered(world, &answer, "sent").await?;
    Ok(())
}

async fn an_answer_fails(world: &World, meta: &Meta) -> Result<()> {
    let asked = ask(world, meta, "wamid.60", "15553330060", "I am leaving WhatsApp").await?;
    let before = meta.messages().len();
    let answer = world.desk.reply(&asked, "wa-60", "Can you read this?").await?;
    let message = taken(meta, before + 1).await?;
    let status = whatsapp_status(&message, "failed", Some((131_026, "Message undeliverable")));
    post(meta, &whatsapp(&json!({ "statuses": [status] }))).await?;
    let failed = delivered(world, &answer, "failed").await?;
    let error = text(&failed, "delivery_error")?;
    ensure!(error.contains("undeliverable") && error.contains("131026"), "{error}");
    meta.lose("15553330060");
    let answer = world.desk.reply(&asked, "wa-61", "And now?").await?;
    let failed = delivered(world, &answer, "failed").await?;
    ensure!(text(&failed, "delivery_error")?.contains("131026"), "{failed}");
    Ok(())
}

/// Who has a user name shows no number, and is answered by the id.
async fn a_user_without_a_number(world: &World, meta: &Meta) -> Result<()> {
    let id = user_id("15553330070");
    let mut posted = said("wamid.70", "15553330070", "I have no number for you", 0);
    let value = &mut posted["entry"][0]["changes"][0]["value"];
    value["messages"][0]["from"] = json!("");
    value["contacts"][0] = json!({ "profile": { "username": "zoe.k" }, "user_id": id });
    post(meta, &posted).await?;
    let ticket = world.desk.ticket("wa", "I have no number for you").await?;
    let before = meta.messages().len();
    world.desk.reply(conversation(&ticket)?, "wa-70", "Never mind.").await?;
    let message = taken(meta, before + 1).await?;
    ensure!(message["recipient"] == id && message["to"].is_null(), "{message}");
    Ok(())
}

/// WhatsApp knows many Brazilians without a digit of their number.
async fn a_user_by_other_digits(world: &World, meta: &Meta) -> Result<()> {
    let words = "Where is my bike, in Brazil?";
    let asked = ask(world, meta, "wamid.75", "551187650075", words).await?;
    let shown = world.desk.get(&format!("/v1/conversations/{asked}")).await?;
    let contact = world
        .desk
        .get(&format!("/v1/contacts/{}", text(&shown, "contact_id")?))
        .await?;
    ensure!(contact.to_string().contains("\"+5511987650075\""), "{contact}");
    let before = meta.messages().len();
    let answer = world.desk.reply(&asked, "wa-75", "In São Paulo.").await?;
    let message = taken(meta, before + 1).await?;
    ensure!(message["to"] == "5511987650075", "{message}");
    report(meta, &message, &["delivered"]).await?;
    delivered(world, &answer, "delivered").await?;
    Ok(())
}

async fn a_wrong_secret_is_mended(world: &World, meta: &Meta) -> Result<()> {
    let posted = said("wamid.80", "15553330080", "You never answer (wa)", 0);
    for _ in 0..3 {
        let status = meta.post("wa-mended", &posted).await?;
        ensure!(status == 401, "{status}");
    }
    mend(world, "wa-mended", APP_SECRET).await?;
    world.desk.ticket("wa-mended", "You never answer (wa)").await?;
    Ok(())
}

async fn the_account_is_tried_out(world: &World, meta: &Meta) -> Result<()> {
    let said = tokio::time::timeout(Duration::from_secs(30), world.command(&["check", "--live", "wa"])).await??;
    ensure!(said.contains("+1 555-000-1111"), "{said}");
    let set = meta.settings();
    ensure!(
        set.iter()
            .any(|(path, _)| *path == format!("{BUSINESS_ID}/subscribed_apps")),
        "{set:?}"
    );
    let webhook = set
        .iter()
        .find(|(path, _)| path == NUMBER_ID)
        .context("no webhook was set")?;
    let url = format!("{}/in/wa", world.public[0]);
    ensure!(
        webhook.1["webhook_configuration"]["override_callback_uri"] == url,
        "{webhook:?}"
    );
    Ok(())
}
