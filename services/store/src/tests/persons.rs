//! Contacts that are one person: written, read through, parted again.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use model::contact::merge::{Circles, Undone};
use model::contact::{Claim, Identity, Party, Proof};
use model::context::{Changes, Context};
use model::event::{Body, Event};
use model::evidence::{Evidence, Opened};
use model::id::{ContactId, ConversationId, MergeId, MessageId};
use model::outbound::Join;

use super::given::{TOPIC, arrival, at, event, identity, inbound, joining, message_id, opened, reply, together};
use crate::Store;
use crate::apply::Outcome;
use crate::testing::{Database, on_both};
use crate::tickets::TicketFilter;

on_both!(
    merged_and_parted_is_as_before,
    who_comes_late_decides_again,
    many_merge_and_part_at_once,
    a_context_has_whole_persons,
    a_context_has_what_an_answer_proves,
    persons_are_listed_once,
    a_tickets_messages_are_in_order,
);

fn contact(number: u64) -> ContactId {
    ContactId::met_by(&message_id(number))
}

fn proof() -> Proof {
    Proof::Person {
        person: "ada".to_owned(),
        reason: None,
    }
}

fn undone() -> Undone {
    Undone {
        at: at(9),
        person: "ada".to_owned(),
        reason: Some("two of a name".to_owned()),
    }
}

fn vouched(mut event: Event, identity: &Identity) -> Event {
    if let Body::MessageReceived(message) = &mut event.body {
        message.identities = vec![Party {
            scheme: identity.scheme.clone(),
            address: identity.address.clone(),
            name: None,
            verified: true,
        }];
    }
    event
}

async fn circles(store: &Store, numbers: &[u64]) -> Circles {
    let ids: Vec<ContactId> = numbers.iter().map(|number| contact(*number)).collect();
    store.circles(&ids.iter().collect::<Vec<_>>()).await.unwrap()
}

async fn merge(store: &Store, one: u64, other: u64) -> Changes {
    let circles = circles(store, &[one, other]).await;
    let changes = circles.merge(&contact(one), &contact(other), &proof(), at(5)).unwrap();
    assert_eq!(store.commit(&changes).await.unwrap(), Outcome::Applied);
    changes
}

async fn part(store: &Store, one: u64, other: u64) {
    let circles = circles(store, &[one, other]).await;
    let id = MergeId::of(&contact(one), &contact(other));
    let changes = circles.part(&id, undone()).unwrap();
    assert_eq!(store.commit(&changes).await.unwrap(), Outcome::Applied);
}

async fn context(store: &Store, event: &Event) -> Context {
    store
        .context(Arc::new(joining(Join::Open)), TOPIC, 0, &[event])
        .await
        .unwrap()
}

async fn merged_and_parted_is_as_before(database: &Database) {
    let store = database.store().await;
    store.commit(&together((1..=3).map(arrival))).await.unwrap();
    merge(&store, 1, 2).await;
    let before = circles(&store, &[1, 2, 3]).await;
    let merged = merge(&store, 2, 3).await;
    let found = circles(&store, &[3]).await;
    assert_eq!(found.contacts.len(), 3, "one names all");
    let row = &merged.merges.values().next().unwrap().row;
    assert_eq!(found.merges.get(&row.id), Some(row));
    let ids: Vec<ContactId> = (1..=3).map(contact).collect();
    let heads = store.heads_of_contacts(ids.iter().collect()).await.unwrap();
    assert_eq!(heads.len(), 3);
    assert_eq!(heads.values().collect::<BTreeSet<_>>().len(), 1);
    part(&store, 2, 3).await;
    let after = circles(&store, &[1, 2, 3]).await;
    for id in &ids {
        assert_eq!(after.contacts[id].head, before.contacts[id].head);
        assert_eq!(after.contacts[id].identity, before.contacts[id].identity);
    }
    assert_eq!(after.merges[&row.id].undone, Some(undone()));
    assert_eq!(after.merges[&MergeId::of(&contact(1), &contact(2))].undone, None);
    // And merged once more.
    merge(&store, 3, 2).await;
    let again = circles(&store, &[1]).await;
    assert_eq!((again.contacts.len(), &again.merges[&row.id].undone), (3, &None));
}

async fn who_comes_late_decides_again(database: &Database) {
    let store = database.store().await;
    store.commit(&together((1..=4).map(arrival))).await.unwrap();
    merge(&store, 1, 2).await;
    let seen = circles(&store, &[1, 2, 3, 4]).await;
    let join = |one, other| seen.merge(&contact(one), &contact(other), &proof(), at(6)).unwrap();
    let parted = seen.part(&MergeId::of(&contact(1), &contact(2)), undone()).unwrap();
    assert_eq!(store.commit(&join(2, 3)).await.unwrap(), Outcome::Applied);
    // Each of these was decided before that and touches the same person.
    for late in [join(1, 4), join(2, 3), join(3, 4), parted] {
        assert_eq!(store.commit(&late).await.unwrap(), Outcome::Stale);
    }
}

