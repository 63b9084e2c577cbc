//! The contract that every channel keeps. A new one is under it by being listed;
//! it only has to add a [`Sample`].

use bytes::Bytes;
use model::event::{Attachment, AttachmentState};
use model::id::{MessageId, sha256_hex};
use model::inbound::{Inbound, What};
use model::time::Moment;

use crate::channel::{Channel, Input, Parsed};
use crate::guard::Guard;
use crate::list::{self, AccountSettings, Surroundings};
use crate::signature::{Keys, WebhookSecret};

/// What the suite needs of a channel.
struct Sample {
    channel: &'static str,
    settings: &'static str,
    /// Input that a provider would send, signed if it is pushed.
    input: fn() -> Input,
    /// What its message says, and how many files it has.
    text: &'static str,
    files: usize,
    /// The signature is good for a while only.
    expires: bool,
}

/// Compares what is made of each file of a folder with the snapshot beside it; one
/// that is not there is written. How many files there were.
pub fn snapshots(folder: &str, extension: &str, made: impl Fn(&[u8]) -> String) -> usize {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|found| found != extension) {
            continue;
        }
        let found = made(&std::fs::read(&path).unwrap());
        let snapshot = path.with_extension("parsed");
        if !snapshot.exists() {
            std::fs::write(&snapshot, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&snapshot).unwrap();
        assert_eq!(found, expected, "{}", path.display());
        count += 1;
    }
    count
}

/// Channels whose vendors send a secret token instead of signing.
const TOKEN_ONLY: &[&str] = &["telegram"];

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Settings of every account at Meta.
macro_rules! meta {
    ($own:literal) => {
        concat!(
            "app_secrets = ['meta-app-secret-0001']\nverify_token = 'v'\naccess_token = 't'\n",
            $own
        )
    };
}

const SAMPLES: &[Sample] = &[
    Sample {
        channel: "chat",
        settings: "",
        input: crate::chat::sample,
        text: "Where is my bike?",
        files: 1,
        expires: true,
    },
    Sample {
        channel: "email",
        settings: "
            address = 'support@example.org'
            imap = { host = 'imap.example.org', user = 'u', password = 'p' }
            smtp = { host = 'smtp.example.org' }",
        input: mail,
        text: "Where is my bike?",
        files: 1,
        expires: true,
    },
    Sample {
        channel: "instagram",
        settings: meta!("instagram_id = '600000000000006'"),
        input: instagram,
        text: "Where is my bike?",
        files: 1,
        expires: false,
    },
    Sample {
        channel: "line",
        settings: "channel_secrets = ['line-channel-secret-0001']\naccess_token = 'not-a-token'",
        input: line,
        text: "Where is my bike?",
        files: 0,
        expires: false,
    },
    Sample {
        channel: "messenger",
        settings: meta!("page_id = '500000000000005'\napp_id = '400000000000004'"),
        input: messenger,
        text: "Where is my bike?",
        files: 1,
        expires: false,
    },
    Sample {
        channel: "slack",
        settings: "
            bot_token = 'xoxb-1'
            signing_secrets = ['slack-signing-secret-0001']",
        input: crate::slack::sample,
        text: "Where is my bike?",
        files: 1,
        expires: true,
    },
    Sample {
        channel: "sms",
        settings: "
            account_sid = 'AC00000000000000000000000000000001'
            auth_tokens = ['twilio-auth-token-0001']
            number = '+15550001111'",
        input: text_message,
        text: "Where is my bike?",
        files: 1,
        expires: false,
    },
    Sample {
        channel: "telegram",
        settings: "
            token = '123456789:AAE-not-a-token'
            mode = 'webhook'
            webhook_secrets = ['s3cr3t_Token-for-tests']",
        input: update,
        text: "Where is my bike?",
        files: 1,
        expires: false,
    },
    Sample {
        channel: "voice",
        settings: "
            account_sid = 'AC00000000000000000000000000000001'
            auth_tokens = ['twilio-auth-token-0001']
            number = '+15550001111'",
        input: call,
        text: "Call from",
        files: 0,
        expires: false,
    },
    Sample {
        channel: "webhook",
        settings: "secrets = ['whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=']",
        input: webhook,
        text: "Where is my bike?",
        files: 1,
        expires: true,
    },
    Sample {
        channel: "whatsapp",
        settings: meta!("phone_number_id = '200000000000002'\nbusiness_account_id = '100000000000001'"),
        input: whatsapp,
        text: "Where is my bike?",
        files: 1,
        expires: false,
    },
];

