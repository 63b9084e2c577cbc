//! Mails made to cost time, memory or trust; each row once did.

use std::time::{Duration, Instant};

use model::event::Message;
use model::inbound::What;

use super::parse::Reader;
use crate::signature::Keys;

/// Linear in an unoptimised build on a busy machine; what was not took minutes.
const LONGEST: Duration = Duration::from_secs(60);

fn message(name: &str, raw: &[u8]) -> Message {
    let reader = Reader {
        address: "support@example.org".to_owned(),
        keys: Keys::new(vec![vec![1; 32]]).unwrap(),
        trusted_authserv_ids: vec!["mail.test".to_owned()],
    };
    let begun = Instant::now();
    let parsed = reader.parse(raw).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert!(begun.elapsed() < LONGEST, "{name}: {:?}", begun.elapsed());
    match parsed.events.into_iter().next().unwrap().what {
        What::Message(message) => *message,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn what_is_much_costs_little_and_is_kept() {
    let mixed = "From: a@b.c\r\nTo: support@example.org\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
    // (text, whether there is HTML, attachments)
    let check = |name: &str, raw: &[u8], expected: (usize, bool, usize)| {
        let message = message(name, raw);
        let found = (message.text.len(), message.html.is_some(), message.attachments.len());
        assert_eq!(found, expected, "{name}");
    };
    let part = |kind: &str, body: &str| format!("--b\r\nContent-Type: {kind}\r\n\r\n{body}\r\n");
    // Each HTML part is sanitised in the square of its depth.
    let deep = part("text/html", &("<div>".repeat(250) + "y")).repeat(900);
    check("many deep parts", format!("{mixed}{deep}").as_bytes(), (99, false, 900));
    // Text that is not shown need not be decoded.
    let flowed = part("text/plain; format=flowed; delsp=yes", &" \n".repeat(8 << 20));
    check("flowed blanks", format!("{mixed}{flowed}").as_bytes(), (0, false, 1));
    let long = part("text/plain", &"x".repeat(300 * 1024)).repeat(50);
    check(
        "long texts",
        format!("{mixed}{long}").as_bytes(),
        (256 * 1024, false, 50),
    );
    // Guessing a charset is slow.
    let mut raw = mixed.as_bytes().to_vec();
    for _ in 0..300 {
        raw.extend_from_slice(b"--b\r\nContent-Disposition: attachment; filename=");
        raw.extend([0xfc; 15_000]);
        raw.extend_from_slice(b"\r\n\r\nx\r\n");
    }
    check("undeclared names", &raw, (0, false, 300));
    let report = format!("{mixed}{}", part("message/delivery-status", &"\n".repeat(16 << 20)));
    let report = format!("Return-Path: <>\r\n{}", report.replace("mixed;", "report;"));
    check("an empty report", report.as_bytes(), (0, false, 1));
}

#[test]
fn no_flood_of_addresses_or_ids_comes_through() {
    let check = |name: &str, header: String, recipients: usize, quoted: usize| {
        let raw = format!("From: a@b.c\r\n{header}\r\n\r\nhello");
        let message = message(name, raw.as_bytes());
        let found = (message.recipients.len(), message.evidence.quoted_ids.len());
        assert_eq!(found, (recipients, quoted), "{name}");
        assert!(!message.sender.verified, "{name}");
    };
    let many = |piece: &str| piece.repeat(500_000 / piece.len());
    check("one To", format!("To: {}", many("a@b.c,")), 200, 0);
    check("many To", "To: a@b.c\r\n".repeat(9_000) + "X: y", 200, 0);
    check("a group", format!("To: g: {};", many("a@b.c,")), 200, 0);
    check("nothing but brackets", format!("To: {}", many("<")), 0, 0);
    check("nothing but comments", format!("To: {}", many("(")), 0, 0);
    check("nothing but groups", format!("To: {}", many("a:")), 0, 0);
    check("one id", format!("References: {}", many("<a@b> ")), 0, 1);
    let ids: String = (0..90_000).map(|number| format!("<{number}@b> ")).collect();
    check("many ids", format!("References: {ids}"), 0, 50);
    check("brackets of ids", format!("References: {}", many("<")), 0, 0);
    let word = many("=?utf-8?q?a?= ");
    check("words", format!("Subject: {word}\r\nTo: {word}<a@b.c>"), 0, 0);
    let results = many("mail.test; dmarc=pass header.from=b.c;");
    check("results", format!("Authentication-Results: {results}"), 0, 0);
    let indices: String = (0..1_600).map(|number| format!("name*{}*=%41;", number * 40)).collect();
    check("continuations", format!("Content-Type: text/plain; {indices}"), 0, 0);
}
