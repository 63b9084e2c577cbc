//! Raw frames, after groups 1 to 7 and 10 of the Autobahn test suite's list: framing,
//! pings, reserved bits, opcodes, fragmentation, UTF-8, close handshakes, limits. Each
//! row is written to a socket of its own, octet by octet as it stands here, and has
//! the right answer or close code.
//!
//! The suite expects an echo; here the echo of a text is the `pong` to a `ping`, whose
//! `id` comes back, and a binary message is refused with 1003.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use serde_json::Value;
use tests::harness::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);
/// Largest message of the protocol.
const MAX: usize = 64 * 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// What refuses a close frame without a code is answered without one.
const NO_CODE: u16 = 1005;

/// What is sent, and what must come back.
struct Row {
    name: String,
    bytes: Vec<u8>,
    /// Octets of each write; 0: all at once.
    chop: usize,
    answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// A `pong` frame of the chat with this id.
    Echo(String),
    /// An `error` frame of the chat.
    Malformed,
    /// A WebSocket pong.
    Pong(Vec<u8>),
    /// The close frame, and the end. Without it the socket must still be alive.
    Close(u16),
}

pub async fn run(world: &World) -> Result<()> {
    let rows = rows();
    ensure!(rows.len() >= 300, "only {} rows", rows.len());
    let address = world.public[0].trim_start_matches("http://").to_owned();
    handshakes(&address).await?;
    let mut failures = Vec::new();
    let mut running = JoinSet::new();
    let mut left = rows.into_iter();
    loop {
        while running.len() < 16
            && let Some(row) = left.next()
        {
            let address = address.clone();
            running.spawn(async move {
                let outcome = tokio::time::timeout(PATIENCE, check(&address, &row)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no end")));
                outcome.with_context(|| row.name.clone())
            });
        }
        match running.join_next().await {
            Some(outcome) => failures.extend(outcome?.err().map(|error| format!("{error:#}"))),
            None => break,
        }
    }
    ensure!(failures.is_empty(), "{} rows: {}", failures.len(), failures.join("\n"));
    Ok(())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    framing(&mut rows);
    pings(&mut rows);
    reserved_bits(&mut rows);
    opcodes(&mut rows);
    fragmentation(&mut rows);
    utf8(&mut rows);
    closes(&mut rows);
    limits(&mut rows);
    rows
}

/// Group 1.
fn framing(rows: &mut Vec<Row>) {
    for size in [30, 125, 126, 127, 128, 1_000, 65_535, MAX] {
        for chop in [0, 997] {
            rows.push(
                row(
                    &format!("1.1 text of {size} chopped {chop}"),
                    text(&padded(size)),
                    &[echo("x")],
                )
                .chopped(chop),
            );
        }
    }
    for size in [30, 126, 128] {
        rows.push(
            row(
                &format!("1.1 text of {size} octet by octet"),
                text(&padded(size)),
                &[echo("x")],
            )
            .chopped(1),
        );
    }
    rows.push(row("1.1 empty text", text(b""), &[Answer::Malformed]));
    rows.push(row("1.1 no JSON", text(b"Hello"), &[Answer::Malformed]));
    for size in [0, 1, 125, 126, 127, 128, 65_535, MAX] {
        for chop in [0, 997] {
            let bytes = frame(BINARY, &vec![0xfe; size]);
            rows.push(
                row(
                    &format!("1.2 binary of {size} chopped {chop}"),
                    bytes,
                    &[Answer::Close(1003)],
                )
                .chopped(chop),
            );
        }
    }
    rows.push(row(
        "1.1 two texts in one write",
        [ping("a"), ping("b")].concat(),
        &[echo("a"), echo("b")],
    ));
    for (name, opcode) in [("text", TEXT), ("binary", BINARY), ("ping", PING), ("close", CLOSE)] {
        let bytes = Frame::new(opcode, b"{}").unmasked();
        rows.push(row(&format!("1 unmasked {name}"), bytes, &[Answer::Close(1002)]));
    }
}

/// Group 2.
fn pings(rows: &mut Vec<Row>) {
    for payload in [
        &b""[..],
        b"Hello, world!",
        &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff],
        &[0xfe; 125],
    ] {
        for chop in [0, 1] {
            let name = format!("2 ping of {} chopped {chop}", payload.len());
            rows.push(row(&name, frame(PING, payload), &[Answer::Pong(payload.to_vec())]).chopped(chop));
        }
    }
    rows.push(row(
        "2.5 ping of 126",
        frame(PING, &[0xfe; 126]),
        &[Answer::Close(1002)],
    ));
    rows.push(
        row(
            "2.5 ping of 126 chopped",
            frame(PING, &[0xfe; 126]),
            &[Answer::Close(1002)],
        )
        .chopped(1),
    );
    rows.push(row(
        "2.5 ping of 65536",
        frame(PING, &vec![0xfe; 65_536]),
        &[Answer::Close(1002)],
    ));
    rows.push(row("2.7 unsolicited pong", frame(PONG, b""), &[]));
    rows.push(row(
        "2.8 unsolicited pong with payload",
        frame(PONG, b"unsolicited"),
        &[],
    ));
    rows.push(row("2 pong of 126", frame(PONG, &[0xfe; 126]), &[Answer::Close(1002)]));
    let pong_ping = [frame(PONG, b"unsolicited"), frame(PING, b"ping")].concat();
    rows.push(row("2.9 pong, then ping", pong_ping, &[Answer::Pong(b"ping".to_vec())]));
    for chop in [0, 1] {
        let many: Vec<u8> = (0..10)
            .flat_map(|number| frame(PING, format!("ping {number}").as_bytes()))
            .collect();
        let answers: Vec<Answer> = (0..10)
            .map(|number| Answer::Pong(format!("ping {number}").into_bytes()))
            .collect();
        rows.push(row(&format!("2.10 ten pings chopped {chop}"), many, &answers).chopped(chop));
    }
}