/// Signed as Meta signs.
fn whatsapp() -> Input {
    let body = include_str!("whatsapp/testdata/signed.json");
    meta(body, "a60b982612ae7d21931092713f47d57c976cdaf6af89f939fe2f67e499771a60")
}

fn meta(body: &str, signature: &str) -> Input {
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-hub-signature-256", format!("sha256={signature}")),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value));
    input("POST", "/in/a", headers.to_vec(), body)
}

fn messenger() -> Input {
    let body = include_str!("messenger/testdata/signed.json");
    meta(body, "c606c781c6772e4e2e78ea956652b2ffe9c450cf34185611b0eac44085e56760")
}

fn instagram() -> Input {
    let body = include_str!("instagram/testdata/signed.json");
    meta(body, "e9cd4ff6651c4f8f0bb84986b6373c6aa012141668116ff2a7e0a5f002520240")
}

fn mail() -> Input {
    let text = "From: Ann <ann@example.com>\r\nTo: support@example.org\r\nSubject: Hello\r\n\
        Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/plain\r\n\r\nWhere is my bike?\r\n\
        --b\r\nContent-Type: image/png; name=a.png\r\nContent-Disposition: attachment; filename=a.png\r\n\
        Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--b--\r\n";
    input("", "", Vec::new(), text)
}

/// Signed as Twilio signs.
fn text_message() -> Input {
    let body = "Body=Where+is+my+bike%3F&From=%2B15552223333&MediaContentType0=image%2Fpng\
        &MediaUrl0=https%3A%2F%2Fapi.twilio.com%2Fm%2F1&MessageSid=SM00000000000000000000000000000001&NumMedia=1\
        &SmsStatus=received&To=%2B15550001111";
    twilio(body, "kd+/vmUBRog+dKhBETeS9vubOkU=")
}

fn call() -> Input {
    let body = "CallSid=CA00000000000000000000000000000001&CallStatus=ringing&Direction=inbound\
        &From=%2B15552223333&To=%2B15550001111";
    twilio(body, "RHx9Uiab5KbVkyJ9k+/bB9eI7uM=")
}

fn twilio(body: &str, signature: &str) -> Input {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-twilio-signature", signature),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    input("POST", "/in/a", headers.to_vec(), body)
}

/// Telegram signs nothing: the token is all the proof that there is.
fn update() -> Input {
    let body = r#"{"update_id":1001,"message":{"message_id":7,"date":0,
        "from":{"id":5550001,"is_bot":false,"first_name":"Ann"},"chat":{"id":5550001,"type":"private"},
        "caption":"Where is my bike?","photo":[{"file_id":"AgAC1","file_unique_id":"AQ1","width":90,"height":90}]}}"#;
    let headers = [
        ("content-type", "application/json"),
        ("x-telegram-bot-api-secret-token", "s3cr3t_Token-for-tests"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    input("POST", "/in/a", headers.to_vec(), body)
}

fn line() -> Input {
    let body = r#"{"destination":"U00000000000000000000000000000001","events":[{"type":"message","mode":"active","timestamp":0,"source":{"type":"user","userId":"U00000000000000000000000000000002"},"webhookEventId":"01KDVTEST00000000000000001","deliveryContext":{"isRedelivery":false},"replyToken":"0f37","message":{"id":"600000000000000001","type":"text","quoteToken":"q3","text":"Where is my bike?"}}]}"#;
    let headers = [
        ("content-type", "application/json"),
        ("x-line-signature", "QTJGPFQ9nfFtSc+k6/uXgYThMyv2tI8xSg2lFHzbZ84="),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    input("POST", "/in/a", headers.to_vec(), body)
}

fn webhook() -> Input {
    let body = r#"{"from":{"address":"ann@example.com","name":"Ann"},"text":"Where is my bike?",
        "attachments":[{"name":"a.png","media_type":"image/png","content":"iVBORw0KGgo="}]}"#;
    let secret = WebhookSecret::parse(SECRET).unwrap();
    let headers = secret.sign("evt_1", Moment::from_ms(0), body.as_bytes());
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value));
    input("POST", "/in/a", headers.collect(), body)
}

