//! The mail server, and other people in our mailbox.

use anyhow::Result;

use super::Told;
use crate::faults::Site;
use crate::faults::load::MAIL;
use crate::harness::random::Random;

pub async fn dovecot_restarts(site: &Site, _: &mut Random) -> Told {
    let is_busy = is_mail_under_way(site).await;
    site.world.mail.restart_dovecot().await?;
    Ok((String::new(), is_busy))
}

pub async fn another_uid_validity(site: &Site, random: &mut Random) -> Told {
    let is_busy = is_mail_under_way(site).await;
    let uid_validity = u32::try_from(random.between(1_900_000_000, 4_000_000_000))?;
    site.world
        .mail
        .set_uid_validity(&site.world.ours(MAIL), uid_validity)
        .await?;
    Ok((format!("({uid_validity})"), is_busy))
}

/// Somebody looks at the mailbox and reads everything, again and again.
pub async fn others_read(site: &Site, _: &mut Random) -> Told {
    let is_busy = is_mail_under_way(site).await;
    for _ in 0..10 {
        // Dovecot may just be away itself.
        let _: Result<()> = site.world.mail.mark_seen(&site.world.ours(MAIL)).await;
    }
    Ok((String::new(), is_busy))
}

/// Mails come one after another: one that was sent a moment ago is under way.
async fn is_mail_under_way(site: &Site) -> bool {
    site.is_pending(&["mailbox"]).await || site.oracle.is_busy()
}
