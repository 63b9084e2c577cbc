//! Which contacts are one person: a graph whose edges are merges, each with its
//! proof. A person is a connected part of it, and speaks through its head, the
//! contact that we met first; so the order in which merges come makes no
//! difference. Parting takes one edge away, and what it had joined stands as before,
//! because identities, conversations and tickets keep their own contact throughout.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{Contact, Proof};
use crate::context::{Announcement, Changes, Replacing};
use crate::error::Refusal;
use crate::id::{ContactId, ConversationId, MergeId};
use crate::time::Moment;

/// Contacts of one person; who has more is no person.
pub const MAX_CONTACTS: usize = 100;

/// Two contacts are one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    pub id: MergeId,
    /// The one that we met later.
    pub from: ContactId,
    /// The one that we met first.
    pub into: ContactId,
    pub proof: Proof,
    pub merged_at: Moment,
    pub undone: Option<Undone>,
    /// Counts its changes.
    pub version: i64,
}

/// Who parted them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    pub at: Moment,
    pub person: String,
    pub reason: Option<String>,
}

/// Known contacts, whole persons at a time, and the merges between them.
#[derive(Clone, Debug, Default)]
pub struct Circles {
    pub contacts: HashMap<ContactId, Contact>,
    pub merges: BTreeMap<MergeId, Merge>,
}

impl Circles {
    /// Contacts as they are known.
    pub fn add(&mut self, contacts: impl IntoIterator<Item = Contact>) {
        let contacts = contacts.into_iter().map(|contact| (contact.id.clone(), contact));
        self.contacts.extend(contacts);
    }

    /// Who speaks for this contact: itself, while it is alone.
    pub fn head_of<'a>(&'a self, id: &'a ContactId) -> &'a ContactId {
        let contact = self.contacts.get(id);
        contact.and_then(|contact| contact.head.as_ref()).unwrap_or(id)
    }

    /// Whether both are the same person.
    pub fn are_one(&self, one: &ContactId, other: &ContactId) -> bool {
        self.head_of(one) == self.head_of(other)
    }

    /// All contacts of this one's person, the first met first.
    pub fn members_of(&self, id: &ContactId) -> Vec<&Contact> {
        let head = self.head_of(id);
        let mut members: Vec<&Contact> = self
            .contacts
            .values()
            .filter(|contact| self.head_of(&contact.id) == head)
            .collect();
        members.sort_unstable_by_key(|contact| met(contact));
        members
    }

    /// Whether a person of the desk has parted these two: then only a person of the
    /// desk may merge them again.
    pub fn are_parted(&self, one: &ContactId, other: &ContactId) -> bool {
        self.merges.values().any(|merge| {
            let joins = |from, into| self.are_one(&merge.from, from) && self.are_one(&merge.into, into);
            merge.undone.is_some() && (joins(one, other) || joins(other, one))
        })
    }

    /// Whether a person of the desk has parted whom the link of this conversation has
    /// joined: it is in other hands, and joins nobody any more.
    pub fn has_leaked(&self, conversation: &ConversationId) -> bool {
        self.merges.values().any(|merge| {
            let by_it =
                matches!(&merge.proof, Proof::Linked { conversation_id, .. } if conversation_id == conversation);
            by_it && merge.undone.is_some()
        })
    }

    /// Makes both one person. Nothing, if they are one already.
    pub fn merge(&self, one: &ContactId, other: &ContactId, proof: &Proof, now: Moment) -> Result<Changes, Refusal> {
        if self.are_one(one, other) {
            return Ok(Changes::default());
        }
        let (Some(one), Some(other)) = (self.contacts.get(one), self.contacts.get(other)) else {
            return Err(Refusal::invalid("there is no such contact"));
        };
        let mut members = self.members_of(&one.id);
        members.extend(self.members_of(&other.id));
        if members.len() > MAX_CONTACTS {
            return Err(Refusal::invalid(format!(
                "together they would be {} contacts; a person has at most {MAX_CONTACTS}",
                members.len()
            )));
        }
        let (into, from) = if met(one) < met(other) {
            (one, other)
        } else {
            (other, one)
        };
        let id = MergeId::of(&from.id, &into.id);
        let expected_version = self.merges.get(&id).map_or(0, |known| known.version);
        let row = Merge {
            id: id.clone(),
            from: from.id.clone(),
            into: into.id.clone(),
            proof: proof.clone(),
            merged_at: now,
            undone: None,
            version: expected_version + 1,
        };
        let mut changes = Changes::default();
        let head = members.iter().copied().min_by_key(|contact| met(contact));
        let head = head.map(|contact| contact.id.clone());
        for contact in &members {
            // The former heads too, so that nobody changes the same persons meanwhile.
            let was_head = *self.head_of(&contact.id) == contact.id;
            if was_head || contact.head != head {
                changes.regroup(contact, head.clone(), "contact.merged", &id, now);
            }
        }
        changes.merges.insert(id, Replacing { expected_version, row });
        Ok(changes)
    }

