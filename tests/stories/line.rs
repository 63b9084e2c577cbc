//! Customers write to an account of LINE's: several events in one webhook, files,
//! stickers, places; answers go by the reply token, and by push when it is used or
//! too old; and a vendor that fails, repeats, redelivers and mixes up the order.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::vendor::{delivered, mend};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tests::vendors::Mood;
use tests::vendors::line::{Line, PICTURE, SECRET, Sent, TOKEN, message_id, user};

const GROUP: &str = "C00000000000000000000000000000009";

/// LINE, and where its webhooks go.
struct Friends {
    line: Line,
    url: String,
}

pub async fn run(world: &World) -> Result<()> {
    let friends = Friends {
        line: Line::start(world.vendor_port("friends")?).await?,
        url: format!("{}/in/friends", world.public[0]),
    };
    friends.are_tried_out(world).await?;
    let asked = friends.write_ten_times(world).await?;
    friends.stall_and_others_go_on(world).await?;
    friends.are_answered(world, &asked).await?;
    friends.get_long_answers_and_files(world, &asked).await?;
    friends.say_all_that_can_be_said(world, &asked).await?;
    friends.are_busy_and_fail(world, &asked).await?;
    friends.block_the_account(world).await?;
    friends.have_groups(world).await?;
    friends.are_signed_by_a_wrong_secret(world).await?;
    for process in world.processes().await.iter() {
        let log = std::fs::read_to_string(&process.log)?;
        ensure!(
            !log.contains(TOKEN) && !log.contains(SECRET),
            "{} holds a secret",
            process.log.display()
        );
    }
    Ok(())
}

impl Friends {
    async fn are_tried_out(&self, world: &World) -> Result<()> {
        let said = world.command(&["check", "--live", "friends"]).await?;
        ensure!(
            said.contains("Stories (@216ru) answers") && said.contains("which LINE has tried"),
            "{said}"
        );
        ensure!(
            self.line.endpoint().as_ref() == Some(&self.url),
            "{:?}",
            self.line.endpoint()
        );
        Ok(())
    }

    async fn post(&self, events: &[Value]) -> Result<()> {
        let status = self.line.post(&self.url, events).await?;
        ensure!(status == 200, "answered {status}");
        Ok(())
    }

    /// Somebody writes; the conversation that comes of it.
    async fn ask(&self, world: &World, number: u32, from: &str, words: &str) -> Result<String> {
        let event = self.line.message(number, from, "text", json!({ "text": words }));
        self.post(&[event]).await?;
        let ticket = world.desk.ticket("friends", words).await?;
        Ok(conversation(&ticket)?.to_owned())
    }

    async fn write_ten_times(&self, world: &World) -> Result<String> {
        let words = "こんにちは! Where is my bike? 🚲";
        let mut first = self.line.message(1, &user(1), "text", json!({ "text": words }));
        self.post(&[first.clone()]).await?;
        let asked = conversation(&world.desk.ticket("friends", words).await?)?.to_owned();
        first["deliveryContext"]["isRedelivery"] = true.into();
        for _ in 0..10 {
            self.post(&[first.clone()]).await?;
        }
        // The later ones overtake the earlier one, which comes again among others; one of
        // them nobody knows.
        let said = |number: u32, words: &str, after_ms: i64| {
            let mut event = self.line.message(number, &user(1), "text", json!({ "text": words }));
            event["timestamp"] = (first["timestamp"].as_i64().unwrap_or_default() + after_ms).into();
            event
        };
        let unknown = self.line.event(9, &user(1), "a_new_kind", json!({}));
        let (third, fourth) = (said(3, "And my helmet?", 2), said(4, "And my lamp?", 3));
        self.post(&[fourth, unknown, first.clone(), third]).await?;
        self.post(&[said(2, "Hello?", 1)]).await?;
        let messages = world.desk.messages_at_least(&asked, 4).await?;
        let texts: Vec<&str> = messages.iter().filter_map(|message| message["text"].as_str()).collect();
        ensure!(
            texts == [words, "Hello?", "And my helmet?", "And my lamp?"],
            "{texts:?}"
        );
        ensure!(messages[0]["sender"]["verified"] == true, "{}", messages[0]);
        until("what nobody knows is kept", SOON, async || {
            let parked = world.desk.list("/v1/parked").await?;
            Ok(parked
                .iter()
                .any(|input| input["account"] == "friends" && input["quarantined"] == false))
        })
        .await?;
        Ok(asked)
    }