fn input(method: &str, url: &str, headers: Vec<(String, String)>, body: &str) -> Input {
    Input {
        method: method.to_owned(),
        url: url.to_owned(),
        headers,
        body: Bytes::from(body.to_owned()),
        received_at: Moment::from_ms(0),
    }
}

fn build(sample: &Sample) -> std::sync::Arc<dyn Channel> {
    let settings = AccountSettings {
        name: "a".to_owned(),
        channel: sample.channel.to_owned(),
        queue: None,
        join: None,
        rest: sample.settings.parse().unwrap(),
    };
    list::build(&[settings], &surroundings())
        .unwrap()
        .remove("a")
        .unwrap()
        .channel
}

/// The channel of the sample of this name.
pub fn sample_of(channel: &str) -> std::sync::Arc<dyn Channel> {
    let sample = SAMPLES.iter().find(|sample| sample.channel == channel);
    build(sample.unwrap())
}

/// A POST of these bytes.
pub fn posted(bytes: &[u8]) -> Input {
    let mut posted = input("POST", "/in/a", Vec::new(), "");
    posted.body = bytes.to_vec().into();
    posted
}

fn surroundings() -> Surroundings {
    Surroundings {
        keys: Keys::new(vec![vec![1; 32]]).unwrap(),
        public_url: "http://localhost".to_owned(),
        http: Guard::new(false).unwrap(),
        calendars: Vec::new(),
    }
}

fn parse(channel: &dyn Channel, input: &Input) -> Vec<Inbound> {
    let Parsed { events, answer } = channel.parse(input).unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    events
}

#[test]
fn every_channel_is_under_contract() {
    let sampled: Vec<&str> = SAMPLES.iter().map(|sample| sample.channel).collect();
    assert_eq!(sampled, list::channels());
}

#[test]
fn a_repeat_is_the_same_event() {
    for sample in SAMPLES {
        let channel = build(sample);
        let mut again = (sample.input)();
        again.received_at = Moment::from_ms(60_000);
        let events = parse(channel.as_ref(), &(sample.input)());
        assert!(!events.is_empty(), "{}", sample.channel);
        assert_eq!(events, parse(channel.as_ref(), &again), "{}", sample.channel);
    }
}

#[test]
fn events_have_an_id_a_thread_and_a_sender() {
    for sample in SAMPLES {
        for event in parse(build(sample).as_ref(), &(sample.input)()) {
            assert!(!event.external_id.trim().is_empty(), "{event:?}");
            assert!(!event.thread.trim().is_empty(), "{event:?}");
            let What::Message(message) = event.what else {
                continue;
            };
            assert!(
                !message.sender.scheme.is_empty() && !message.sender.address.is_empty(),
                "{message:?}"
            );
            assert!(message.text.contains(sample.text), "{message:?}");
            assert!(message.external_ids.iter().all(|id| !id.is_empty()), "{message:?}");
            let of_blob = |bytes: &Vec<u8>| (sha256_hex(bytes), bytes.len() as u64);
            let blobs: Vec<_> = event.blobs.iter().map(of_blob).collect();
            assert_eq!(message.attachments.len(), sample.files, "{}", sample.channel);
            // The others are fetched later.
            let is_here = |file: &&Attachment| file.state() == AttachmentState::Here;
            let of_file = |file: &Attachment| (file.sha256.clone(), file.size_bytes);
            let files: Vec<_> = message.attachments.iter().filter(is_here).map(of_file).collect();
            // Where files are uploaded before the message, they are kept already.
            let is_uploaded_before = build(sample).declaration().live.is_some() && blobs.is_empty();
            assert!(is_uploaded_before || blobs == files, "{}", sample.channel);
        }
    }
}

