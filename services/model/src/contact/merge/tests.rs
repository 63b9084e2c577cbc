use super::*;
use crate::contact::Identity;
use crate::id::MessageId;

fn contact(number: i64) -> Contact {
    let message = MessageId::authored("test", &number.to_string());
    Contact {
        id: ContactId::met_by(&message),
        name: None,
        identity: Identity {
            scheme: "email".to_owned(),
            address: number.to_string(),
            verified: true,
        },
        created_at: Moment::from_ms(number),
        head: None,
        version: 0,
    }
}

fn id(number: i64) -> ContactId {
    contact(number).id
}

fn circles(count: i64) -> Circles {
    let contacts = (0..count).map(contact).map(|contact| (contact.id.clone(), contact));
    Circles {
        contacts: contacts.collect(),
        merges: BTreeMap::new(),
    }
}

fn by(person: &str) -> Proof {
    Proof::Person {
        person: person.to_owned(),
        reason: None,
    }
}

fn undone() -> Undone {
    Undone {
        at: Moment::from_ms(1_000),
        person: "agnes".to_owned(),
        reason: Some("two of a name".to_owned()),
    }
}

impl Circles {
    fn join(&mut self, one: i64, other: i64) -> Changes {
        let changes = self
            .merge(&id(one), &id(other), &by("agnes"), Moment::from_ms(500))
            .unwrap();
        self.absorb(&changes);
        changes
    }

    fn undo(&mut self, one: i64, other: i64) -> Changes {
        let changes = self.part(&MergeId::of(&id(one), &id(other)), undone()).unwrap();
        self.absorb(&changes);
        changes
    }

    /// Head of each contact by number; -1 for one that is alone.
    fn heads(&self, count: i64) -> Vec<i64> {
        let head = |number: i64| {
            let head = self.contacts[&id(number)].head.clone();
            head.map_or(-1, |head| (0..count).find(|number| id(*number) == head).unwrap())
        };
        (0..count).map(head).collect()
    }
}

#[test]
fn the_first_met_speaks_for_all() {
    let check = |merges: &[(i64, i64)], expected: &[i64]| {
        for turn in 0..merges.len() {
            let mut order = merges.to_vec();
            order.rotate_left(turn);
            let mut circles = circles(5);
            for (one, other) in order {
                circles.join(one, other);
            }
            assert_eq!(circles.heads(5), expected, "{merges:?}, turned by {turn}");
        }
    };
    check(&[(0, 1)], &[0, 0, -1, -1, -1]);
    check(&[(4, 1)], &[-1, 1, -1, -1, 1]);
    check(&[(3, 4), (1, 2)], &[-1, 1, 1, 3, 3]);
    check(&[(3, 4), (1, 2), (4, 2)], &[-1, 1, 1, 1, 1]);
    check(&[(3, 4), (1, 2), (4, 2), (2, 0)], &[0, 0, 0, 0, 0]);
    // What is one already stays as it is.
    check(&[(0, 1), (1, 0), (0, 1)], &[0, 0, -1, -1, -1]);
    check(&[(0, 1), (1, 2), (2, 0)], &[0, 0, 0, -1, -1]);
}

#[test]
fn parted_is_as_before() {
    let check = |before: &[(i64, i64)], merge: (i64, i64)| {
        let mut circles = circles(6);
        for (one, other) in before {
            circles.join(*one, *other);
        }
        let heads = circles.heads(6);
        circles.join(merge.0, merge.1);
        assert_ne!(circles.heads(6), heads, "{before:?} {merge:?}");
        circles.undo(merge.0, merge.1);
        assert_eq!(circles.heads(6), heads, "{before:?} {merge:?}");
        assert!(circles.are_parted(&id(merge.1), &id(merge.0)));
        // And once more, by a person.
        circles.join(merge.1, merge.0);
        assert!(!circles.are_parted(&id(merge.0), &id(merge.1)));
        circles.undo(merge.0, merge.1);
        assert_eq!(circles.heads(6), heads);
    };
    check(&[], (0, 1));
    check(&[], (5, 2));
    check(&[(0, 1)], (1, 2));
    check(&[(4, 5), (3, 4)], (5, 0));
    check(&[(0, 1), (2, 3)], (3, 1));
    check(&[(0, 1), (2, 3), (4, 5), (5, 3)], (1, 4));
}

#[test]
fn a_merge_in_the_middle_can_be_undone() {
    let mut circles = circles(4);
    for (one, other) in [(0, 1), (1, 2), (2, 3)] {
        circles.join(one, other);
    }
    circles.undo(1, 2);
    assert_eq!(circles.heads(4), [0, 0, 2, 2]);
    assert!(circles.are_parted(&id(0), &id(3)), "a parting is between persons");
    circles.undo(2, 3);
    assert_eq!(circles.heads(4), [0, 0, -1, -1]);
}

#[test]
fn whoever_changes_the_same_persons_meanwhile_notices() {
    let mut circles = circles(4);
    let rows = |changes: &Changes| {
        let versions = changes.regrouped.values();
        versions
            .map(|replacing| (replacing.expected_version, replacing.row.version))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&circles.join(0, 1)), [(0, 1), (0, 1)]);
    // The head is written too, though it stays the head.
    let second = circles.join(1, 2);
    assert!(second.regrouped.contains_key(&id(0)) && !second.regrouped.contains_key(&id(1)));
    let third = circles.undo(0, 1);
    assert_eq!(third.regrouped.len(), 3);
    for (changes, kind) in [(&second, "contact.merged"), (&third, "contact.parted")] {
        for (id, replacing) in &changes.regrouped {
            let told = changes
                .announcements
                .iter()
                .find(|told| told.subject == id.as_str())
                .unwrap();
            assert_eq!((told.kind.as_str(), told.version), (kind, replacing.row.version));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut circles = circles(MAX_CONTACTS as i64 + 1);
    assert!(circles.merge(&id(0), &id(0), &by("a"), undone().at).unwrap().is_empty());
    let unknown = circles.merge(&id(0), &id(-1), &by("a"), undone().at);
    assert_eq!(unknown.unwrap_err().code, "invalid");
    let unknown = circles.part(&MergeId::of(&id(0), &id(1)), undone());
    assert_eq!(unknown.unwrap_err().code, "invalid");
    for number in 1..MAX_CONTACTS as i64 {
        circles.join(0, number);
    }
    let too_many = circles.merge(&id(0), &id(MAX_CONTACTS as i64), &by("a"), undone().at);
    assert_eq!(too_many.unwrap_err().code, "invalid");
    circles.undo(0, 1);
    let again = circles.part(&MergeId::of(&id(0), &id(1)), undone()).unwrap_err();
    assert_eq!(
        (again.code, again.detail.as_str()),
        ("wrong_state", "agnes has parted them already")
    );
}