/// Group 3.
fn reserved_bits(rows: &mut Vec<Row>) {
    for reserved in 1..8 {
        for (name, opcode, payload) in [
            ("text", TEXT, &b"{}"[..]),
            ("empty text", TEXT, b""),
            ("binary", BINARY, b"x"),
            ("ping", PING, b"x"),
            ("pong", PONG, b"x"),
            ("close", CLOSE, b""),
        ] {
            let bytes = Frame::new(opcode, payload).reserved(reserved).bytes();
            rows.push(row(
                &format!("3 {name} with RSV {reserved}"),
                bytes.clone(),
                &[Answer::Close(1002)],
            ));
            if opcode == TEXT {
                let after = [ping("a"), bytes].concat();
                let answers = [echo("a"), Answer::Close(1002)];
                for chop in [0, 1] {
                    let name = format!("3 {name} with RSV {reserved} after a text chopped {chop}");
                    rows.push(row(&name, after.clone(), &answers).chopped(chop));
                }
            }
        }
    }
}

/// Group 4.
fn opcodes(rows: &mut Vec<Row>) {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        rows.push(row(
            &format!("4 opcode {opcode}"),
            frame(opcode, b""),
            &[Answer::Close(1002)],
        ));
        rows.push(row(
            &format!("4 opcode {opcode} with payload"),
            frame(opcode, b"reserved"),
            &[Answer::Close(1002)],
        ));
        let after = [ping("a"), frame(opcode, b"reserved"), ping("b")].concat();
        for chop in [0, 1] {
            let name = format!("4 opcode {opcode} between texts chopped {chop}");
            rows.push(row(&name, after.clone(), &[echo("a"), Answer::Close(1002)]).chopped(chop));
        }
    }
}

