//! People write to a page by Messenger, and to an account by Instagram, and get
//! answers: with files, edits, reactions, echoes of what others answered, delivery
//! states, and a day after which only people may answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::vendor::{delivered, fetched, mend, refused, reply, template};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tests::vendors::Mood;
use tests::vendors::meta::{
    APP_SECRET, INSTAGRAM_ID, Meta, PAGE_ID, PICTURE, VERIFY_TOKEN, echo, event, instagram, messenger, moments_ago,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One of the two products.
struct Product {
    account: &'static str,
    mended: &'static str,
    /// Its own id in events.
    id: &'static str,
    wrap: fn(&[Value]) -> Value,
    /// Longest text of one message.
    part: usize,
    /// Tells its users and messages from those of the other.
    mark: &'static str,
}

const MESSENGER: Product = Product {
    account: "page",
    mended: "page-mended",
    id: PAGE_ID,
    wrap: messenger,
    part: 2_000,
    mark: "m",
};

const INSTAGRAM: Product = Product {
    account: "insta",
    mended: "insta-mended",
    id: INSTAGRAM_ID,
    wrap: instagram,
    part: 1_000,
    mark: "i",
};

/// One product's story, in one world.
struct Stage<'a> {
    world: &'a World,
    meta: Meta,
    product: &'static Product,
}

pub async fn run(world: &World) -> Result<()> {
    let stage = Stage::open(world, &MESSENGER).await?;
    let asked = stage.exchange().await?;
    stage.watermarks(&asked).await?;
    stage.a_message_is_edited().await
}

/// The same by Instagram, and what is its own.
pub async fn run_instagram(world: &World) -> Result<()> {
    let stage = Stage::open(world, &INSTAGRAM).await?;
    let asked = stage.exchange().await?;
    stage.a_message_is_read_by_its_name(&asked).await?;
    stage.a_story_is_mentioned_and_a_message_unsent().await?;
    // What the dashboard's button sends is taken, and nothing comes of it.
    let value = json!({ "sender": { "id": "12334" }, "recipient": { "id": "23245" }, "timestamp": "1527459824",
        "message": { "mid": "random_mid", "text": "random_text" } });
    let test = json!({ "object": "instagram", "entry": [
        { "id": "0", "time": 1, "changes": [{ "field": "messages", "value": value }] },
    ]});
    stage.post(&test).await
}

impl<'a> Stage<'a> {
    async fn open(world: &'a World, product: &'static Product) -> Result<Self> {
        let meta = Meta::start(world.vendor_port(product.account)?, &world.public[0]).await?;
        Ok(Self { world, meta, product })
    }

    /// What both have in common; the conversation of the first who asked.
    async fn exchange(&self) -> Result<String> {
        let answer = self.meta.shake_hands(self.product.account, VERIFY_TOKEN).await?;
        ensure!(answer == (200, "1158201444".to_owned()), "{answer:?}");
        let asked = self.a_message_comes_ten_times().await?;
        self.it_is_answered(&asked).await?;
        self.long_answers_and_files(&asked).await?;
        self.meta_is_busy_and_fails(&asked).await?;
        self.a_colleague_answers_elsewhere(&asked).await?;
        self.a_file_comes().await?;
        self.an_answer_comes_late().await?;
        self.nobody_knows_whether_it_left().await?;
        self.an_answer_fails().await?;
        self.a_wrong_secret_is_mended().await?;
        self.the_account_is_tried_out().await?;
        Ok(asked)
    }

    fn user(&self, number: u32) -> String {
        format!("8{number:015}")
    }

    fn mid(&self, number: u32) -> String {
        format!("{}_{number}", self.product.mark)
    }

    /// Something that a user does.
    fn event(&self, user: u32, what: &str, body: &Value, ago_ms: i64) -> Value {
        event(self.product.id, &self.user(user), what, body, ago_ms)
    }

    fn said(&self, mid: u32, user: u32, words: &str, ago_ms: i64) -> Value {
        let body = json!({ "mid": self.mid(mid), "text": words });
        self.event(user, "message", &body, ago_ms)
    }

    async fn happens(&self, events: &[Value]) -> Result<()> {
        self.post(&(self.product.wrap)(events)).await
    }

    async fn post(&self, posted: &Value) -> Result<()> {
        let status = self.meta.post(self.product.account, posted).await?;
        ensure!(status == 200, "{status}: Meta would repeat this");
        Ok(())
    }

    /// Somebody writes; the conversation that comes of it.
    async fn ask(&self, mid: u32, user: u32, words: &str, ago_ms: i64) -> Result<String> {
        self.happens(&[self.said(mid, user, words, ago_ms)]).await?;
        let ticket = self.world.desk.ticket(self.product.account, words).await?;
        Ok(conversation(&ticket)?.to_owned())
    }

