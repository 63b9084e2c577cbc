//! Who is one person: by evidence, and by nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{DAY_MS, Desk, from, ticket_of};
use crate::contact::merge::Undone;
use crate::contact::{Identity, Party, Proof};
use crate::context::Changes;
use crate::event::{Automatic, Event, Message};
use crate::evidence::{Evidence, Opened};
use crate::id::{ContactId, ConversationId, MessageId};

/// A verified identity, or with `?` at its end one that is only claimed.
fn party(text: &str) -> Party {
    let (scheme, address) = text.split_once(':').unwrap();
    let claimed = address.strip_suffix('?');
    Party {
        scheme: scheme.to_owned(),
        address: claimed.unwrap_or(address).to_owned(),
        name: None,
        verified: claimed.is_none(),
    }
}

/// A message of the first of these, which brings the others.
fn of(parties: &str) -> Message {
    let mut parties = parties.split(' ').map(party);
    Message {
        sender: parties.next().unwrap(),
        identities: parties.collect(),
        recipients: Vec::new(),
        ..from("", true)
    }
}

impl Desk {
    /// Messages from these, at the account that joins open tickets.
    fn hear(&mut self, all: &[&str]) -> Vec<Changes> {
        let first = self.context.known_messages.len();
        let mut heard = Vec::new();
        for (n, parties) in all.iter().enumerate() {
            let event = self.event("bot", &format!("{}", first + n), of(parties));
            heard.push(self.receive(&event));
        }
        heard
    }

    /// Verified identities by person, each person as a sorted line.
    fn persons(&self) -> Vec<String> {
        let mut persons: BTreeMap<&ContactId, BTreeSet<String>> = BTreeMap::new();
        for (identity, contact) in &self.context.contacts {
            let mark = if identity.verified { "" } else { "?" };
            let text = format!("{}:{}{mark}", identity.scheme, identity.address);
            let head = self.context.circles.head_of(contact);
            persons.entry(head).or_default().insert(text);
        }
        let line = |person: BTreeSet<String>| person.into_iter().collect::<Vec<_>>().join(" ");
        let mut lines: Vec<String> = persons.into_values().map(line).collect();
        lines.sort();
        lines
    }

    /// An agent parts whatever is merged.
    fn part_all(&mut self) {
        let ids: Vec<_> = self.context.circles.merges.keys().cloned().collect();
        for id in ids {
            let undone = Undone {
                at: self.now,
                person: "agnes".to_owned(),
                reason: None,
            };
            let changes = self.context.circles.part(&id, undone).unwrap();
            self.context.absorb(changes);
        }
    }
}

