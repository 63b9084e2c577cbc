//! Where a contact can be reached, and by which way an answer goes.

use model::contact::{Identity, normalise};
use model::context::AccountPlan;
use model::conversation::{self, Conversation, StoredMessage, Way};
use model::id::{ContactId, ConversationId, MessageId};
use model::outbound::{Declaration, LiveView};
use model::ticket::Ticket;
use model::time::Moment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Desk;
use crate::error::Error;

/// Among so many of the latest messages a person's is sought, to be answered.
const INBOUND_LOOKED_AT: i64 = 20;

/// A way to a contact.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reach)]
pub struct ReachView {
    /// By which account.
    account: String,
    channel: String,
    /// What kind of address it is.
    #[schema(example = "email")]
    scheme: String,
    address: String,
    /// Somebody whom we trust vouches for the address, or an answer came from it; else the contact only says
    /// that it is its own.
    verified: bool,
    /// The conversation that goes on there; null: one would begin.
    #[schema(value_type = Option<String>)]
    conversation_id: Option<ConversationId>,
    /// An answer in own words may be sent now.
    open: bool,
    /// The channel allows such an answer until then, a while after the contact wrote last; null: whenever, or not
    /// before they write (see `open`).
    #[schema(value_type = Option<String>, format = DateTime)]
    window: Option<Moment>,
    /// What may be sent while it is not open; null: nothing.
    #[schema(example = "an approved template")]
    outside_window: Option<String>,
    /// A reply may name a `template`.
    templates: bool,
    /// A reply may name a message that it `quotes`.
    quotes: bool,
}

/// Another way than the conversation's own: a conversation, or an account and, if there are several, an address.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Via)]
#[serde(deny_unknown_fields)]
pub struct Via {
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    address: Option<String>,
    /// `cnv_…`, of the same contact.
    #[serde(default)]
    conversation: Option<String>,
}

/// A way to a contact, with all that a message needs to take it.
pub struct Reach {
    account: AccountPlan,
    declaration: Declaration,
    contact_id: ContactId,
    /// Verified or not.
    to: Identity,
    conversation: Option<Conversation>,
    /// When the contact wrote there last.
    asked_at: Option<Moment>,
}

/// By which way an answer goes, and when the contact wrote there last.
pub struct Chosen {
    pub way: Way,
    pub asked_at: Option<Moment>,
}

/// All ways to the contact of this conversation, its own first, then by account,
/// verified addresses first.
pub async fn ways(desk: &Desk, asked: &Conversation) -> Result<Vec<Reach>, Error> {
    let circles = desk.store.circles(&[&asked.contact_id]).await?;
    let mut members: Vec<&ContactId> = circles.contacts.keys().collect();
    members.sort_unstable();
    let conversations = desk.store.conversations_of(&members).await?;
    let addresses = addresses(desk, &members).await?;
    let mut ways = Vec::new();
    for account in desk.store.accounts().await? {
        let there = || conversations.iter().filter(|one| one.account == account.plan.name);
        let way = |contact_id: &ContactId, to: &Identity, conversation: Option<&Conversation>| Reach {
            account: account.plan.clone(),
            declaration: account.declaration.clone(),
            contact_id: contact_id.clone(),
            to: to.clone(),
            conversation: conversation.cloned(),
            asked_at: None,
        };
        let mut found = Vec::new();
        for (contact_id, to) in &addresses {
            if account.declaration.begins.as_ref() == Some(&to.scheme) {
                let is_named = |one: &Conversation| {
                    account.declaration.thread_is_address && one.thread_name.as_ref() == Some(&to.address)
                };
                let with_them = there().filter(|one| one.has_participant(to) || is_named(one));
                found.push(way(contact_id, to, nearest(with_them, asked)));
            }
        }
        // What goes on there can go on, whatever it is called.
        if account.declaration.begins.is_none() || account.plan.name == asked.account {
            let goes_on = nearest(there(), asked).filter(|one| !found.iter().any(|way| way.is_in(&one.id)));
            if let Some(conversation) = goes_on
                && let Some(contact) = circles.contacts.get(&conversation.contact_id)
            {
                found.push(way(&contact.id, &contact.identity, Some(conversation)));
            }
        }
        ways.extend(found);
    }
    for way in &mut ways {
        if let Some(conversation) = &way.conversation
            && way.declaration.reply_window_ms.is_some()
        {
            way.asked_at = asked_at(&latest_inbound(desk, conversation).await?);
        }
    }
    ways.sort_by_key(|way| !way.is_in(&asked.id));
    Ok(ways)
}

