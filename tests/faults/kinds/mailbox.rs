//! The mail server, the way to it, and other people in our mailbox.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Told;
use crate::faults::Site;
use crate::faults::load::MAIL;
use crate::faults::oracle::Input;
use crate::harness::mail::Letter;
use crate::harness::process::resident_mib;
use crate::harness::random::Random;

/// Stands before the bytes of a mail, and of nothing else.
pub const BODY: &[u8] = b"BODY[] {";
/// Stands in the answer that comes before them: how large it is.
const OUTLINE: &[u8] = b" RFC822.SIZE ";
/// Until a mail is read.
pub const READ_WITHIN: Duration = Duration::from_secs(10);
/// So many wait at once, in a short run and, once, in a long one.
const WAITING: usize = 100;
const WAITING_IN_A_LONG_RUN: usize = 5_000;
const ALL_READ_WITHIN: Duration = Duration::from_secs(300);
/// A worker may have so much while it reads them.
const MAX_MIB: f64 = 300.0;

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

/// The connection is cut within the bytes of a mail, more than once, but less often
/// than a mail is given up after.
pub async fn cut_in_a_literal(site: &Site, random: &mut Random) -> Told {
    let times = random.between(1, 4);
    let mut cut = 0;
    for _ in 0..times {
        let caught = site.world.imap.catch(BODY, READ_WITHIN).await;
        cut += u32::from(caught.is_some());
    }
    Ok((format!("{cut} times"), cut > 0))
}

/// Somebody moves a mail away while it is given to us: after we have asked how large it
/// is, or within its bytes. To us it is deleted; and when it is moved back, it is new.
pub async fn moved_in_mid_fetch(site: &Site, random: &mut Random) -> Told {
    let words = if random.one_in(2) { OUTLINE } else { BODY };
    let Some(caught) = site.world.imap.catch(words, READ_WITHIN).await else {
        return Ok((String::new(), false));
    };
    let (mail, ours) = (&site.world.mail, site.world.ours(MAIL));
    let uid = uid_of(&caught.before)?;
    mail.move_away(&ours, uid, "Elsewhere").await?;
    caught.go_on();
    tokio::time::sleep(Duration::from_millis(random.between(0, 2_000))).await;
    mail.move_back(&ours, "Elsewhere").await?;
    let when = if words == BODY {
        "within its bytes"
    } else {
        "before its bytes"
    };
    Ok((format!("({when})"), true))
}

/// `* 7 FETCH (UID 12 …`
fn uid_of(answer: &[u8]) -> Result<u32> {
    let text = String::from_utf8_lossy(answer);
    let (_, rest) = text.rsplit_once("(UID ").context("an answer without a UID")?;
    let digits = rest.split(' ').next().unwrap_or_default();
    digits.parse().with_context(|| format!("no UID: {digits}"))
}

/// As after a long outage: many mails are there at once, and are read one after
/// another, with no more memory than one takes.
pub async fn many_wait(site: &Site, random: &mut Random) -> Told {
    let inputs = site.oracle.inputs();
    let is_enough = inputs.values().filter(|input| input.account == MAIL).count() >= WAITING_IN_A_LONG_RUN;
    let count = match site.plan.is_long && !is_enough {
        true => WAITING_IN_A_LONG_RUN,
        false => WAITING,
    };
    let (name, ours) = (format!("q{}", random.draw()), site.world.ours(MAIL));
    for index in 0..count {
        let id = format!("{name}-{index}");
        let letter = Letter::new(
            &site.world.theirs("gina"),
            &ours,
            &format!("{id}@customer.example"),
            &id,
            &format!("{id} is what I write."),
        );
        let input = Input {
            account: MAIL,
            thread: id.clone(),
            index: 0,
            raw: None,
            is_taken: false,
            message_id: None,
        };
        site.oracle.begin(&id, input);
        site.world.mail.lay(&ours, &id, &letter.bytes())?;
        site.oracle.taken(&id, None);
    }
    let (most, is_seen) = watch_reading(site).await;
    ensure!(most < MAX_MIB, "a worker takes {most:.0} MiB");
    Ok((format!("({count} at once, {most:.0} MiB)"), is_seen))
}

/// Until nothing waits in the mailbox any more: the most that a worker took, and whether
/// anything was seen to wait.
async fn watch_reading(site: &Site) -> (f64, bool) {
    let (began, mut most, mut is_seen) = (Instant::now(), 0.0_f64, false);
    loop {
        for process in site.world.processes().await.iter() {
            if process.name.starts_with("worker") {
                // It may just be dead.
                most = most.max(process.pid().and_then(resident_mib).unwrap_or(0.0));
            }
        }
        let is_waiting = site.is_pending(&["mailbox"]).await;
        is_seen |= is_waiting;
        let longest = if is_seen { ALL_READ_WITHIN } else { READ_WITHIN };
        if is_seen && !is_waiting || began.elapsed() > longest {
            return (most, is_seen);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Mails come one after another: one that was sent a moment ago is under way.
async fn is_mail_under_way(site: &Site) -> bool {
    site.is_pending(&["mailbox"]).await || site.oracle.is_busy()
}