    /// What Meta took last, as soon as it has this many.
    async fn taken(&self, count: usize) -> Result<Value> {
        eventually(&format!("{count} messages at Meta"), SOON * 2, async || {
            let messages = self.meta.messages();
            Ok((messages.len() >= count).then(|| messages.last().cloned()).flatten())
        })
        .await
        .with_context(|| format!("refused: {:?}", self.meta.refusals()))
    }

    fn key(&self, key: &str) -> String {
        format!("{}-{key}", self.product.account)
    }

    async fn answer(&self, conversation: &str, key: &str, words: &str) -> Result<Value> {
        self.world.desk.reply(conversation, &self.key(key), words).await
    }

    async fn a_message_comes_ten_times(&self) -> Result<String> {
        let words = "Grüße! Where is my bike? 🚲";
        let asked = self.ask(1, 1, words, 0).await?;
        for _ in 0..10 {
            self.happens(&[self.said(1, 1, words, 0)]).await?;
        }
        // One POST with the next, its reaction before it, and what nobody knows.
        let reaction = json!({ "mid": self.mid(2), "action": "react", "reaction": "love", "emoji": "❤" });
        let events = [
            self.event(1, "reaction", &reaction, 0),
            self.event(1, "hologram", &json!({}), 0),
            self.said(2, 1, "Hello?", 0),
        ];
        self.happens(&events).await?;
        let messages = eventually("the second message", SOON, async || {
            let messages = self.world.desk.messages(&asked).await?;
            let has_come = messages.len() == 2 && messages[1]["reactions"][0]["emoji"] == "❤";
            Ok(has_come.then_some(messages))
        })
        .await?;
        ensure!(messages[0]["sender"]["address"] == self.user(1), "{messages:?}");
        Ok(asked)
    }

    async fn it_is_answered(&self, asked: &str) -> Result<()> {
        let before = self.meta.messages().len();
        let answer = self.answer(asked, "1", "It is on its way.").await?;
        let message = self.taken(before + 1).await?;
        ensure!(message["recipient"]["id"] == self.user(1), "{message}");
        ensure!(message["message"]["text"] == "It is on its way.", "{message}");
        ensure!(message["messaging_type"] == "RESPONSE", "{message}");
        delivered(self.world, &answer, "sent").await?;
        // It comes back to our app, and is one message.
        let own =
            json!({ "mid": message["id"], "text": "It is on its way.", "metadata": message["message"]["metadata"] });
        self.happens(&[echo(self.product.id, &self.user(1), &own, true)])
            .await?;
        let body = json!({ "template": template(&[]) });
        refused(self.world, asked, &self.key("2"), &body, "no_templates").await?;
        Ok(())
    }

    async fn long_answers_and_files(&self, asked: &str) -> Result<()> {
        let before = self.meta.messages().len();
        let sentence = "This sentence is one of very many. ";
        let words = sentence.repeat(self.product.part / sentence.len() + 2);
        self.answer(asked, "3", words.trim_end()).await?;
        self.taken(before + 2).await?;
        let parts = self.meta.messages().split_off(before);
        let ends = |part: &Value| {
            part["message"]["text"]
                .as_str()
                .is_some_and(|text| text.ends_with("many."))
        };
        ensure!(parts.iter().all(ends), "not cut at sentences: {parts:?}");
        let file = json!({ "name": "map.txt", "media_type": "text/plain", "content": "aGVsbG8=" });
        let body = json!({ "text": "See here.", "attachments": [file] });
        let answer = reply(self.world, asked, &self.key("4"), &body).await?;
        let message = self.taken(before + 4).await?;
        let attachment = &message["message"]["attachment"];
        ensure!(attachment["type"] == "file", "{message}");
        let fetched = reqwest::get(text(&attachment["payload"], "url")?).await?;
        ensure!(fetched.bytes().await? == "hello", "other bytes");
        delivered(self.world, &answer, "sent").await?;
        Ok(())
    }

    async fn meta_is_busy_and_fails(&self, asked: &str) -> Result<()> {
        let words = format!("Are you busy? ({})", self.product.mark);
        let other = self.ask(5, 5, &words, 0).await?;
        let before = self.meta.messages().len();
        let moods = [Mood::Fails(500), Mood::Busy { retry_after_s: 1 }];
        self.meta.moods.will(moods);
        let first = self.answer(asked, "5", "Patience!").await?;
        let second = self.answer(&other, "6", "We are.").await?;
        delivered(self.world, &first, "sent").await?;
        delivered(self.world, &second, "sent").await?;
        ensure!(self.meta.messages().len() == before + 2, "one left twice");
        Ok(())
    }