/// The way of an answer: the one that the agent names; or by mail, if the contact
/// has left a live conversation and an address is known; or the conversation itself.
pub async fn choose(
    desk: &Desk,
    asked: &Conversation,
    ticket: Option<&Ticket>,
    via: Option<&Via>,
    message_id: &MessageId,
    now: Moment,
) -> Result<Chosen, Error> {
    let reach = match via {
        Some(via) => Some(named(ways(desk, asked).await?, via)?),
        None => after_leaving(desk, asked, now).await?,
    };
    let Some(reach) = reach else {
        let declaration = declaration(desk, &asked.account).await?;
        return go_on(desk, asked.clone(), declaration, ticket).await;
    };
    let is_of_ticket = |one: &Conversation| one.ticket_id.is_some() && one.ticket_id == asked.ticket_id;
    let can_begin_anew = reach.declaration.begins.is_some() && !reach.declaration.thread_is_address;
    let mut chosen = match &reach.conversation {
        // A conversation about something else is left alone where another can begin.
        Some(conversation) if conversation.id == asked.id || is_of_ticket(conversation) || !can_begin_anew => {
            go_on(desk, conversation.clone(), reach.declaration, ticket).await?
        }
        _ => begin(desk, asked, reach, ticket, message_id, now).await?,
    };
    if chosen.way.declaration.live.is_none() && live_view(desk, asked).await?.is_some() {
        chosen.way.continues = Some(asked.id.clone());
    }
    Ok(chosen)
}

/// A conversation that begins with the answer.
async fn begin(
    desk: &Desk,
    asked: &Conversation,
    reach: Reach,
    ticket: Option<&Ticket>,
    message_id: &MessageId,
    now: Moment,
) -> Result<Chosen, Error> {
    let to = Identity {
        verified: false,
        ..reach.to
    };
    let (account, declaration) = (&reach.account, reach.declaration);
    let mut conversation = Conversation::begun(message_id, account, &declaration, &reach.contact_id, &to, now);
    if let Some(thread) = &conversation.thread_name
        && !desk.store.heads(&[(&account.name, thread)]).await?.is_empty()
    {
        return Err(Error::invalid(
            "not_reachable",
            "somebody else writes from this address, and nothing proves that it is this contact",
        ));
    }
    let of_ticket = ticket.map(|ticket| ticket.subject.clone());
    conversation.subject = asked.subject.clone().or(of_ticket);
    // Who has opted out there has opted out of this too.
    conversation.consent = reach.conversation.and_then(|before| before.consent);
    Ok(Chosen {
        way: Way {
            recipients: conversation.recipients(None)?,
            conversation,
            declaration,
            is_new_to_ticket: true,
            continues: None,
        },
        // Whatever they have written elsewhere opens no window here.
        asked_at: None,
    })
}

impl ReachView {
    pub fn of(way: Reach, now: Moment) -> Self {
        let asked_at = way.asked_at;
        let window_ms = way.declaration.reply_window_ms;
        Self {
            open: way.declaration.is_open(asked_at, now),
            window: asked_at.zip(window_ms).map(|(at, window_ms)| at.plus_ms(window_ms)),
            outside_window: way.declaration.outside_window,
            templates: way.declaration.templates,
            quotes: way.declaration.quotes,
            account: way.account.name,
            channel: way.account.channel,
            scheme: way.to.scheme,
            address: way.to.address,
            verified: way.to.verified,
            conversation_id: way.conversation.map(|conversation| conversation.id),
        }
    }
}

impl Reach {
    fn is_in(&self, id: &ConversationId) -> bool {
        self.conversation
            .as_ref()
            .is_some_and(|conversation| conversation.id == *id)
    }
}

/// Whose addresses: verified ones, then claims (the latest first), then senders
/// that nobody vouches for; each once.
async fn addresses(desk: &Desk, members: &[&ContactId]) -> Result<Vec<(ContactId, Identity)>, Error> {
    let known = desk.store.identities_of(members).await?;
    let (verified, unverified): (Vec<_>, Vec<_>) = known.into_iter().partition(|owned| owned.identity.verified);
    let claims = desk.store.claims_of(members).await?.into_iter().map(|claim| {
        let identity = Identity {
            scheme: claim.scheme,
            address: claim.address,
            verified: false,
        };
        (claim.contact_id, identity)
    });
    let owned = |owned: model::contact::Owned| (owned.contact_id, owned.identity);
    let all = verified.into_iter().map(owned).chain(claims);
    let mut addresses: Vec<(ContactId, Identity)> = Vec::new();
    for (contact_id, identity) in all.chain(unverified.into_iter().map(owned)) {
        let is_same =
            |(_, known): &(ContactId, Identity)| known.scheme == identity.scheme && known.address == identity.address;
        if !addresses.iter().any(is_same) {
            addresses.push((contact_id, identity));
        }
    }
    Ok(addresses)
}