async fn many_merge_and_part_at_once(database: &Database) {
    const CONTACTS: u64 = 6;
    let store = database.store().await;
    store.commit(&together((1..=CONTACTS).map(arrival))).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..4_u64 {
        let store = store.clone();
        writers.spawn(async move {
            for round in 0..6_u64 {
                let one = 1 + (writer + round) % CONTACTS;
                let other = 1 + (writer * 3 + round * 5 + 1) % CONTACTS;
                if one != other {
                    change(&store, one, other).await;
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    // Whoever is joined by merges that hold has the same head, and nobody else.
    let all = circles(&store, &(1..=CONTACTS).collect::<Vec<_>>()).await;
    let mut expected = Circles::default();
    expected.add(all.contacts.values().cloned().map(|mut contact| {
        contact.head = None;
        contact
    }));
    for merge in all.merges.values().filter(|merge| merge.undone.is_none()) {
        let changes = expected.merge(&merge.from, &merge.into, &proof(), at(5)).unwrap();
        expected.absorb(&changes);
    }
    for (id, contact) in &all.contacts {
        assert_eq!(contact.head, expected.contacts[id].head);
    }
}

/// Merges two, or parts them if they are merged, until it is done.
async fn change(store: &Store, one: u64, other: u64) {
    loop {
        let circles = circles(store, &[one, other]).await;
        let id = MergeId::of(&contact(one), &contact(other));
        let holds = circles.merges.get(&id).is_some_and(|merge| merge.undone.is_none());
        let changes = if holds {
            circles.part(&id, undone())
        } else {
            circles.merge(&contact(one), &contact(other), &proof(), at(5))
        };
        let changes = changes.unwrap();
        if store.commit(&changes).await.unwrap() == Outcome::Applied {
            return;
        }
    }
}

async fn a_context_has_whole_persons(database: &Database) {
    let store = database.store().await;
    store.commit(&together((1..=4).map(arrival))).await.unwrap();
    merge(&store, 1, 2).await;
    merge(&store, 3, 4).await;
    part(&store, 3, 4).await;
    let found = context(&store, &event(9, "2@example.org")).await;
    assert!(found.circles.are_one(&contact(1), &contact(2)));
    assert_eq!(found.circles.contacts.len(), 2);
    let tickets: BTreeSet<_> = found.tickets.keys().cloned().collect();
    assert_eq!(
        tickets,
        [1, 2].map(|number| opened(number).0.id).into(),
        "open tickets of the person"
    );
    assert!(found.circles.merges.is_empty(), "nothing can be proven");
    // Somebody is vouched for: now it matters who was parted, and who else is known.
    let found = context(&store, &vouched(event(9, "3@example.org"), &identity("1@example.org"))).await;
    let names: BTreeSet<String> = found.contacts.keys().map(|identity| identity.address.clone()).collect();
    assert_eq!(
        names,
        ["1@example.org", "2@example.org", "3@example.org"]
            .map(str::to_owned)
            .into()
    );
    assert!(found.circles.are_parted(&contact(3), &contact(4)));
    assert_eq!(found.circles.merges.len(), 2);
    // So it does if somebody has opened the link of a conversation.
    let mut opener = event(9, "3@example.org");
    if let Body::MessageReceived(message) = &mut opener.body {
        let conversation = ConversationId::begun_by(&message_id(2));
        message.evidence.opened = Some(Opened::Conversation(conversation));
    }
    let opened = context(&store, &opener).await;
    assert_eq!(opened.contacts, found.contacts);
    assert_eq!(opened.circles.merges, found.circles.merges);
    assert!(
        opened
            .conversations
            .contains_key(&ConversationId::begun_by(&message_id(2)))
    );
}

async fn a_context_has_what_an_answer_proves(database: &Database) {
    let store = database.store().await;
    let mut changes = arrival(1);
    let claim = |address: &str, at_second| Claim {
        contact_id: contact(1),
        scheme: "email".to_owned(),
        address: address.to_owned(),
        name: Some("Ada".to_owned()),
        message_id: message_id(1),
        claimed_at: at(at_second),
    };
    // Twice the same: the first stays.
    changes.claims = vec![
        claim("ada@example.org", 1),
        claim("ada@example.org", 2),
        claim("b@example.org", 3),
    ];
    store.commit(&changes).await.unwrap();
    changes.claims.truncate(1);
    let again = Changes {
        claims: vec![claim("b@example.org", 4)],
        ..Changes::default()
    };
    assert_eq!(store.commit(&again).await.unwrap(), Outcome::Applied);
    let claims = store.claims_of(&[&contact(1)]).await.unwrap();
    assert_eq!(claims, [claim("b@example.org", 3), claim("ada@example.org", 1)]);
    let conversation = changes.conversations.into_values().next().unwrap().row;
    store.commit(&reply(11, &conversation)).await.unwrap();
    let ours = MessageId::authored("ada", "11");

    let check = async |address: &str, quoted: &MessageId, expected: bool| {
        let mut event = event(100, address);
        if let Body::MessageReceived(message) = &mut event.body {
            message.sender.verified = false;
            message.evidence = Evidence {
                signed_messages: vec![quoted.clone()],
                ..Evidence::default()
            };
        }
        let found = context(&store, &event).await;
        let claimed = (contact(1), "email".to_owned(), address.to_lowercase());
        assert_eq!(found.claims.contains(&claimed), expected, "{address}");
        assert_eq!(found.circles.contacts.contains_key(&contact(1)), expected);
        let sent_to = found.sent_to.get(&ours).map(String::as_str);
        assert_eq!(sent_to, expected.then_some("ada@example.org"));
    };
    check("Ada@example.org", &ours, true).await;
    check("c@example.org", &ours, false).await;
    check("ada@example.org", &MessageId::authored("ada", "12"), false).await;
}

async fn persons_are_listed_once(database: &Database) {
    let store = database.store().await;
    let mut all: Vec<Changes> = (1..=4).map(arrival).collect();
    all[3].claims = vec![Claim {
        contact_id: contact(4),
        scheme: "email".to_owned(),
        address: "1@example.org".to_owned(),
        name: None,
        message_id: message_id(4),
        claimed_at: at(0),
    }];
    store.commit(&together(all)).await.unwrap();
    let merged = merge(&store, 1, 2).await;
    let head = merged.regrouped.values().next().unwrap().row.head.clone().unwrap();
    let listed = async |address: Option<&str>| {
        let mut ids = Vec::new();
        let mut before = None;
        // Page by page.
        loop {
            let page = store.list_contacts(address, before.take(), 1).await.unwrap();
            let Some(contact) = page.into_iter().next() else {
                return ids.into_iter().collect::<BTreeSet<_>>();
            };
            before = Some((contact.created_at, contact.id.clone()));
            ids.push(contact.id);
        }
    };
    let expected: BTreeSet<_> = [head.clone(), contact(3), contact(4)].into();
    assert_eq!(listed(None).await, expected);
    assert_eq!(listed(Some("2@example.org")).await, [head.clone()].into());
    assert_eq!(listed(Some("1@example.org")).await, [head, contact(4)].into());
    assert_eq!(listed(Some("nobody\0@example.org")).await, BTreeSet::new());
    // Tickets and conversations of the person, by any of its contacts.
    for number in [1, 2] {
        let filter = TicketFilter {
            contact_id: Some(contact(number).to_string()),
            ..TicketFilter::default()
        };
        assert_eq!(store.list_tickets(&filter, None, 10).await.unwrap().len(), 2);
    }
    let filter = TicketFilter {
        contact_id: Some(contact(3).to_string()),
        ..TicketFilter::default()
    };
    assert_eq!(store.list_tickets(&filter, None, 10).await.unwrap().len(), 1);
    let of_both = store.conversations_of(&[&contact(1), &contact(2)]).await.unwrap();
    assert_eq!(of_both.len(), 2);
    let known = store.identities_of(&[&contact(1), &contact(2)]).await.unwrap();
    let addresses: Vec<&str> = known.iter().map(|owned| owned.identity.address.as_str()).collect();
    assert_eq!(addresses, ["1@example.org", "2@example.org"]);
    assert!(
        known
            .iter()
            .all(|owned| matches!(owned.proof, Some(Proof::Sender { .. })))
    );
}

async fn a_tickets_messages_are_in_order(database: &Database) {
    let store = database.store().await;
    let mut changes = together([arrival(1), arrival(2)]);
    // The second conversation is the first ticket's too.
    let (ticket, _) = opened(1);
    let second = ConversationId::begun_by(&message_id(2));
    for (id, event) in &mut changes.ticket_events {
        if let model::ticket::Change::Opened { .. } = event.change
            && *id != ticket.id
        {
            let mut added = event.clone();
            added.version = 3;
            added.change = model::ticket::Change::ConversationAdded {
                conversation_id: second.clone(),
            };
            *event = added;
            *id = ticket.id.clone();
        }
    }
    changes
        .messages
        .push(inbound(5, &ConversationId::begun_by(&message_id(1))));
    changes.messages.push(inbound(4, &second));
    changes
        .messages
        .push(inbound(3, &ConversationId::begun_by(&message_id(3))));
    store.commit(&changes).await.unwrap();
    let expected = [1, 2, 4, 5].map(message_id);
    let mut found = Vec::new();
    loop {
        let page = store.ticket_messages(&ticket.id, found.last(), 1).await.unwrap();
        let Some(message) = page.into_iter().next() else { break };
        found.push(message.id);
    }
    assert_eq!(found, expected);
    assert_eq!(store.ticket_messages(&ticket.id, None, 10).await.unwrap().len(), 4);
}