#[test]
fn contacts_join_by_evidence_only() {
    let check = |messages: &[&str], expected: &[&str]| {
        let mut desk = Desk::new(json!([]));
        desk.hear(messages);
        assert_eq!(desk.persons(), expected, "{messages:?}");
    };
    // The same verified address or number.
    check(&["email:a", "email:a"], &["email:a"]);
    check(&["phone:+1", "phone:+1"], &["phone:+1"]);
    check(&["email:a", "phone:a"], &["email:a", "phone:a"]);
    check(&["email:a", "email:a?"], &["email:a", "email:a?"]);
    // A channel vouches for a second identity.
    for scheme in ["email", "phone", "user"] {
        let (other, both) = (format!("{scheme}:x"), format!("s:1 {scheme}:x"));
        let mut together = ["s:1".to_owned(), other.clone()];
        together.sort();
        let together = together.join(" ");
        check(&[&both], &[&together]);
        check(&[&other, &both], &[&together]);
        check(&[&both, &other], &[&together]);
        check(&["s:1", &other, &both], &[&together]);
        check(&[&other, "s:1", &both, &both], &[&together]);
        // Claimed, it joins nothing.
        let mut apart = ["s:1".to_owned(), other.clone()];
        apart.sort();
        check(&[&other, &format!("s:1 {scheme}:x?")], &[&apart[0], &apart[1]]);
        check(&[&format!("s:1 {scheme}:x?")], &["s:1"]);
        check(
            &[&format!("s:1 {scheme}:x?"), &format!("s:2 {scheme}:x?")],
            &["s:1", "s:2"],
        );
    }
    // A second device of the same user; many hands.
    check(&["s:1 user:u", "s:2 user:u"], &["s:1 s:2 user:u"]);
    check(&["s:1", "s:2", "s:1 user:u", "s:2 user:u"], &["s:1 s:2 user:u"]);
    check(&["email:a", "phone:1", "s:1 email:a phone:1"], &["email:a phone:1 s:1"]);
    // Two addresses may be one person's, two users of a site are two people.
    check(&["s:1 email:a", "s:1 email:b"], &["email:a email:b s:1"]);
    check(&["s:1 user:u", "s:1 user:v"], &["s:1 user:u", "user:v"]);
    check(&["user:v", "s:1 user:u", "s:1 user:v"], &["s:1 user:u", "user:v"]);
    // An unverified sender is a contact of its own; one that is vouched for is not.
    check(&["email:a", "s:1?"], &["email:a", "s:1?"]);
    check(&["user:u", "s:1? user:u"], &["user:u"]);
    check(&["s:1? user:u", "s:1?"], &["s:1?", "user:u"]);
}

#[test]
fn the_order_makes_no_difference() {
    let messages = [
        "s:1 user:u",
        "s:2 user:u email:a",
        "email:a",
        "phone:1",
        "s:3 phone:1 email:b",
        "s:2 email:b",
        "s:9 email:b?",
    ];
    let expected = ["email:a email:b phone:1 s:1 s:2 s:3 user:u", "s:9"];
    for turn in 0..messages.len() {
        for reversed in [false, true] {
            let mut order = messages.to_vec();
            order.rotate_left(turn);
            if reversed {
                order.reverse();
            }
            let mut desk = Desk::new(json!([]));
            desk.hear(&order);
            assert_eq!(desk.persons(), expected, "{order:?}");
        }
    }
}

#[test]
fn the_same_events_give_the_same_contacts() {
    let messages = ["s:1", "email:a", "s:1 email:a", "s:2 email:a phone:1"];
    let told = || {
        let mut desk = Desk::new(json!([]));
        let changes = desk.hear(&messages);
        (changes, desk.persons())
    };
    assert_eq!(told(), told());
}

#[test]
fn what_a_person_has_parted_stays_parted() {
    let mut desk = Desk::new(json!([]));
    desk.hear(&["s:1", "email:a", "s:1 email:a"]);
    assert_eq!(desk.persons(), ["email:a s:1"]);
    desk.part_all();
    assert_eq!(desk.persons(), ["email:a", "s:1"]);
    let again = desk.hear(&["s:1 email:a"]).remove(0);
    assert_eq!(desk.persons(), ["email:a", "s:1"]);
    let lines = &again.traces[0].threading;
    assert!(lines.iter().any(|line| line.contains("parted")), "{lines:?}");
    // Each goes on as itself.
    let (one, other) = (desk.hear(&["s:1"]).remove(0), desk.hear(&["email:a"]).remove(0));
    assert_ne!(one.messages[0].author, other.messages[0].author);
}

#[test]
fn what_a_channel_vouches_for_can_be_parted_too() {
    let parted: &[&str] = &["email:a", "s:1", "user:u"];
    let check = |messages: &[&str]| {
        let mut desk = Desk::new(json!([]));
        let heard = desk.hear(messages).pop().unwrap();
        assert_eq!(desk.persons(), ["email:a s:1 user:u"], "{messages:?}");
        desk.part_all();
        assert_eq!(desk.persons(), parted, "{messages:?}");
        // The sender stays the author, and nothing merges them again.
        let again = desk.hear(&["s:1 user:u email:a"]).remove(0);
        assert_eq!(desk.persons(), parted, "{messages:?}");
        assert_eq!(again.messages[0].author, heard.messages[0].author, "{messages:?}");
    };
    check(&["s:1 user:u email:a"]);
    check(&["s:1", "s:1 user:u email:a"]);
    check(&["email:a", "s:1 email:a", "s:1 user:u"]);
    check(&["user:u", "email:a", "s:1", "s:1 user:u email:a"]);
}