/// Group 5, and 10 of a message in many fragments.
fn fragmentation(rows: &mut Vec<Row>) {
    let whole = br#"{"type":"ping","id":"fragments"}"#;
    let (first, last) = whole.split_at(9);
    let begin = Frame::new(TEXT, first).more().bytes();
    let end = frame(CONTINUATION, last);
    let echoed = echo("fragments");
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        let fragment = Frame::new(opcode, b"frag").more().bytes();
        rows.push(row(
            &format!("5.1 fragmented {name}"),
            fragment.clone(),
            &[Answer::Close(1002)],
        ));
        let both = [fragment, frame(CONTINUATION, b"ment")].concat();
        rows.push(row(
            &format!("5.2 {name} in two fragments"),
            both,
            &[Answer::Close(1002)],
        ));
    }
    for chop in [0, 1] {
        let check = |name: &str, parts: &[&[u8]], answers: &[Answer]| {
            row(&format!("5 {name} chopped {chop}"), parts.concat(), answers).chopped(chop)
        };
        let pinged = frame(PING, b"between");
        let ponged = Answer::Pong(b"between".to_vec());
        let empty_more = Frame::new(CONTINUATION, b"").more().bytes();
        rows.push(check("two fragments", &[&begin, &end], std::slice::from_ref(&echoed)));
        rows.push(check(
            "ping between fragments",
            &[&begin, &pinged, &end],
            &[ponged.clone(), echoed.clone()],
        ));
        rows.push(check(
            "pong between fragments",
            &[&begin, &frame(PONG, b"x"), &end],
            std::slice::from_ref(&echoed),
        ));
        rows.push(check(
            "an empty fragment",
            &[&begin, &empty_more, &end],
            std::slice::from_ref(&echoed),
        ));
        rows.push(check(
            "three empty fragments",
            &[&begin, &empty_more, &empty_more, &empty_more, &end],
            std::slice::from_ref(&echoed),
        ));
        rows.push(check(
            "pings between all",
            &[&begin, &pinged, &empty_more, &pinged, &end],
            &[ponged.clone(), ponged.clone(), echoed.clone()],
        ));
        rows.push(check(
            "an end without a beginning",
            &[&frame(CONTINUATION, b"x")],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "a middle without a beginning",
            &[&Frame::new(CONTINUATION, b"x").more().bytes()],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "an end after an end",
            &[&begin, &end, &end],
            &[echoed.clone(), Answer::Close(1002)],
        ));
        rows.push(check(
            "an end after a whole text",
            &[&ping("a"), &end],
            &[echo("a"), Answer::Close(1002)],
        ));
        rows.push(check(
            "a text within a text",
            &[&begin, &ping("a")],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "a binary within a text",
            &[&begin, &frame(BINARY, b"x")],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "a beginning within a text",
            &[&begin, &begin],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "a reserved bit in the end",
            &[&begin, &Frame::new(CONTINUATION, last).reserved(4).bytes()],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "an unmasked end",
            &[&begin, &Frame::new(CONTINUATION, last).unmasked()],
            &[Answer::Close(1002)],
        ));
        rows.push(check(
            "a close between fragments",
            &[&begin, &close(1000, b"")],
            &[Answer::Close(1000)],
        ));
        rows.push(check(
            "two binary fragments",
            &[&Frame::new(BINARY, b"x").more().bytes(), &end],
            &[Answer::Close(1003)],
        ));
        rows.push(check(
            "octets as fragments",
            &[&fragments(whole, 1)],
            std::slice::from_ref(&echoed),
        ));
        rows.push(check(
            "two texts in fragments",
            &[&fragments(whole, 5), &fragments(whole, 7)],
            &[echoed.clone(), echoed.clone()],
        ));
    }
    for size in [1_300, 10_000, 65_535] {
        rows.push(row(
            &format!("10.1 64 KiB in fragments of {size}"),
            fragments(&padded(MAX), size),
            &[echo("x")],
        ));
    }
}