    /// Takes a merge back: what it had joined is as it was before.
    pub fn part(&self, id: &MergeId, undone: Undone) -> Result<Changes, Refusal> {
        let Some(merge) = self.merges.get(id) else {
            return Err(Refusal::invalid("there is no such merge"));
        };
        if let Some(undone) = &merge.undone {
            return Err(Refusal::wrong_state(format!(
                "{} has parted them already",
                undone.person
            )));
        }
        let members = self.members_of(&merge.from);
        let mut changes = Changes::default();
        for circle in self.circles_without(id, &members) {
            let head = circle.iter().copied().min_by_key(|contact| met(contact));
            let head = head.filter(|_| circle.len() > 1).map(|contact| contact.id.clone());
            for contact in circle {
                changes.regroup(contact, head.clone(), "contact.parted", id, undone.at);
            }
        }
        let row = Merge {
            undone: Some(undone),
            version: merge.version + 1,
            ..merge.clone()
        };
        let expected_version = merge.version;
        changes.merges.insert(id.clone(), Replacing { expected_version, row });
        Ok(changes)
    }

    /// Makes what follows see these changes.
    pub fn absorb(&mut self, changes: &Changes) {
        self.add(changes.contacts.iter().cloned());
        self.add(changes.regrouped.values().map(|replacing| replacing.row.clone()));
        for (id, replacing) in &changes.merges {
            self.merges.insert(id.clone(), replacing.row.clone());
        }
    }

    /// The connected parts of these contacts by all merges that hold, but for one.
    fn circles_without<'a>(&self, id: &MergeId, members: &[&'a Contact]) -> Vec<Vec<&'a Contact>> {
        let holding = || {
            self.merges
                .values()
                .filter(|merge| merge.id != *id && merge.undone.is_none())
        };
        let mut circles = Vec::new();
        let mut left: BTreeSet<&ContactId> = members.iter().map(|contact| &contact.id).collect();
        while let Some(first) = left.pop_first() {
            let mut circle = BTreeSet::from([first]);
            let mut looked_at = vec![first];
            while let Some(one) = looked_at.pop() {
                for merge in holding() {
                    let other = match (merge.from == *one, merge.into == *one) {
                        (true, _) => &merge.into,
                        (_, true) => &merge.from,
                        _ => continue,
                    };
                    if let Some(other) = left.take(other) {
                        circle.insert(other);
                        looked_at.push(other);
                    }
                }
            }
            let within = |contact: &&&Contact| circle.contains(&contact.id);
            circles.push(members.iter().filter(within).copied().collect());
        }
        circles
    }
}

impl Changes {
    fn regroup(&mut self, contact: &Contact, head: Option<ContactId>, kind: &str, merge_id: &MergeId, now: Moment) {
        let row = Contact {
            head,
            version: contact.version + 1,
            ..contact.clone()
        };
        self.announcements.push(Announcement {
            subject: row.id.to_string(),
            version: row.version,
            kind: kind.to_owned(),
            occurred_at: now,
            data: serde_json::json!({ "merge_id": merge_id, "head": row.head }),
        });
        let expected_version = contact.version;
        self.regrouped
            .insert(row.id.clone(), Replacing { expected_version, row });
    }
}

/// In which order we met them.
fn met(contact: &Contact) -> (Moment, &ContactId) {
    (contact.created_at, &contact.id)
}

#[cfg(test)]
mod tests;