#[test]
fn a_link_that_was_opened_shows_as_the_evidence() {
    let question = MessageId::authored("agnes", "k1");
    for before in [&["s:1"][..], &["s:1", "email:a"]] {
        let mut desk = Desk::new(json!([]));
        desk.hear(before);
        let mut message = of("s:1 email:a");
        message.evidence.opened = Some(Opened::Message(question.clone()));
        let changes = desk.receive(&desk.event("bot", "opened", message));
        assert_eq!(desk.persons(), ["email:a s:1"], "{before:?}");
        let proofs: Vec<&Proof> = changes.merges.values().map(|merge| &merge.row.proof).collect();
        let opened = |proof: &&Proof| {
            matches!(proof, Proof::Opened { question: asked, identity, .. }
            if *asked == question && identity.address == "a")
        };
        assert!(proofs.len() == 1 && proofs.iter().all(opened), "{proofs:?}");
        desk.part_all();
        assert_eq!(desk.persons(), ["email:a", "s:1"], "{before:?}");
    }
}

#[test]
fn who_opens_the_link_of_a_conversation_is_its_contact() {
    let check = |messages: &[&str], opener: &str, expected: &[&str], line: &str| {
        let mut desk = Desk::new(json!([]));
        let begun = desk.hear(messages).remove(0);
        let mut message = of(opener);
        let id = begun.messages[0].conversation_id.clone();
        message.evidence.opened = Some(Opened::Conversation(id));
        message.automatic = Some(Automatic::Command);
        let changes = desk.receive(&desk.event("bot", "opened", message));
        assert_eq!(desk.persons(), expected, "{messages:?} {opener}");
        let lines = &changes.traces[0].threading;
        let has_line = lines.iter().any(|known| known.contains(line));
        assert!(has_line, "{messages:?} {opener}: {lines:?}");
    };
    let joined = "one person, by a link for the other's conversation";
    check(&["s:1"], "t:5", &["s:1 t:5"], joined);
    check(&["s:1", "t:5"], "t:5", &["s:1 t:5"], joined);
    check(&["s:1 email:a"], "t:5 phone:+1", &["email:a phone:+1 s:1 t:5"], joined);
    // Who is somebody else there has got the link from its contact.
    let stranger = "its contact is somebody else here";
    check(&["s:1 t:5"], "t:6", &["s:1 t:5", "t:6"], stranger);
    check(
        &["s:1 t:5", "t:6 email:a"],
        "t:6",
        &["email:a t:6", "s:1 t:5"],
        stranger,
    );
    // So has who is another user of the site.
    let other_user = "the two are different users of the same site";
    check(
        &["s:1 user:u", "t:5 user:v"],
        "t:5",
        &["s:1 user:u", "t:5 user:v"],
        other_user,
    );
    // A person may have many browsers.
    check(
        &["visitor:1", "visitor:2 t:5"],
        "t:5",
        &["t:5 visitor:1 visitor:2"],
        joined,
    );
    // An unverified contact may be anybody.
    check(&["s:1?"], "t:5", &["s:1?", "t:5"], "nothing proves who its contact is");
    // Parted they stay, however often it is opened, and by whom.
    let mut desk = Desk::new(json!([]));
    let begun = desk.hear(&["s:1"]).remove(0);
    for (n, opener, expected) in [
        ("first", "t:5", (1, 1)),
        ("second", "t:5", (0, 2)),
        ("third", "t:6", (0, 3)),
    ] {
        let mut message = of(opener);
        message.evidence.opened = Some(Opened::Conversation(begun.messages[0].conversation_id.clone()));
        let event = desk.event("bot", n, message);
        let opened = desk.receive(&event);
        assert_eq!((opened.merges.len(), desk.persons().len()), expected, "{n}");
        if n == "first" {
            desk.part_all();
        }
    }
    let unknown = ConversationId::begun_by(&MessageId::authored("agnes", "k1"));
    let mut message = of("t:5");
    message.evidence.opened = Some(Opened::Conversation(unknown));
    let event = desk.event("bot", "unknown", message);
    let lines = &desk.receive(&event).traces[0].threading;
    assert!(
        lines.iter().any(|line| line.contains("no such conversation")),
        "{lines:?}"
    );
}