    /// What LINE took last, as soon as it has taken this often.
    async fn taken(&self, count: usize) -> Result<Sent> {
        eventually(&format!("{count} requests at LINE"), SOON * 2, async || {
            let sent = self.line.sent();
            Ok((sent.len() >= count).then(|| sent.last().cloned()).flatten())
        })
        .await
        .with_context(|| format!("refused: {:?}", self.line.refusals()))
    }

    async fn stall_and_others_go_on(&self, world: &World) -> Result<()> {
        let asked = self.ask(world, 20, &user(2), "Is anybody there at all?").await?;
        let before = self.line.sent().len();
        self.line.moods.will([Mood::Stalls]);
        world.desk.reply(&asked, "line-stalls", "Yes.").await?;
        self.taken(before + 1).await?;
        Ok(())
    }

    async fn are_answered(&self, world: &World, asked: &str) -> Result<()> {
        let before = self.line.sent().len();
        let reply = world.desk.reply(asked, "line-1", "It is on its way.").await?;
        let sent = self.taken(before + 1).await?;
        // By the token of the latest message.
        ensure!(
            sent.how == "reply" && sent.messages[0]["text"] == "It is on its way.",
            "{sent:?}"
        );
        let message = delivered(world, &reply, "sent").await?;
        ensure!(message["external_ids"].to_string().contains(&sent.ids[0]), "{message}");

        // Nobody has written since: there is no token, and none is tried.
        let refused = self.line.refusals().len();
        let reply = world.desk.reply(asked, "line-2", "Soon.").await?;
        let sent = self.taken(before + 2).await?;
        ensure!((sent.how, &sent.to) == ("push", &user(1)), "{sent:?}");
        ensure!(self.line.refusals().len() == refused, "{:?}", self.line.refusals());
        delivered(world, &reply, "sent").await?;

        // The token is too old.
        let event = self.line.message(5, &user(1), "text", json!({ "text": "When?" }));
        self.post(&[event]).await?;
        let messages = said(world, asked, "When?").await?;
        self.line.expire_tokens();
        let path = format!("/v1/conversations/{asked}/replies");
        let body = json!({ "text": "Today.", "quotes": messages["id"] });
        let (status, reply) = world.desk.post(&path, "line-3", &body).await?;
        ensure!(status == 201, "{status} {reply}");
        let sent = self.taken(before + 3).await?;
        ensure!(sent.how == "push" && sent.messages[0]["quoteToken"] == "q5", "{sent:?}");
        delivered(world, &reply, "sent").await?;
        Ok(())
    }

    async fn get_long_answers_and_files(&self, world: &World, asked: &str) -> Result<()> {
        let before = self.line.sent().len();
        let sentence = "This sentence is one of very many. ";
        let file = |name: &str, media_type: &str, content: &str| json!({ "name": name, "media_type": media_type, "content": content });
        let files = [
            file("map.png", "image/png", "iVBORw0KGgoAAAA="),
            file("größe.txt", "text/plain", "aGVsbG8="),
            file("b.txt", "text/plain", "aGVsbG8="),
            file("c.txt", "text/plain", "aGVsbG8="),
        ];
        let body = json!({ "text": sentence.repeat(200).trim_end(), "attachments": files });
        let path = format!("/v1/conversations/{asked}/replies");
        let (status, reply) = world.desk.post(&path, "line-10", &body).await?;
        ensure!(status == 201, "{status} {reply}");
        self.taken(before + 2).await?;
        delivered(world, &reply, "sent").await?;
        let sent = self.line.sent().split_off(before);
        let messages: Vec<&Value> = sent.iter().flat_map(|sent| &sent.messages).collect();
        ensure!(sent[0].messages.len() == 5 && messages.len() == 6, "{sent:?}");
        ensure!(
            messages[..2]
                .iter()
                .all(|message| text(message, "text").is_ok_and(|text| text.ends_with("many.")))
        );
        let picture = reqwest::get(text(messages[2], "originalContentUrl")?)
            .await?
            .bytes()
            .await?;
        ensure!(picture.starts_with(b"\x89PNG"), "other bytes");
        let link = text(messages[3], "text")?;
        let (name, url) = link.split_once('\n').context("no link")?;
        ensure!(
            name == "größe.txt" && reqwest::get(url).await?.bytes().await? == "hello",
            "{link}"
        );
        Ok(())
    }