    /// In the inbox of the page itself: it stands in the conversation, and is not sent.
    async fn a_colleague_answers_elsewhere(&self, asked: &str) -> Result<()> {
        let before = self.meta.messages().len();
        let body = json!({ "mid": self.mid(10), "text": "I have called them." });
        self.happens(&[echo(self.product.id, &self.user(1), &body, false)])
            .await?;
        let found = eventually("the colleague's answer", SOON, async || {
            let messages = self.world.desk.messages(asked).await?;
            Ok(messages
                .into_iter()
                .find(|message| message["text"] == "I have called them."))
        })
        .await?;
        ensure!(
            found["direction"] == "outbound" && found["author"] == "elsewhere",
            "{found}"
        );
        let twice = self.world.desk.messages(asked).await?;
        let own = twice
            .iter()
            .filter(|message| message["text"] == "It is on its way.")
            .count();
        ensure!(own == 1, "our own echo is another message: {twice:?}");
        ensure!(self.meta.messages().len() == before, "it was sent");
        Ok(())
    }

    async fn a_file_comes(&self) -> Result<()> {
        let words = format!("Look at this ({})", self.product.mark);
        let attachment = json!({ "type": "image", "payload": { "url": self.meta.public_file() } });
        let body = json!({ "mid": self.mid(20), "text": words, "attachments": [attachment] });
        self.happens(&[self.event(20, "message", &body, 0)]).await?;
        let ticket = self.world.desk.ticket(self.product.account, &words).await?;
        let messages = self.world.desk.messages_at_least(conversation(&ticket)?, 1).await?;
        ensure!(messages[0]["attachments"][0]["name"] == "photo.png", "{messages:?}");
        ensure!(fetched(self.world, &messages[0]).await? == PICTURE, "other bytes");
        Ok(())
    }

    /// After a day only people may answer, under a tag; after a week nobody.
    async fn an_answer_comes_late(&self) -> Result<()> {
        let asked = self.ask(30, 30, "I wrote this two days ago", 2 * DAY_MS).await?;
        let before = self.meta.messages().len();
        let answer = self.answer(&asked, "30", "We are sorry.").await?;
        let message = self.taken(before + 1).await?;
        ensure!(message["tag"] == "HUMAN_AGENT", "{message}");
        delivered(self.world, &answer, "sent").await?;
        let asked = self.ask(31, 31, "I wrote this last week", 8 * DAY_MS).await?;
        let body = json!({ "text": "Too late?" });
        let words = refused(self.world, &asked, &self.key("31"), &body, "reply_window_closed").await?;
        ensure!(words.contains("within 168 hours"), "{words}");
        Ok(())
    }

    /// Meta takes the message and never answers; that it shows it to us tells.
    async fn nobody_knows_whether_it_left(&self) -> Result<()> {
        let words = format!("Is anybody there at all? ({})", self.product.mark);
        let asked = self.ask(40, 40, &words, 0).await?;
        let before = self.meta.messages().len();
        self.meta.moods.will([Mood::Stalls]);
        let answer = self.answer(&asked, "40", "Yes.").await?;
        let message = self.taken(before + 1).await?;
        // It is shown to us: by our name of it, where that travels, else by its words.
        let mut own = json!({ "mid": message["id"], "text": "Yes." });
        if let Some(name) = message["message"].get("metadata") {
            own["metadata"] = name.clone();
        }
        for _ in 0..2 {
            self.happens(&[echo(self.product.id, &self.user(40), &own, true)])
                .await?;
        }
        delivered(self.world, &answer, "sent").await?;
        self.happens(&[self.said(41, 40, "Thank you", 0)]).await?;
        let messages = self.world.desk.messages_at_least(&asked, 3).await?;
        ensure!(messages.len() == 3, "it stands twice: {messages:?}");
        Ok(())
    }

    async fn an_answer_fails(&self) -> Result<()> {
        let words = format!("I am leaving ({})", self.product.mark);
        let asked = self.ask(50, 50, &words, 0).await?;
        self.meta.lose(&self.user(50));
        let answer = self.answer(&asked, "50", "And now?").await?;
        let failed = delivered(self.world, &answer, "failed").await?;
        ensure!(text(&failed, "delivery_error")?.contains("551"), "{failed}");
        Ok(())
    }

    async fn a_wrong_secret_is_mended(&self) -> Result<()> {
        let words = format!("You never answer ({})", self.product.mark);
        let posted = (self.product.wrap)(&[self.said(60, 60, &words, 0)]);
        for _ in 0..3 {
            let status = self.meta.post(self.product.mended, &posted).await?;
            ensure!(status == 401, "{status}");
        }
        mend(self.world, self.product.mended, APP_SECRET).await?;
        self.world.desk.ticket(self.product.mended, &words).await?;
        Ok(())
    }