#[test]
fn a_person_has_one_open_ticket() {
    let mut desk = Desk::new(json!([]));
    desk.receive(&desk.event("support", "other queue", of("s:1")));
    let first = desk.hear(&["email:a"]).remove(0);
    let (ticket_id, _) = ticket_of(&first).unwrap();
    // The message that proves it joins already, and so does what comes after.
    for parties in ["s:1 email:a", "s:1", "s:2 email:a"] {
        let joined = desk.hear(&[parties]).remove(0);
        assert_eq!(ticket_of(&joined).unwrap().0, ticket_id, "{parties}");
        assert_eq!(
            joined.tickets[ticket_id].row.contact_id,
            ContactId::met_by(&first.messages[0].id)
        );
    }
    // Who only claims the address does not.
    let stranger = desk.hear(&["s:3 email:a?"]).remove(0);
    assert_ne!(ticket_of(&stranger).unwrap().0, ticket_id);
    desk.part_all();
    let apart = desk.hear(&["s:1"]).remove(0);
    assert_ne!(ticket_of(&apart).unwrap().0, ticket_id, "parted, it is another's");
    desk.now = desk.now.plus_ms(8 * DAY_MS);
    let late = desk.hear(&["email:a"]).remove(0);
    assert_ne!(ticket_of(&late).unwrap().0, ticket_id);
}

/// A chat whose visitor claims `anna@example.com`, and our mail to that address.
struct Mailed {
    desk: Desk,
    chat: Changes,
    question: MessageId,
}

impl Mailed {
    fn new(visitor: &str, sent_to: &str) -> Self {
        let mut desk = Desk::new(json!([]));
        let chat = desk.hear(&[visitor]).remove(0);
        // As the desk begins a conversation: at a mail account, for the same contact.
        let mut mail = desk.receive(&desk.event("support", "m", of("s:1")));
        let question = MessageId::authored("agnes", "k1");
        for replacing in mail.conversations.values_mut() {
            replacing.row.participants = BTreeSet::from([Identity {
                scheme: "email".to_owned(),
                address: "anna@example.com".to_owned(),
                verified: false,
            }]);
        }
        desk.context.absorb(mail.clone());
        desk.we_sent(&mail, &question, "<q@desk.example>");
        desk.context.sent_to.insert(question.clone(), sent_to.to_owned());
        Self { desk, chat, question }
    }

    fn answer(&self, sender: &str, change: impl Fn(&mut Message)) -> Event {
        let mut message = of(sender);
        message.evidence.signed_messages = vec![self.question.clone()];
        change(&mut message);
        self.desk.event("support", "answer", message)
    }
}