/// Group 6.
fn utf8(rows: &mut Vec<Row>) {
    let valid: [&[u8]; 26] = [
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        "κόσμε".as_bytes(),
        b"\x20",
        b"\x7e",
        b"\x7f",
        b"\xc2\x80",
        b"\xdf\xbf",
        b"\xe0\xa0\x80",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbe",
        b"\xef\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f\xbf\xbe",
        b"\xf0\x9f\xbf\xbf",
        b"\xf0\xaf\xbf\xbe",
        b"\xf0\xbf\xbf\xbf",
        b"\xf1\x8f\xbf\xbe",
        b"\xf2\xbf\xbf\xbf",
        b"\xf3\xbf\xbf\xbe",
        b"\xf4\x8f\xbf\xbe",
        b"\xf4\x8f\xbf\xbf",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
    ];
    for octets in valid {
        let shown = String::from_utf8_lossy(octets).into_owned();
        let message = ping_bytes(octets);
        rows.push(row(&format!("6 valid {octets:02x?}"), text(&message), &[echo(&shown)]));
        rows.push(row(
            &format!("6 valid {octets:02x?} octets as fragments"),
            fragments(&message, 1),
            &[echo(&shown)],
        ));
    }
    let invalid: [&[u8]; 41] = [
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\x80\xbf\x80",
        b"\x80\xbf\x80\xbf\x80\xbf",
        b"\xc0\x20",
        b"\xc2\x20",
        b"\xdf\x20",
        b"\xe0\x20",
        b"\xef\x20",
        b"\xf0\x20",
        b"\xf4\x20",
        b"\xf8\x20",
        b"\xfc\x20",
        b"\xe0\x80\x20",
        b"\xe1\x80",
        b"\xf0\x80\x80\x20",
        b"\xf1\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xfc\x80\x80\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
    ];
    for octets in invalid {
        let message = ping_bytes(octets);
        rows.push(row(
            &format!("6 invalid {octets:02x?}"),
            text(&message),
            &[Answer::Close(1007)],
        ));
        rows.push(row(
            &format!("6 invalid {octets:02x?} octets as fragments"),
            fragments(&message, 1),
            &[Answer::Close(1007)],
        ));
    }
    let cut = text(b"{\"type\":\"ping\",\"id\":\"\xce");
    rows.push(row("6 cut within a character", cut, &[Answer::Close(1007)]));
    // Told before the message ends.
    let begun = Frame::new(TEXT, b"{\"type\":\"\xf4\x90").more().bytes();
    rows.push(row(
        "6.4 invalid in a message without an end",
        begun,
        &[Answer::Close(1007)],
    ));
    rows.push(row(
        "6 invalid in a ping is none",
        frame(PING, b"\xff\xfe"),
        &[Answer::Pong(b"\xff\xfe".to_vec())],
    ));
}

/// Group 7.
fn closes(rows: &mut Vec<Row>) {
    rows.push(row("7.1 close", close(1000, b""), &[Answer::Close(1000)]));
    rows.push(row("7.1 close chopped", close(1000, b"bye"), &[Answer::Close(1000)]).chopped(1));
    rows.push(row(
        "7.1 text, then close",
        [ping("a"), close(1000, b"")].concat(),
        &[echo("a"), Answer::Close(1000)],
    ));
    rows.push(row(
        "7.1 two closes",
        [close(1000, b""), close(1001, b"")].concat(),
        &[Answer::Close(1000)],
    ));
    rows.push(row(
        "7.1 a ping after a close",
        [close(1000, b""), frame(PING, b"x")].concat(),
        &[Answer::Close(1000)],
    ));
    rows.push(row(
        "7.1 a text after a close",
        [close(1000, b""), ping("a")].concat(),
        &[Answer::Close(1000)],
    ));
    rows.push(row("7.3 empty close", frame(CLOSE, b""), &[Answer::Close(NO_CODE)]));
    rows.push(row(
        "7.3 close of one octet",
        frame(CLOSE, b"a"),
        &[Answer::Close(1002)],
    ));
    rows.push(row(
        "7.3 longest reason",
        close(1000, &[b'*'; 123]),
        &[Answer::Close(1000)],
    ));
    rows.push(row(
        "7.3 too long a reason",
        close(1000, &[b'*'; 124]),
        &[Answer::Close(1002)],
    ));
    rows.push(row(
        "7.5 reason that is no UTF-8",
        close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80"),
        &[Answer::Close(1007)],
    ));
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
    ] {
        rows.push(row(
            &format!("7.7 code {code}"),
            close(code, b""),
            &[Answer::Close(code)],
        ));
        rows.push(row(
            &format!("7.7 code {code} with reason"),
            close(code, b"because"),
            &[Answer::Close(code)],
        ));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        rows.push(row(
            &format!("7.9 code {code}"),
            close(code, b""),
            &[Answer::Close(1002)],
        ));
    }
}

