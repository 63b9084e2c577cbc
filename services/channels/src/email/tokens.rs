//! Signed tokens of ours that travel with a mail and come back: Message-IDs,
//! plus-addresses, and the header by which we know our own mail (C9, C10).

use model::id::{ConversationId, MessageId};

use crate::signature::Keys;

/// Carries our token through gateways that rewrite Message-IDs.
pub const LOOP_HEADER: &str = "X-Tributary-Loop";

/// Characters of a conversation's id without its prefix.
const CONVERSATION_CHARS: usize = 26;
/// A local part may have 64 characters (RFC 5321).
const MAX_LOCAL_CHARS: usize = 64;

const MESSAGE: &str = "message-id";
const CONVERSATION: &str = "plus-address";
const LOOP: &str = "loop";

/// `<id.token@domain>`: the same for every attempt to send this message.
pub fn message_id(keys: &Keys, message: &MessageId, domain: &str) -> String {
    let token = keys.sign(MESSAGE, message.bare().as_bytes());
    format!("<{}.{token}@{domain}>", message.bare())
}

/// The message of ours whose signed Message-ID this is, whatever its domain.
pub fn message_of(keys: &Keys, message_id: &str) -> Option<MessageId> {
    let inner = message_id.strip_prefix('<')?.strip_suffix('>')?;
    let (local, _) = inner.rsplit_once('@')?;
    let (bare, token) = local.split_once('.')?;
    verified(keys, MESSAGE, bare, token, MessageId::PREFIX).and_then(|id| MessageId::parse(&id))
}

/// `local+id.token@domain` of an address without a tag; `None` if it would be too long.
pub fn plus_address(keys: &Keys, conversation: &ConversationId, address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let token = keys.sign(CONVERSATION, conversation.bare().as_bytes());
    let tagged = format!("{local}+{}.{token}", conversation.bare());
    (tagged.len() <= MAX_LOCAL_CHARS).then(|| format!("{tagged}@{domain}"))
}

/// The longest local part that leaves room for a tag.
pub fn longest_local() -> usize {
    MAX_LOCAL_CHARS - 1 - CONVERSATION_CHARS - 1 - Keys::TOKEN_CHARS
}

/// The conversation whose signed plus-address this is. Servers separate the tag
/// by `+` or `-`.
pub fn conversation_of(keys: &Keys, address: &str) -> Option<ConversationId> {
    let (local, _) = address.rsplit_once('@')?;
    let (before, token) = local.rsplit_once('.')?;
    let split = before.len().checked_sub(CONVERSATION_CHARS)?;
    let (before, bare) = before.split_at_checked(split)?;
    if !before.ends_with(['+', '-']) {
        return None;
    }
    verified(keys, CONVERSATION, bare, token, ConversationId::PREFIX).and_then(|id| ConversationId::parse(&id))
}

/// Value of [`LOOP_HEADER`].
pub fn loop_mark(keys: &Keys, message: &MessageId) -> String {
    format!("{}.{}", message.bare(), keys.sign(LOOP, message.bare().as_bytes()))
}

/// Whether the value of a [`LOOP_HEADER`] is ours.
pub fn is_loop_mark(keys: &Keys, value: &str) -> bool {
    let mark = value.trim().split_once('.');
    mark.is_some_and(|(bare, token)| verified(keys, LOOP, bare, token, MessageId::PREFIX).is_some())
}

/// The whole id, if the token is ours. Some systems write ids in capitals.
fn verified(keys: &Keys, purpose: &str, bare: &str, token: &str, prefix: &str) -> Option<String> {
    // Cheap to say before the signature is computed.
    if bare.len() > MAX_LOCAL_CHARS || token.len() != Keys::TOKEN_CHARS {
        return None;
    }
    let bare = bare.to_ascii_lowercase();
    keys.verify(purpose, bare.as_bytes(), token)
        .then(|| format!("{prefix}{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> Keys {
        Keys::new(vec![vec![byte; 32]]).unwrap()
    }

    #[test]
    fn a_signed_message_id_names_its_message() {
        let keys = keys(1);
        let message = MessageId::authored("anna", "1");
        let id = message_id(&keys, &message, "example.org");
        assert!(
            id.len() < 100 && id.starts_with('<') && id.ends_with("@example.org>"),
            "{id}"
        );
        let check = |text: &str, expected: bool| {
            let expected = expected.then_some(&message);
            assert_eq!(message_of(&keys, text).as_ref(), expected, "{text}");
        };
        check(&id, true);
        check(&id.to_uppercase(), true);
        check(&id.replace("example.org", "relay.example"), true);
        check(&id[1..], false);
        check(&id.replace('.', ""), false);
        check(&id.replacen(message.bare(), "x", 1), false);
        check(
            &id.replace(message.bare(), MessageId::authored("anna", "2").bare()),
            false,
        );
        check("<>", false);
        check("<.@>", false);
        check("", false);
        assert_eq!(message_of(&self::keys(2), &id), None);
    }

    #[test]
    fn a_signed_plus_address_names_its_conversation() {
        let keys = keys(1);
        let conversation = ConversationId::begun_by(&MessageId::authored("anna", "1"));
        let address = plus_address(&keys, &conversation, "support@example.org").unwrap();
        let check = |text: &str, expected: bool| {
            let expected = expected.then_some(&conversation);
            assert_eq!(conversation_of(&keys, text).as_ref(), expected, "{text}");
        };
        check(&address, true);
        check(&address.to_uppercase(), true);
        check(&address.replace('+', "-"), true);
        check(&address.replace("support", "it"), true);
        check(&address.replace('+', ""), false);
        check("support+x.y@example.org", false);
        check(&format!("ü{}", &address["support+".len() - 1..]), true);
        check("support@example.org", false);
        check("", false);
        let longest = format!("{}@example.org", "x".repeat(longest_local()));
        assert!(plus_address(&keys, &conversation, &longest).is_some());
        assert_eq!(plus_address(&keys, &conversation, &format!("x{longest}")), None);
    }

    #[test]
    fn a_token_of_one_kind_is_none_of_another() {
        let keys = keys(1);
        let message = MessageId::authored("anna", "1");
        let mark = loop_mark(&keys, &message);
        assert!(is_loop_mark(&keys, &format!(" {mark} ")));
        assert!(!is_loop_mark(&keys, "x.y"));
        assert_eq!(message_of(&keys, &format!("<{mark}@example.org>")), None);
        let id = message_id(&keys, &message, "example.org");
        assert!(!is_loop_mark(&keys, id[1..].split('@').next().unwrap()));
    }
}
