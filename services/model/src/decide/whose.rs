//! Whose message it is: the contact by its proven identities; who is one person by
//! what the message proves; and what it merely claims.

use crate::contact::{Claim, Contact, Identity, Owned, Proof, normalise};
use crate::context::{Changes, Context};
use crate::event::{Event, Message};
use crate::evidence::{Opened, Verdict};
use crate::id::{ContactId, ConversationId, MessageId};
use crate::time::Moment;

/// Schemes of which a person may have several (a visitor is a browser). Of any other that a channel vouches
/// for (the user of a site), another address is another person.
const SEVERAL: [&str; 3] = ["email", "phone", "visitor"];

/// Claims that one message may add.
const MAX_CLAIMS: usize = 5;

/// A claimed address may have so many characters (RFC 5321 allows 254).
const MAX_CLAIM_CHARS: usize = 320;

/// Who wrote a message, and what follows from it.
pub(super) struct Whose {
    pub contact_id: ContactId,
    /// A new contact, identities, merges and claims.
    pub changes: Changes,
    /// A line for each proof that was weighed.
    pub lines: Vec<String>,
}

/// The contact that wrote the message, a new one if need be. Each identity keeps a
/// contact of its own: what proves that two are one person joins these, and can be
/// taken back.
pub(super) fn whose(
    event: &Event,
    message_id: &MessageId,
    message: &Message,
    verdict: &Verdict,
    context: &Context,
    now: Moment,
) -> Whose {
    let vouched = vouched(message_id, message);
    let answered = answered(message_id, message, verdict, context);
    let mut proven = Vec::new();
    match &answered {
        Some((_, identity, proof)) => proven.push((identity.clone(), proof.clone())),
        None if message.sender.verified || vouched.is_empty() => {
            let message_id = message_id.clone();
            proven.push((message.sender.identity(), Proof::Sender { message_id }));
        }
        None => {}
    }
    proven.extend(vouched.iter().cloned());
    let is_another = |identity: &Identity| {
        let owner = context.contacts.get(identity);
        owner.is_some_and(|owner| is_other_user(owner, vouched.iter().map(|(identity, _)| identity), context))
    };
    // Who sits at the browser of another user is nobody that we know.
    let own = proven.iter().find(|(identity, _)| !is_another(identity));
    let met = Met {
        event,
        message_id,
        name: message.sender.name.as_deref(),
    };
    let mut whose = match own {
        Some((identity, proof)) => Whose::author(&met, identity, proof, context),
        None => Whose::stranger(&met, message.sender.identity()),
    };
    if let Some((contact, _, proof)) = &answered {
        whose.is_one_with(contact, proof, context, now);
    }
    if let Some(Opened::Conversation(conversation_id)) = &message.evidence.opened {
        let proof = Proof::Linked {
            message_id: message_id.clone(),
            conversation_id: conversation_id.clone(),
        };
        whose.opens(conversation_id, &(message.sender.identity(), proof), context, now);
    }
    for (identity, proof) in &proven {
        if own.is_some_and(|(own, _)| own == identity) {
            continue;
        }
        match context.contacts.get(identity) {
            None => {
                let other = whose.meets(&met, identity, proof);
                whose.is_one_with(&other, proof, context, now);
            }
            Some(other) if is_another(identity) => {
                let line = format!("{other}: another user of the same site than {}", whose.contact_id);
                whose.lines.push(line);
            }
            Some(other) => whose.is_one_with(other, proof, context, now),
        }
    }
    whose.claims(event, message_id, message, &proven);
    whose
}

/// How we met whom we did not know.
struct Met<'a> {
    event: &'a Event,
    message_id: &'a MessageId,
    name: Option<&'a str>,
}

impl Met<'_> {
    fn contact(&self, id: ContactId, identity: Identity, created_at: Moment) -> Contact {
        Contact {
            id,
            name: self.name.map(str::to_owned),
            identity,
            created_at,
            head: None,
            version: 0,
        }
    }
}