#[test]
fn an_answer_to_a_claimed_address_verifies_it() {
    const ANNA: &str = "anna@example.com";
    let check = |owner: Option<&str>,
                 (visitor, sent_to): (&str, &str),
                 (sender, change): (&str, fn(&mut Message)),
                 expected: &[&str]| {
        let mut told = Mailed::new(visitor, sent_to);
        if let Some(owner) = owner {
            told.desk.receive(&told.desk.event("support", "owner", of(owner)));
        }
        let answer = told.desk.receive(&told.answer(sender, change));
        assert_eq!(told.desk.persons(), expected, "{visitor}, sent to {sent_to}, {sender}");
        let is_proven = expected[0].contains(' ');
        let author = ContactId::parse(&answer.messages[0].author).unwrap();
        let visitor = ContactId::parse(&told.chat.messages[0].author).unwrap();
        assert_eq!(told.desk.context.circles.are_one(&author, &visitor), is_proven);
    };
    let same: fn(&mut Message) = |_| {};
    let claims = "s:1 email:Anna@example.com?";
    let one = ["email:anna@example.com s:1"];
    // Whoever has our mail to that address reads it, whatever the From is worth.
    check(None, (claims, ANNA), ("email:anna@example.com", same), &one);
    check(None, (claims, ANNA), ("email:ANNA@example.com?", same), &one);
    // Its owner is known already: both are one.
    check(
        Some("email:anna@example.com"),
        (claims, ANNA),
        ("email:anna@example.com", same),
        &one,
    );
    check(
        Some("email:anna@example.com"),
        (claims, ANNA),
        ("email:anna@example.com?", same),
        &one,
    );
    // Nobody has claimed it, or it went to others too.
    let apart = ["email:anna@example.com", "s:1"];
    check(None, ("s:1", ANNA), ("email:anna@example.com", same), &apart);
    check(
        None,
        (claims, "ben@example.com"),
        ("email:anna@example.com", same),
        &apart,
    );
    // No token, a machine, another address.
    let no_token: fn(&mut Message) = |message| message.evidence = Evidence::default();
    check(None, (claims, ANNA), ("email:anna@example.com", no_token), &apart);
    let machine: fn(&mut Message) = |message| message.automatic = Some(Automatic::Reply);
    check(None, (claims, ANNA), ("email:anna@example.com", machine), &apart);
    check(
        None,
        (claims, ANNA),
        ("email:ben@example.com", same),
        &["email:ben@example.com", "s:1"],
    );
    // An unverified visitor may be anybody.
    let marked = ["email:anna@example.com", "s:1", "s:1?"];
    check(
        None,
        ("s:1? email:anna@example.com?", ANNA),
        ("email:anna@example.com", same),
        &marked,
    );
}

#[test]
fn claims_are_kept_and_prove_nothing() {
    let mut desk = Desk::new(json!([]));
    let claimed = |changes: &Changes| {
        let claims = changes.claims.iter();
        claims
            .map(|claim| format!("{}:{}", claim.scheme, claim.address))
            .collect::<Vec<_>>()
    };
    let changes = desk.hear(&["s:1 email:A@x? phone:+1? user:u"]).remove(0);
    assert_eq!(claimed(&changes), ["email:a@x", "phone:+1"]);
    assert_eq!((changes.merges.len(), changes.identities.len()), (1, 2));
    assert!(matches!(changes.identities[0].proof, Some(Proof::Sender { .. })));
    assert!(matches!(changes.identities[1].proof, Some(Proof::Vouched { .. })));
    let long = format!("s:1 email:{}?", "a".repeat(321));
    let many = (0..20).map(|n| format!("email:{n}?")).collect::<Vec<_>>().join(" ");
    assert_eq!(claimed(&desk.hear(&[&long]).remove(0)).len(), 0);
    assert_eq!(claimed(&desk.hear(&["s:1 email:?"]).remove(0)).len(), 0);
    assert_eq!(claimed(&desk.hear(&[&format!("s:1 {many}")]).remove(0)).len(), 5);
    // The address of an unverified sender is his own, not a claim.
    assert_eq!(claimed(&desk.hear(&["email:b?"]).remove(0)).len(), 0);
    assert_eq!(claimed(&desk.hear(&["email:b? user:w"]).remove(0)), ["email:b"]);
}