#[test]
fn the_signature_of_what_is_pushed_is_checked() {
    for sample in SAMPLES {
        let channel = build(sample);
        if channel.pulls() {
            continue;
        }
        let good = (sample.input)();
        assert_eq!(channel.verify(&good), Ok(()), "{}", sample.channel);
        let mut tampered = good.clone();
        tampered.body = [good.body.as_ref(), b" "].concat().into();
        let mut unsigned = good.clone();
        unsigned.headers.clear();
        let mut old = good.clone();
        old.received_at = Moment::from_ms(3_600_000);
        assert_eq!(channel.verify(&old).is_err(), sample.expires, "{}", sample.channel);
        let proves_bytes = !TOKEN_ONLY.contains(&sample.channel);
        assert_eq!(channel.verify(&tampered).is_err(), proves_bytes, "{}", sample.channel);
        let mut guessed = good.clone();
        for (name, value) in &mut guessed.headers {
            if channel.secret_headers().contains(&name.as_str()) {
                value.push('x');
            }
        }
        let guessed = (!proves_bytes).then_some(guessed);
        for bad in std::iter::once(unsigned).chain(guessed) {
            assert!(channel.verify(&bad).is_err(), "{}: {bad:?}", sample.channel);
        }
        let kept = channel.kept_headers();
        for (name, _) in &good.headers {
            assert!(
                kept.contains(&name.as_str()),
                "{}: a replay needs {name}",
                sample.channel
            );
        }
    }
}

#[test]
fn no_bytes_break_a_parser() {
    let mut hostile: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 1000],
        vec![0xff; 1000],
        b"{".repeat(100_000),
        b"[".repeat(100_000),
        b"\r\n".repeat(100_000),
        b"From: x\r\n".repeat(100_000),
        b"<div>".repeat(100_000),
        "\u{202e}\u{feff}ß".repeat(10_000).into_bytes(),
    ];
    for sample in SAMPLES {
        let good = (sample.input)().body.to_vec();
        // Cut and flipped at every place.
        for place in 0..good.len() {
            hostile.push(good[..place].to_vec());
            let mut flipped = good.clone();
            flipped[place] ^= 0x55;
            hostile.push(flipped);
        }
    }
    for sample in SAMPLES {
        let channel = build(sample);
        for bytes in &hostile {
            let mut input = (sample.input)();
            input.body = bytes.clone().into();
            // Whatever it says, it comes back and says the same again.
            let first = format!("{:?}", channel.parse(&input));
            let second = format!("{:?}", channel.parse(&input));
            assert_eq!(first, second);
        }
    }
}