/// What the channel vouches for beside the sender.
fn vouched(message_id: &MessageId, message: &Message) -> Vec<(Identity, Proof)> {
    let mut vouched: Vec<(Identity, Proof)> = Vec::new();
    for party in message.identities.iter().filter(|party| party.verified) {
        let identity = party.identity();
        let is_new = identity != message.sender.identity() && vouched.iter().all(|(known, _)| *known != identity);
        if is_new {
            let (message_id, identity) = (message_id.clone(), identity.clone());
            let proof = match &message.evidence.opened {
                Some(Opened::Message(question)) => Proof::Opened {
                    message_id,
                    question: question.clone(),
                    identity: identity.clone(),
                },
                Some(Opened::Conversation(_)) | None => Proof::Vouched {
                    message_id,
                    identity: identity.clone(),
                },
            };
            vouched.push((identity, proof));
        }
    }
    vouched
}

/// A message of ours went to an address that the conversation's contact claims, and
/// to nobody else; this message comes from there and brings its token back: whoever
/// began the conversation reads that mailbox. An automatic answer proves nothing, for
/// nobody has read anything.
fn answered(
    message_id: &MessageId,
    message: &Message,
    verdict: &Verdict,
    context: &Context,
) -> Option<(ContactId, Identity, Proof)> {
    if message.automatic.is_some() {
        return None;
    }
    let conversation = context.conversations.get(verdict.joined.as_ref()?)?;
    let contact = context.circles.contacts.get(&conversation.contact_id)?;
    let identity = Identity {
        verified: true,
        ..message.sender.identity()
    };
    let claimed = (contact.id.clone(), identity.scheme.clone(), identity.address.clone());
    // An unverified contact may be anybody.
    if !contact.identity.verified || !context.claims.contains(&claimed) {
        return None;
    }
    let question = message.evidence.signed_messages.iter().find(|id| {
        let reference = context.signed_messages.get(id);
        reference.is_some_and(|reference| reference.conversation_id == conversation.id)
            && context.sent_to.get(id) == Some(&identity.address)
    })?;
    let proof = Proof::Answered {
        message_id: message_id.clone(),
        question: question.clone(),
        identity: identity.clone(),
    };
    Some((contact.id.clone(), identity, proof))
}

/// Whether this contact's person is known as another user of a site than one of
/// these, which are all of one person: somebody else sits at the same browser.
fn is_other_user<'a>(
    contact: &ContactId,
    mut identities: impl Iterator<Item = &'a Identity>,
    context: &Context,
) -> bool {
    identities.any(|identity| {
        let is_single = !SEVERAL.contains(&identity.scheme.as_str());
        is_single
            && context.contacts.iter().any(|(known, owner)| {
                known.verified
                    && known.scheme == identity.scheme
                    && known.address != identity.address
                    && context.circles.are_one(owner, contact)
            })
    })
}

impl Whose {
    /// Whether that contact is the same person, by what was known and what this
    /// message proves.
    pub fn is(&self, contact: &ContactId, context: &Context) -> bool {
        let head = |id: &ContactId| match self.changes.regrouped.get(id) {
            Some(replacing) => replacing.row.head.clone().unwrap_or_else(|| id.clone()),
            None => context.circles.head_of(id).clone(),
        };
        head(contact) == head(&self.contact_id)
    }

    /// Whose this identity is; a contact that we had not met before, if it is nobody's.
    fn author(met: &Met<'_>, identity: &Identity, proof: &Proof, context: &Context) -> Self {
        if let Some(known) = context.contacts.get(identity) {
            return Self {
                contact_id: known.clone(),
                changes: Changes::default(),
                lines: Vec::new(),
            };
        }
        let mut whose = Self::stranger(met, identity.clone());
        whose.owns(whose.contact_id.clone(), identity, proof);
        whose
    }

    /// Somebody whom nothing tells from anybody else, or not yet.
    fn stranger(met: &Met<'_>, identity: Identity) -> Self {
        let contact = met.contact(ContactId::met_by(met.message_id), identity, met.event.received_at);
        Self {
            contact_id: contact.id.clone(),
            changes: Changes {
                contacts: vec![contact],
                ..Changes::default()
            },
            lines: Vec::new(),
        }
    }