/// What is larger than the protocol allows, claimed or sent.
fn limits(rows: &mut Vec<Row>) {
    let too_large = &[Answer::Close(1009)];
    rows.push(row("9 text of 64 KiB and one", text(&padded(MAX + 1)), too_large));
    rows.push(row(
        "9 binary of 64 KiB and one",
        frame(BINARY, &vec![0; MAX + 1]),
        too_large,
    ));
    rows.push(row(
        "9 fragments of 64 KiB and one",
        fragments(&padded(MAX + 1), 8_192),
        too_large,
    ));
    for claimed in [MAX as u64 + 1, 1 << 20, 1 << 32, i64::MAX as u64] {
        rows.push(row(&format!("9 a claim of {claimed}"), claim(TEXT, claimed), too_large));
    }
    let endless: Vec<u8> = (0..200)
        .flat_map(|_| Frame::new(CONTINUATION, &[b' '; 1_000]).more().bytes())
        .collect();
    rows.push(row(
        "9 endless fragments",
        [Frame::new(TEXT, b"{").more().bytes(), endless].concat(),
        too_large,
    ));
    let nested = "[".repeat(60_000);
    rows.push(row(
        "9 deep JSON",
        text(format!("{{\"type\":{nested}").as_bytes()),
        &[Answer::Malformed],
    ));
}

fn row(name: &str, bytes: Vec<u8>, answers: &[Answer]) -> Row {
    Row {
        name: name.to_owned(),
        bytes,
        chop: 0,
        answers: answers.to_vec(),
    }
}

impl Row {
    fn chopped(mut self, octets: usize) -> Self {
        self.chop = octets;
        self
    }
}

fn echo(id: &str) -> Answer {
    Answer::Echo(id.to_owned())
}