    async fn say_all_that_can_be_said(&self, world: &World, asked: &str) -> Result<()> {
        let line = &self.line;
        line.takes_its_time(1);
        let film = line.message(30, &user(1), "video", json!({ "contentProvider": { "type": "line" } }));
        let bill = line.message(31, &user(1), "file", json!({ "fileName": "bill.jpg", "fileSize": 14 }));
        let sticker = line.message(
            32,
            &user(1),
            "sticker",
            json!({ "packageId": "446", "stickerId": "1988",
            "stickerResourceType": "STATIC", "keywords": ["hi", "cony"] }),
        );
        let place = line.message(
            33,
            &user(1),
            "location",
            json!({ "title": "Shop", "address": "Tokyo",
            "latitude": 35.6, "longitude": 139.7 }),
        );
        let button = line.event(34, &user(1), "postback", json!({ "postback": { "data": "yes" } }));
        let quoting = line.message(
            35,
            &user(1),
            "text",
            json!({ "text": "This one", "quotedMessageId": message_id(1) }),
        );
        self.post(&[film, bill, sticker, place, button, quoting]).await?;
        said(world, asked, "[sticker] hi, cony").await?;
        said(world, asked, "[location] Shop\nTokyo\n35.6, 139.7").await?;
        said(world, asked, "yes").await?;
        let files = eventually("both files are here", SOON * 3, async || {
            let messages = world.desk.messages(asked).await?;
            let files = messages.iter().flat_map(|message| {
                let files = message["attachments"].as_array().cloned().unwrap_or_default();
                files.into_iter().map(|file| (message["id"].clone(), file))
            });
            let here: Vec<_> = files
                .filter(|(_, file)| file["media_type"] == "image/jpeg" && file["sha256"] != "")
                .collect();
            Ok((here.len() == 2).then_some(here))
        })
        .await?;
        for (id, file) in files {
            let path = format!(
                "/v1/messages/{}/attachments/{}",
                id.as_str().unwrap_or_default(),
                text(&file, "sha256")?
            );
            ensure!(world.desk.get_bytes(&path).await? == PICTURE, "other bytes");
        }

        // Taken back, before it was heard of.
        let unsent = line.event(
            36,
            &user(1),
            "unsend",
            json!({ "unsend": { "messageId": message_id(37) } }),
        );
        let secret = line.message(37, &user(1), "text", json!({ "text": "My password is secret" }));
        self.post(&[unsent]).await?;
        self.post(&[secret]).await?;
        until("it is taken back", SOON, async || {
            let messages = world.desk.messages(asked).await?;
            ensure!(
                !messages
                    .iter()
                    .any(|message| message["text"] == "My password is secret"),
                "it shows"
            );
            Ok(messages.iter().any(|message| !message["deleted_at"].is_null()))
        })
        .await
    }

    async fn are_busy_and_fail(&self, world: &World, asked: &str) -> Result<()> {
        // By push every outcome is known in the end, and it leaves once.
        self.line.expire_tokens();
        let before = self.line.sent().len();
        self.line.moods.will([Mood::Busy { retry_after_s: 1 }, Mood::Breaks]);
        let reply = world.desk.reply(asked, "line-40", "Patience!").await?;
        delivered(world, &reply, "sent").await?;
        ensure!(self.line.sent().len() == before + 1, "it left twice");

        // By token nobody knows: a person decides.
        let event = self.line.message(41, &user(1), "text", json!({ "text": "And now?" }));
        self.post(&[event]).await?;
        said(world, asked, "And now?").await?;
        self.line.moods.will([Mood::Fails(500)]);
        let reply = world.desk.reply(asked, "line-41", "Now.").await?;
        let message = delivered(world, &reply, "uncertain").await?;
        ensure!(text(&message, "delivery_error")?.contains("500"), "{message}");
        let path = format!("/v1/messages/{}/resend", text(&reply, "id")?);
        let (status, answer) = world.desk.post(&path, "line-42", &json!({})).await?;
        ensure!(status == 200, "{status} {answer}");
        delivered(world, &reply, "sent").await?;
        Ok(())
    }