/// The conversation itself, else the ticket's, else the latest.
fn nearest<'a>(
    conversations: impl Iterator<Item = &'a Conversation>,
    asked: &Conversation,
) -> Option<&'a Conversation> {
    conversations.max_by_key(|one| {
        let is_of_ticket = one.ticket_id.is_some() && one.ticket_id == asked.ticket_id;
        (one.id == asked.id, is_of_ticket, one.last_message_at)
    })
}

async fn latest_inbound(desk: &Desk, conversation: &Conversation) -> Result<Vec<StoredMessage>, Error> {
    Ok(desk.store.latest_inbound(&conversation.id, INBOUND_LOOKED_AT).await?)
}

/// When a person wrote last, by the vendor's clock, which decides.
fn asked_at(inbound: &[StoredMessage]) -> Option<Moment> {
    conversation::to_answer(inbound).map(|message| message.occurred_at.min(message.received_at))
}

/// The first of the ways that the agent's wish fits.
fn named(mut ways: Vec<Reach>, via: &Via) -> Result<Reach, Error> {
    let fits = |way: &Reach| match via {
        Via {
            conversation: Some(id),
            account: None,
            address: None,
        } => way.conversation.as_ref().is_some_and(|one| one.id.as_str() == id),
        Via {
            conversation: None,
            account: Some(account),
            address,
        } => {
            let is_address = address
                .as_ref()
                .is_none_or(|address| normalise(address) == way.to.address);
            way.account.name == *account && is_address
        }
        _ => false,
    };
    if via.conversation.is_some() == via.account.is_some() || (via.address.is_some() && via.account.is_none()) {
        return Err(Error::invalid(
            "invalid",
            "`via` takes `conversation`, or `account` and perhaps `address`",
        ));
    }
    match ways.iter().position(fits) {
        Some(index) => Ok(ways.swap_remove(index)),
        None => {
            let possible: Vec<String> = ways
                .iter()
                .map(|way| format!("{} ({})", way.account.name, way.to.address))
                .collect();
            Err(Error::invalid(
                "not_reachable",
                format!(
                    "the contact cannot be reached that way; possible: {}",
                    possible.join(", ")
                ),
            ))
        }
    }
}

/// The way by mail, where the contact does not look at the conversation any more.
async fn after_leaving(desk: &Desk, asked: &Conversation, now: Moment) -> Result<Option<Reach>, Error> {
    let Some((live, _)) = has_left(desk, asked, now).await? else {
        return Ok(None);
    };
    let Some(mail_account) = live.mail_account else {
        return Ok(None);
    };
    let ways = ways(desk, asked).await?;
    Ok(ways.into_iter().find(|way| way.account.name == mail_account))
}

/// When the contact left a live conversation, if that is so.
pub async fn left_at(desk: &Desk, asked: &Conversation, now: Moment) -> Result<Option<Moment>, Error> {
    Ok(has_left(desk, asked, now).await?.map(|(_, left_at)| left_at))
}

async fn has_left(desk: &Desk, asked: &Conversation, now: Moment) -> Result<Option<(LiveView, Moment)>, Error> {
    let Some(live) = live_view(desk, asked).await? else {
        return Ok(None);
    };
    let left_at = desk.store.visitor_left(&asked.id, live.away_after_ms, now).await?;
    Ok(left_at.map(|left_at| (live, left_at)))
}

async fn live_view(desk: &Desk, asked: &Conversation) -> Result<Option<LiveView>, Error> {
    let accounts = desk.store.accounts().await?;
    let account = accounts.into_iter().find(|account| account.plan.name == asked.account);
    Ok(account.and_then(|account| account.declaration.live))
}

async fn go_on(
    desk: &Desk,
    conversation: Conversation,
    declaration: Declaration,
    ticket: Option<&Ticket>,
) -> Result<Chosen, Error> {
    let inbound = latest_inbound(desk, &conversation).await?;
    let latest = conversation::to_answer(&inbound);
    let is_new_to_ticket = match ticket {
        Some(ticket) if conversation.ticket_id.as_ref() != Some(&ticket.id) => {
            let known = desk.store.ticket_conversations(&ticket.id).await?;
            !known.contains(&conversation.id)
        }
        _ => false,
    };
    Ok(Chosen {
        asked_at: asked_at(&inbound),
        way: Way {
            recipients: conversation.recipients(latest)?,
            conversation,
            declaration,
            is_new_to_ticket,
            continues: None,
        },
    })
}

/// What the account's channel can carry.
async fn declaration(desk: &Desk, name: &str) -> Result<Declaration, Error> {
    let accounts = desk.store.accounts().await?;
    match accounts.into_iter().find(|account| account.plan.name == name) {
        Some(account) => Ok(account.declaration),
        None => {
            let detail = format!("the account {name} is no longer declared, so nothing can leave by it");
            Err(Error::conflict("account_gone", detail))
        }
    }
}
