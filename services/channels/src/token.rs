//! Tokens that stand in links and come back: signed, for one purpose of one
//! account, and good until a moment. Whoever has one may use it, as often as they
//! like until then, so a purpose allows no more than the holder of the link may.
//!
//! They are made of `A-Z a-z 0-9 - _` alone, which every address bar, app and bot
//! carries unchanged (Telegram's `start` takes these and at most 64 of them:
//! <https://core.telegram.org/bots/features#deep-linking>).

use model::time::Moment;

use crate::signature::Keys;

/// What a token is good for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// Tokens of one purpose are worth nothing for another.
    pub name: &'static str,
    /// Nor are those of another account.
    pub account: &'a str,
}

/// What [`Purpose::token`] adds to what it says: two dashes, ten digits of a time,
/// and the signature.
pub const ADDED_CHARS: usize = 2 + 10 + Keys::TOKEN_CHARS;

impl Purpose<'_> {
    /// A token that says this, in characters of the alphabet above, until then.
    pub fn token(self, keys: &Keys, says: &str, until: Moment) -> String {
        let until_s = until.as_ms().div_euclid(1000);
        let mac = keys.sign(self.name, self.signed(says, until_s).as_bytes());
        format!("{says}-{until_s}-{mac}")
    }

    /// What a token says, if it is ours and still good; else why not.
    pub fn read<'t>(self, keys: &Keys, token: &'t str, now: Moment) -> Result<&'t str, &'static str> {
        const FOREIGN: &str = "the link is not ours";
        let (rest, mac) = token.rsplit_once('-').ok_or(FOREIGN)?;
        let (says, until) = rest.rsplit_once('-').ok_or(FOREIGN)?;
        let until_s: i64 = until.parse().map_err(|_| FOREIGN)?;
        if !keys.verify(self.name, self.signed(says, until_s).as_bytes(), mac) {
            return Err(FOREIGN);
        }
        match now <= Moment::from_ms(until_s.saturating_mul(1000)) {
            true => Ok(says),
            false => Err("the link has expired"),
        }
    }

    fn signed(self, says: &str, until_s: i64) -> String {
        format!("{}\n{until_s}\n{says}", self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_purpose_its_account_and_its_time() {
        let keys = |byte: u8| Keys::new(vec![vec![byte; 32]]).unwrap();
        let purpose = |name: &'static str, account: &'static str| Purpose { name, account };
        let (chat, until) = (purpose("resume", "chat"), Moment::from_ms(1_800_000_000_000));
        let says = "con-a_B-1";
        let token = chat.token(&keys(1), says, until);
        assert_eq!(token.len(), says.len() + ADDED_CHARS);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(token.bytes().all(is_plain), "{token}");
        const FOREIGN: Result<&str, &str> = Err("the link is not ours");
        let check = |purpose: Purpose<'_>, key: u8, token: &str, late_ms: i64, expected: Result<&str, &str>| {
            let found = purpose.read(&keys(key), token, until.plus_ms(late_ms));
            assert_eq!(found, expected, "{purpose:?} {token} {late_ms}");
        };
        check(chat, 1, &token, 0, Ok(says));
        check(chat, 1, &token, 1, Err("the link has expired"));
        check(chat, 2, &token, 0, FOREIGN);
        check(purpose("resume", "help"), 1, &token, 0, FOREIGN);
        check(purpose("start", "chat"), 1, &token, 0, FOREIGN);
        for wrong in [
            "",
            "-",
            "--",
            "a-b-c",
            &token[1..],
            &token.replace("1800000000", "1900000000"),
            &token.replace("con", "Con"),
            &format!("{token}-"),
            &format!("x-{token}"),
            token.rsplit_once('-').unwrap().0,
        ] {
            check(chat, 1, wrong, 0, FOREIGN);
        }
    }
}