    async fn the_account_is_tried_out(&self) -> Result<()> {
        let arguments = ["check", "--live", self.product.account];
        let command = self.world.command(&arguments);
        let said = tokio::time::timeout(Duration::from_secs(30), command).await??;
        ensure!(said.to_lowercase().contains("bikes"), "{said}");
        let set = self.meta.settings();
        let (_, body) = set.last().context("nothing was set")?;
        ensure!(body["subscribed_fields"].to_string().contains("\"messages\""), "{body}");
        Ok(())
    }

    /// Some deliveries and all readings name a moment, not messages.
    async fn watermarks(&self, asked: &str) -> Result<()> {
        let before = self.meta.messages().len();
        let first = self.answer(asked, "70", "One.").await?;
        let message = self.taken(before + 1).await?;
        delivered(self.world, &first, "sent").await?;
        let named = json!({ "mids": [message["id"]], "watermark": moments_ago(0) });
        self.happens(&[self.event(1, "delivery", &named, 0)]).await?;
        delivered(self.world, &first, "delivered").await?;
        let second = self.answer(asked, "71", "Two.").await?;
        delivered(self.world, &second, "sent").await?;
        let unnamed = json!({ "watermark": moments_ago(0) });
        self.happens(&[self.event(1, "delivery", &unnamed, 0)]).await?;
        delivered(self.world, &second, "delivered").await?;
        let read = json!({ "watermark": moments_ago(0) });
        self.happens(&[self.event(1, "read", &read, 0), self.event(1, "delivery", &unnamed, 0)])
            .await?;
        delivered(self.world, &second, "read").await?;
        delivered(self.world, &first, "read").await?;
        Ok(())
    }

    async fn a_message_is_edited(&self) -> Result<()> {
        let asked = self.ask(80, 80, "I want one (edit)", 0).await?;
        let edit = |number: u32, words: &str| {
            let body = json!({ "mid": self.mid(80), "text": words, "num_edit": number });
            self.event(80, "message_edit", &body, 0)
        };
        self.happens(&[edit(2, "I want three"), edit(1, "I want two")]).await?;
        until("the last edit is shown", SOON, async || {
            Ok(self.world.desk.messages(&asked).await?[0]["text"] == "I want three")
        })
        .await
    }

    async fn a_message_is_read_by_its_name(&self, asked: &str) -> Result<()> {
        let before = self.meta.messages().len();
        let answer = self.answer(asked, "70", "One.").await?;
        let message = self.taken(before + 1).await?;
        delivered(self.world, &answer, "sent").await?;
        let read = json!({ "mid": message["id"] });
        self.happens(&[self.event(1, "read", &read, 0)]).await?;
        delivered(self.world, &answer, "read").await?;
        Ok(())
    }

    /// What is in a story must not be kept: only where it is.
    async fn a_story_is_mentioned_and_a_message_unsent(&self) -> Result<()> {
        let url = self.meta.public_file();
        let mention = json!({ "type": "story_mention", "payload": { "url": url } });
        let body = json!({ "mid": self.mid(80), "attachments": [mention] });
        self.happens(&[
            self.event(1, "message", &body, 0),
            self.said(81, 1, "Please forget this", 0),
        ])
        .await?;
        let unsent = json!({ "mid": self.mid(81), "is_deleted": true });
        self.happens(&[self.event(1, "message", &unsent, 0)]).await?;
        let ticket = eventually("both are here", SOON, async || {
            let tickets = self.world.desk.tickets(self.product.account).await?;
            let words = "Grüße! Where is my bike? 🚲";
            let ours = tickets.iter().find(|ticket| ticket["subject"] == words);
            Ok(ours.and_then(|ticket| ticket["number"].as_str()).map(str::to_owned))
        })
        .await?;
        let ticket = self.world.desk.show(&ticket).await?;
        let asked = conversation(&ticket)?.to_owned();
        let messages = eventually("the message is unsent", SOON, async || {
            let messages = self.world.desk.messages(&asked).await?;
            let is_gone = messages
                .iter()
                .any(|message| !message["deleted_at"].is_null() && message["text"] == "");
            Ok(is_gone.then_some(messages))
        })
        .await?;
        let mention = messages
            .iter()
            .find(|message| text(message, "text").is_ok_and(|text| text.contains("[story_mention]")));
        let mention = mention.context("no mention")?;
        ensure!(
            text(mention, "text")?.contains(&url) && mention["attachments"] == json!([]),
            "{mention}"
        );
        Ok(())
    }
}