#[test]
fn declarations_make_sense() {
    for sample in SAMPLES {
        let channel = build(sample);
        let declaration = channel.declaration();
        assert!(
            declaration.formats.iter().any(|format| format == "text/plain"),
            "{}",
            sample.channel
        );
        assert!(declaration.max_chars != Some(0), "{}", sample.channel);
        assert!(
            channel.send_deadline() >= std::time::Duration::from_secs(1),
            "{}",
            sample.channel
        );
        for name in channel.kept_headers() {
            assert_eq!(*name, name.to_lowercase(), "{}", sample.channel);
        }
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let check = |name: &str, channel: &str, rest: &str, expected: &str| {
        let settings = AccountSettings {
            name: name.to_owned(),
            channel: channel.to_owned(),
            queue: None,
            join: None,
            rest: rest.parse().unwrap(),
        };
        let error = list::build(&[settings], &surroundings()).err().unwrap_or_default();
        assert!(error.contains(expected), "{name} {channel}: {error}");
        assert!(!error.contains("MDEy"), "{error}");
    };
    let webhook = SAMPLES.iter().find(|sample| sample.channel == "webhook");
    let good = webhook.unwrap().settings;
    check("*", "webhook", good, "no name of an account");
    check(
        "a",
        "webhok",
        good,
        "accounts.a: there is no channel \"webhok\", did you mean \"webhook\"?",
    );
    check(
        "a",
        "telex",
        good,
        "(channels: chat, email, instagram, line, messenger, slack, sms, telegram, voice, webhook, whatsapp)",
    );
    let phone = "account_sid = 'AC1'\nauth_tokens = ['x']\nnumber = '1'\n";
    check("a", "sms", phone, "accounts.a: account_sid: it begins with AC");
    let phone = phone.replace("AC1", &format!("AC{}", "0".repeat(32)));
    check("a", "sms", &phone, "number: write it as +1");
    check("a", "voice", &phone, "number: write it as +1");
    check("a", "sms", &format!("{phone}numbr = 1"), "unknown field `numbr`");
    let private = format!("{phone}api_url = 'http://127.0.0.1:9'");
    check("a", "sms", &private, "api_url: 127.0.0.1 is a private");
    let number = meta!("phone_number_id = '+1555'\nbusiness_account_id = '1'");
    check("a", "whatsapp", number, "phone_number_id: it is the id");
    let secrets = number.replace("['meta-app-secret-0001']", "[]");
    check("a", "whatsapp", &secrets, "app_secrets: name one");
    let page = meta!("page_id = '1'\napp_id = 'x'");
    check("a", "messenger", page, "app_id: it has digits only");
    let account = meta!("instagram_id = '@bikes'");
    check("a", "instagram", account, "instagram_id: it has digits only");
    let version = format!("api_version = '25'\n{number}");
    check("a", "whatsapp", &version, "api_version: write it as v25.0");
    let slack = |rest: &str, expected: &str| check("a", "slack", &format!("bot_token = 'xoxb-MDEy'\n{rest}"), expected);
    check("a", "slack", "bot_token = 'MDEy'", "bot_token: it begins with xoxb-");
    slack("", "signing_secrets: name one");
    slack("signing_secrets = ['']", "signing_secrets: name one");
    slack("signing_secrets = ['a', 'b', 'c']", "signing_secrets: name one");
    slack("mode = 'socket'", "app_token: name the one that begins with xapp-");
    slack("mode = 'socket'\napp_token = 'MDEy'", "app_token: name the one");
    slack(
        "mode = 'socket'\napp_token = 'xapp-1'\nsigning_secrets = ['a']",
        "signing_secrets: they are for",
    );
    slack(
        "signing_secrets = ['a']\napp_token = 'xapp-1'",
        "app_token: it is for mode",
    );
    slack("mode = 'rtm'", "unknown variant `rtm`");
    slack(
        "signing_secrets = ['a']\napi_url = 'http://127.0.0.1:9'",
        "api_url: 127.0.0.1 is a private",
    );
    let friends = "channel_secrets = ['MDEy']\naccess_token = 't'\n";
    check(
        "a",
        "line",
        &friends.replace("['MDEy']", "[]"),
        "channel_secrets: name one",
    );
    check(
        "a",
        "line",
        &friends.replace("'t'", "'t t'"),
        "access_token: it is one word",
    );
    let private = format!("{friends}api_url = 'http://10.0.0.1'");
    check("a", "line", &private, "api_url: 10.0.0.1 is a private");
    let bot = "token = '1:x'\nmode = 'webhook'\nwebhook_secrets = ['MDEyMzQ1Njc4OWFiY2Rl']\n";
    check(
        "a",
        "telegram",
        &bot.replace("1:x", "x"),
        "accounts.a: token: it looks like",
    );
    check(
        "a",
        "telegram",
        &bot.replace("Rl", "!"),
        "webhook_secrets: a secret has 16",
    );
    check(
        "a",
        "telegram",
        "token = '1:x'\nmode = 'webhook'",
        "webhook_secrets: name one",
    );
    check(
        "a",
        "telegram",
        &bot.replace("webhook'", "polling'"),
        "webhook_secrets: nothing is pushed",
    );
    check(
        "a",
        "telegram",
        &bot.replace("'webhook'", "'push'"),
        "unknown variant `push`",
    );
    check("a", "webhook", "", "accounts.a: missing field `secrets`");
    check("a", "webhook", "secrets = []", "accounts.a: secrets");
    check(
        "a",
        "webhook",
        "secrets = ['whsec_MDEy']",
        "accounts.a: secrets: a webhook secret has 24 to 64",
    );
    check("a", "webhook", "secret = 'MDEy'", "unknown field `secret`");
    check(
        "a",
        "webhook",
        &format!("{good}\ndeliver_url = 'http://10.0.0.1/'"),
        "deliver_url: 10.0.0.1 is a private",
    );
    check(
        "a",
        "webhook",
        &format!("{good}\ndeliver_url = 'ftp://example.com/'"),
        "deliver_url: ftp",
    );
    let twice = AccountSettings {
        name: "a".to_owned(),
        channel: "webhook".to_owned(),
        queue: None,
        join: None,
        rest: good.parse().unwrap(),
    };
    let error = list::build(&[twice.clone(), twice], &surroundings()).err();
    assert_eq!(
        error.as_deref(),
        Some("accounts.a: there are two accounts of this name")
    );
}

#[test]
fn ids_of_samples_are_frozen() {
    let check = |channel: &str, expected: &str| {
        let sample = SAMPLES.iter().find(|sample| sample.channel == channel).unwrap();
        let events = parse(build(sample).as_ref(), &(sample.input)());
        let mut messages = events.iter().filter(|event| matches!(event.what, What::Message(_)));
        let event = messages.next().unwrap();
        let id = MessageId::received(event.realm.as_text("a"), channel, &event.external_id);
        assert_eq!(id.as_str(), expected, "{channel}");
    };
    check("chat", "msg_4qq5qhj633j3tqa3zmxjbbuzo4lg6t6mj4q55mfdikxuslsqlbkq");
    check("email", "msg_eocreazqoqdiohmj2qnrezto5vkusfxq56vifxgvk2fdhjcyo6da");
    check("instagram", "msg_nb3ekartkoknmlwgkwfi6enwmexb3di4wilkd7hxypmughqvt3ja");
    check("line", "msg_xnkpxu5e7o7xuhf4ijgthtrx5y3uauk6xwdjyqpbvv2hfr57f2ja");
    check("messenger", "msg_5lzxxifraczhrihcykbacutjzqyvsl2aypbwjeux3c3yeb4diaza");
    check("slack", "msg_fmvlnctcpl2f5m4j7ztg2f2wg6d5iymi3eqxjanyawch3dwfitgq");
    check("sms", "msg_l3nim5vyukbyr2lerrz3b7rtlbdxhhbcdcl7nrg6xtnayvisolta");
    check("telegram", "msg_qwtkhkssqqf2mfcr4lkfpqxess55uyl5a2uucivbjs6m53vqvwca");
    check("voice", "msg_gbqcwcs6l6tvbythnvk7kiyhpzdl743dextm5qhmumzqdrlhgpka");
    check("whatsapp", "msg_csv35v7riskgz7qjjnxjg7z7r42n73d2yfkvfwo2ap3jkt6mwxxa");
    check("webhook", "msg_ll3v2jgqpxnjgcvlb7vfgewr2mmoerkyfikznzkxxhvef6pmxwqq");
}