    async fn block_the_account(&self, world: &World) -> Result<()> {
        let asked = self.ask(world, 50, &user(5), "What do you sell?").await?;
        let path = format!("/v1/conversations/{asked}");
        let consent = async |given: bool| {
            until("the contact's word counts", SOON, async || {
                Ok(world.desk.get(&path).await?["consent"]["given"] == given)
            })
            .await
        };
        self.post(&[self.line.event(51, &user(5), "unfollow", json!({}))])
            .await?;
        consent(false).await?;
        let replies = format!("{path}/replies");
        let (status, refusal) = world
            .desk
            .post(&replies, "line-50", &json!({ "text": "Bikes!" }))
            .await?;
        ensure!(
            (status, &refusal["code"]) == (409, &json!("opted_out")),
            "{status} {refusal}"
        );
        let follow = json!({ "follow": { "isUnblocked": true } });
        self.post(&[self.line.event(52, &user(5), "follow", follow)]).await?;
        consent(true).await?;
        let before = self.line.sent().len();
        world.desk.reply(&asked, "line-51", "Bikes!").await?;
        self.taken(before + 1).await?;
        Ok(())
    }

    async fn have_groups(&self, world: &World) -> Result<()> {
        let in_group = |number: u32, group: &str, words: &str| {
            let mut event = self.line.message(number, &user(6), "text", json!({ "text": words }));
            event["source"] = json!({ "type": "group", "groupId": group, "userId": user(6) });
            event
        };
        let other = "C00000000000000000000000000000008";
        self.post(&[
            in_group(60, other, "Nobody hears this"),
            in_group(61, GROUP, "Hello, friends"),
        ])
        .await?;
        let ticket = world.desk.ticket("friends", "Hello, friends").await?;
        self.line.expire_tokens();
        let before = self.line.sent().len();
        world.desk.reply(conversation(&ticket)?, "line-60", "Hello!").await?;
        let sent = self.taken(before + 1).await?;
        ensure!(sent.to == GROUP, "{sent:?}");
        let tickets = world.desk.tickets("friends").await?;
        ensure!(
            !tickets.iter().any(|ticket| ticket["subject"] == "Nobody hears this"),
            "{tickets:?}"
        );
        Ok(())
    }

    /// The settings have a wrong secret: what LINE signs is kept, and released when the
    /// secret is mended.
    async fn are_signed_by_a_wrong_secret(&self, world: &World) -> Result<()> {
        let words = "You never answer";
        let event = self.line.message(70, &user(7), "text", json!({ "text": words }));
        let url = format!("{}/in/mended-friends", world.public[0]);
        for _ in 0..3 {
            let status = self.line.post(&url, std::slice::from_ref(&event)).await?;
            ensure!(status == 401, "answered {status}");
        }
        let forged = self.line.post_signed(&self.url, "another secret", &[event]).await?;
        ensure!(forged == 401, "answered {forged}");
        mend(world, "mended-friends", SECRET).await?;
        world.desk.ticket("mended-friends", words).await?;
        Ok(())
    }
}

/// Waits for the message of this text.
async fn said(world: &World, asked: &str, words: &str) -> Result<Value> {
    eventually(&format!("\"{words}\""), SOON, async || {
        let messages = world.desk.messages(asked).await?;
        let mut found = messages.iter().filter(|message| message["text"] == words);
        let Some(message) = found.next() else { return Ok(None) };
        ensure!(found.next().is_none(), "it is there twice");
        Ok(Some(message.clone()))
    })
    .await
}