/// A ping of the chat that is as long as this.
fn padded(size: usize) -> Vec<u8> {
    let (begin, end) = (r#"{"type":"ping","id":"x""#, "}");
    let padding = " ".repeat(size - begin.len() - end.len());
    format!("{begin}{padding}{end}").into_bytes()
}

fn ping_bytes(id: &[u8]) -> Vec<u8> {
    [&br#"{"type":"ping","id":""#[..], id, b"\"}"].concat()
}

fn ping(id: &str) -> Vec<u8> {
    text(&ping_bytes(id.as_bytes()))
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(TEXT, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    Frame::new(opcode, payload).bytes()
}

/// One text message in fragments of so many octets.
fn fragments(message: &[u8], size: usize) -> Vec<u8> {
    let count = message.len().div_ceil(size);
    let mut bytes = Vec::new();
    for (index, part) in message.chunks(size).enumerate() {
        let opcode = if index == 0 { TEXT } else { CONTINUATION };
        let fragment = Frame::new(opcode, part);
        bytes.extend(if index + 1 < count {
            fragment.more().bytes()
        } else {
            fragment.bytes()
        });
    }
    bytes
}

/// The head of a frame that claims to be so long, and the beginning of its payload.
fn claim(opcode: u8, size: u64) -> Vec<u8> {
    [&[0x80 | opcode, 0x80 | 127][..], &size.to_be_bytes(), &MASK, b"abc"].concat()
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client (RFC 6455, 5.2).
struct Frame<'a> {
    opcode: u8,
    payload: &'a [u8],
    is_last: bool,
    reserved: u8,
    is_masked: bool,
}

impl<'a> Frame<'a> {
    fn new(opcode: u8, payload: &'a [u8]) -> Self {
        Self {
            opcode,
            payload,
            is_last: true,
            reserved: 0,
            is_masked: true,
        }
    }

    fn more(mut self) -> Self {
        self.is_last = false;
        self
    }

    fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    fn unmasked(mut self) -> Vec<u8> {
        self.is_masked = false;
        self.bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_last) << 7 | self.reserved << 4 | self.opcode];
        let masked = u8::from(self.is_masked) << 7;
        match self.payload.len() {
            short @ 0..126 => bytes.push(masked | short as u8),
            middle @ 126..65_536 => {
                bytes.push(masked | 126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(masked | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        if self.is_masked {
            bytes.extend(MASK);
        }
        for (index, octet) in self.payload.iter().enumerate() {
            bytes.push(if self.is_masked {
                octet ^ MASK[index % 4]
            } else {
                *octet
            });
        }
        bytes
    }
}

async fn check(address: &str, row: &Row) -> Result<()> {
    let mut socket = Raw::open(address).await?;
    socket.write(&text(br#"{"type":"hello"}"#), 0).await?;
    let (opcode, hello) = socket.read().await?;
    ensure!(opcode == TEXT && hello.starts_with(br#"{"type":"hello""#), "no hello");
    // Who is closed in mid-write may see the connection end.
    let written = socket.write(&row.bytes, row.chop).await;
    for expected in &row.answers {
        let answer = socket
            .answer()
            .await
            .with_context(|| format!("instead of {expected:?}"))?;
        ensure!(answer == *expected, "{answer:?} instead of {expected:?}");
        if let Answer::Close(code) = answer {
            return socket.is_at_its_end(code).await;
        }
    }
    written?;
    socket.write(&ping("alive"), 0).await?;
    let answer = socket.answer().await?;
    ensure!(answer == echo("alive"), "{answer:?} though nothing more was asked");
    Ok(())
}

/// What is no handshake gets no socket.
async fn handshakes(address: &str) -> Result<()> {
    let good = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (name, head, expected) in [
        ("plain GET", String::new(), 400),
        ("no key", good.replace("sec-websocket-key", "x-key"), 400),
        ("no version", good.replace("sec-websocket-version", "x-version"), 400),
        ("version 12", good.replace("13", "12"), 400),
        ("no upgrade", good.replace("upgrade: websocket\r\n", ""), 400),
        ("good", good.to_owned(), 101),
    ] {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET /chat/crowd HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes())
            .await?;
        let answer = head_of(&mut stream).await?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        // 426 says the same of a version or a GET.
        ensure!(
            status == expected.to_string() || (expected == 400 && status == "426"),
            "{name}: {answer}"
        );
        if expected == 101 {
            ensure!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
            ensure!(!answer.to_lowercase().contains("sec-websocket-extensions"), "{answer}");
        }
    }
    Ok(())
}

/// A connection after its handshake.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn open(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let key = base64::engine::general_purpose::STANDARD.encode([7; 16]);
        let head = format!(
            "GET /chat/crowd HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let answer = head_of(&mut stream).await?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        Ok(Self { stream })
    }

    async fn write(&mut self, bytes: &[u8], chop: usize) -> Result<()> {
        if chop == 0 {
            self.stream.write_all(bytes).await?;
            return Ok(());
        }
        for part in bytes.chunks(chop) {
            self.stream.write_all(part).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Opcode and payload of the next frame.
    async fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        ensure!(
            head[0] & 0xf0 == 0x80 && head[1] & 0x80 == 0,
            "a frame of a server is whole and not masked"
        );
        let size = match head[1] {
            126 => usize::from(self.stream.read_u16().await?),
            127 => usize::try_from(self.stream.read_u64().await?)?,
            short => usize::from(short),
        };
        ensure!(size <= 1 << 20, "a frame of {size} octets");
        let mut payload = vec![0; size];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[0] & 0x0f, payload))
    }

    async fn answer(&mut self) -> Result<Answer> {
        let (opcode, payload) = self.read().await?;
        Ok(match opcode {
            PONG => Answer::Pong(payload),
            CLOSE if payload.is_empty() => Answer::Close(NO_CODE),
            CLOSE => Answer::Close(u16::from_be_bytes([payload[0], payload[1]])),
            TEXT => {
                let said: Value = serde_json::from_slice(&payload)?;
                match said["type"].as_str() {
                    Some("pong") => Answer::Echo(said["id"].as_str().unwrap_or_default().to_owned()),
                    Some("error") => Answer::Malformed,
                    _ => bail!("{said}"),
                }
            }
            other => bail!("opcode {other}"),
        })
    }

    /// After the close frame nothing comes but the end.
    async fn is_at_its_end(&mut self, code: u16) -> Result<()> {
        if code != NO_CODE {
            // We close as well; the other side may be gone already.
            let _ = self.write(&close(code, b""), 0).await;
        }
        let mut rest = [0; 1];
        match self.stream.read(&mut rest).await {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => bail!("something after the close frame"),
        }
    }
}

async fn head_of(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.context("no answer to the handshake")?);
    }
    Ok(String::from_utf8(head)?)
}