    /// A contact that the message makes known beside its author, and a moment later.
    fn meets(&mut self, met: &Met<'_>, identity: &Identity, proof: &Proof) -> ContactId {
        let id = ContactId::vouched_by(met.message_id, &identity.scheme, &identity.address);
        let at = met.event.received_at.plus_ms(1);
        self.changes
            .contacts
            .push(met.contact(id.clone(), identity.clone(), at));
        self.owns(id.clone(), identity, proof);
        id
    }

    fn owns(&mut self, contact_id: ContactId, identity: &Identity, proof: &Proof) {
        self.changes.identities.push(Owned {
            identity: identity.clone(),
            contact_id,
            proof: Some(proof.clone()),
        });
    }

    fn is_one_with(&mut self, other: &ContactId, proof: &Proof, context: &Context, now: Moment) {
        let one = &self.contact_id;
        if context.circles.are_one(one, other) {
            return;
        }
        let mut circles = context.circles.clone();
        circles.absorb(&self.changes);
        if circles.are_parted(one, other) {
            let line = format!("{one} and {other}: a person of the desk has parted them");
            self.lines.push(line);
            return;
        }
        match circles.merge(one, other, proof, now) {
            Ok(merged) => {
                self.lines
                    .push(format!("{one} and {other}: one person, by {}", proof.in_words()));
                self.changes.extend(merged);
            }
            Err(refusal) => self.lines.push(format!("{one} and {other}: not merged: {refusal}")),
        }
    }

    /// Who opens the link of a conversation is its contact, if it is known who that is:
    /// nobody whose address was never proven, and nobody else whom this channel knows,
    /// for then the link has come into other hands.
    fn opens(&mut self, id: &ConversationId, opener: &(Identity, Proof), context: &Context, now: Moment) {
        let conversation = context.conversations.get(id);
        let contact = conversation.and_then(|known| context.circles.contacts.get(&known.contact_id));
        let openers = context.contacts.iter().filter(|(known, owner)| {
            let is_theirs = known.verified && context.circles.are_one(owner, &self.contact_id);
            is_theirs && **known != opener.0
        });
        let mut openers = openers.map(|(known, _)| known);
        let why = match contact {
            None => "there is no such conversation",
            Some(contact) if !contact.identity.verified => "nothing proves who its contact is",
            Some(contact) if context.circles.are_one(&contact.id, &self.contact_id) => return,
            Some(contact) if is_other_user(&contact.id, std::iter::once(&opener.0), context) => {
                "its contact is somebody else here"
            }
            Some(contact) if is_other_user(&contact.id, &mut openers, context) => {
                "the two are different users of the same site"
            }
            Some(_) if context.circles.has_leaked(id) => "a person of the desk has parted whom it joined",
            Some(contact) => return self.is_one_with(&contact.id, &opener.1, context, now),
        };
        self.lines.push(format!("{id}: its link was opened, but {why}"));
    }

    /// Keeps the addresses that nobody vouches for.
    fn claims(&mut self, event: &Event, message_id: &MessageId, message: &Message, proven: &[(Identity, Proof)]) {
        let is_proven = |scheme: &str, address: &str| {
            let mut proven = proven.iter().map(|(identity, _)| identity);
            proven.any(|identity| identity.scheme == scheme && identity.address == address)
        };
        let parties = std::iter::once(&message.sender).chain(&message.identities);
        for party in parties.filter(|party| !party.verified).take(MAX_CLAIMS) {
            let address = normalise(&party.address);
            let is_sane = !address.is_empty() && address.chars().count() <= MAX_CLAIM_CHARS;
            if is_sane && !is_proven(&party.scheme, &address) {
                self.changes.claims.push(Claim {
                    contact_id: self.contact_id.clone(),
                    scheme: party.scheme.clone(),
                    address,
                    name: party.name.clone(),
                    message_id: message_id.clone(),
                    claimed_at: event.received_at,
                });
            }
        }
    }
}

impl Proof {
    fn in_words(&self) -> &'static str {
        match self {
            Self::Sender { .. } => "the sender's verified address",
            Self::Vouched { .. } => "an identity that the channel vouches for",
            Self::Opened { .. } => "a link that was opened in a message that went to this address alone",
            Self::Linked { .. } => "a link for the other's conversation, which was opened",
            Self::Answered { .. } => "an answer to a message that went to this address alone",
            Self::Person { .. } => "the word of a person of the desk",
        }
    }
}
