//! Parked and quarantined inputs.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::context::ParkedInput;
use model::event::{Raw, RawContent};

use super::messages::raw_columns;
use crate::Error;
use crate::connection::Connection;
use crate::sql::{get, rows, sql};

/// What the quarantine of an account may hold (C4).
const QUARANTINE_INPUTS: i64 = 1_000;
const QUARANTINE_BYTES: i64 = 16 * 1024 * 1024;

/// An id that is there already (a replay that failed again) opens again.
pub(super) async fn insert(connection: &mut Connection, parked: &[ParkedInput]) -> Result<(), Error> {
    let mut inputs: BTreeMap<&str, &ParkedInput> = parked.iter().map(|input| (input.id.as_str(), input)).collect();
    drop_over_quota(connection, &mut inputs).await?;
    let mut statement = rows(
        "INSERT INTO parked (id, account, channel, quarantined, reason, size_bytes, received_at, raw_request, raw)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT (id) DO UPDATE SET quarantined = excluded.quarantined, reason = excluded.reason,
             replayed_at = NULL",
        "writing parked inputs",
    );
    for (id, input) in inputs {
        let (raw_request, raw) = raw_columns(&input.raw)?;
        statement.push(vec![
            id.into(),
            input.account.as_str().into(),
            input.channel.as_str().into(),
            input.quarantined.into(),
            // Parking is the last resort: nothing about it may be refused.
            input.reason.replace('\0', "").into(),
            size_bytes(&input.raw).into(),
            input.received_at.into(),
            raw_request.into(),
            raw.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// Takes new quarantined inputs out for which their account has no room.
async fn drop_over_quota(connection: &mut Connection, inputs: &mut BTreeMap<&str, &ParkedInput>) -> Result<(), Error> {
    let quarantined: Vec<&ParkedInput> = inputs.values().copied().filter(|input| input.quarantined).collect();
    if quarantined.is_empty() {
        return Ok(());
    }
    let known = rows(
        "SELECT p.id FROM {rows} JOIN parked AS p ON p.id = v.column1",
        "reading known quarantined inputs",
    )
    .of(quarantined.iter().map(|input| input.id.as_str()))
    .all(connection)
    .await?;
    let known: HashSet<String> = known.iter().map(|row| get(row, "id")).collect::<Result<_, _>>()?;
    let mut used = HashMap::new();
    for input in quarantined.into_iter().filter(|input| !known.contains(&input.id)) {
        if !used.contains_key(&input.account) {
            let present = quarantine_of(connection, &input.account).await?;
            used.insert(&input.account, present);
        }
        let Some((count, bytes)) = used.get_mut(&input.account) else {
            continue;
        };
        let size = size_bytes(&input.raw);
        if *count + 1 > QUARANTINE_INPUTS || *bytes + size > QUARANTINE_BYTES {
            inputs.remove(input.id.as_str());
            tracing::warn!(account.name = input.account, "quarantine full, input dropped");
            continue;
        }
        *count += 1;
        *bytes += size;
    }
    Ok(())
}

/// Inputs and bytes that wait in an account's quarantine.
async fn quarantine_of(connection: &mut Connection, account: &str) -> Result<(i64, i64), Error> {
    let row = sql(
        "SELECT COUNT(*) AS inputs, CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS bytes FROM parked
         WHERE quarantined = 1 AND account = $1 AND replayed_at IS NULL",
        "reading a quarantine's size",
    )
    .bind(account)
    .first(connection)
    .await?;
    row.as_ref()
        .map_or(Ok((0, 0)), |row| Ok((get(row, "inputs")?, get(row, "bytes")?)))
}

fn size_bytes(raw: &Raw) -> i64 {
    let content = match &raw.content {
        RawContent::Inline(bytes) => bytes.len() as u64,
        RawContent::Blob { size_bytes, .. } => *size_bytes,
    };
    i64::try_from(content).unwrap_or(i64::MAX)
}
