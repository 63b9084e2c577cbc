//! Ticket numbers: reserved in the database by the handful, kept in memory until
//! they are used, so that a quiet installation has no gaps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::PoisonError;

use model::ticket::kind::{KINDS, Kind};

use crate::sql::{get, sql};
use crate::{Error, Store};

/// Who misses as many has no quiet hour: reserving [`AHEAD`] times as many saves
/// transactions.
const MANY: i64 = 64;
const AHEAD: i64 = 8;

/// Reserved numbers that nobody uses yet, by kind.
pub(crate) type Pool = BTreeMap<&'static str, BTreeSet<i64>>;

impl Store {
    /// At least `count` numbers of every kind, as tickets show them.
    pub(crate) async fn take_numbers(&self, count: usize) -> Result<BTreeMap<String, VecDeque<String>>, Error> {
        let mut numbers = BTreeMap::new();
        if count == 0 {
            return Ok(numbers);
        }
        for kind in KINDS {
            let taken = self.take(kind, count).await?;
            let formatted = taken
                .into_iter()
                .map(|number| format!("{}{number:07}", kind.prefix))
                .collect();
            numbers.insert(kind.name.to_owned(), formatted);
        }
        Ok(numbers)
    }

    /// Gives numbers back that a batch did not use, once its changes are written
    /// or dropped.
    pub fn return_numbers(&self, numbers: BTreeMap<String, VecDeque<String>>) {
        let mut pool = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in KINDS {
            for number in numbers.get(kind.name).into_iter().flatten() {
                let digits = number.strip_prefix(kind.prefix).map(str::parse);
                if let Some(Ok(number)) = digits {
                    pool.entry(kind.name).or_default().insert(number);
                }
            }
        }
    }

    async fn take(&self, kind: &'static Kind, count: usize) -> Result<Vec<i64>, Error> {
        let mut taken = self.take_from_pool(kind, count);
        let missing = i64::try_from(count - taken.len()).unwrap_or(0);
        if missing == 0 {
            return Ok(taken);
        }
        let reserved = if missing < MANY { missing } else { missing * AHEAD };
        match self.reserve(kind, reserved).await {
            Ok(first) => {
                taken.extend(first..first + missing);
                self.put_into_pool(kind, first + missing..first + reserved);
                Ok(taken)
            }
            Err(error) => {
                self.put_into_pool(kind, taken);
                Err(error)
            }
        }
    }

    fn take_from_pool(&self, kind: &'static Kind, count: usize) -> Vec<i64> {
        let mut pool = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pool.entry(kind.name).or_default();
        let taken: Vec<i64> = kept.iter().copied().take(count).collect();
        for number in &taken {
            kept.remove(number);
        }
        taken
    }

    fn put_into_pool(&self, kind: &'static Kind, numbers: impl IntoIterator<Item = i64>) {
        let mut pool = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        pool.entry(kind.name).or_default().extend(numbers);
    }

    /// The first of `count` consecutive numbers that are ours from now on.
    async fn reserve(&self, kind: &'static Kind, count: i64) -> Result<i64, Error> {
        let doing = "reserving ticket numbers";
        let mut transaction = self.begin(doing).await?;
        let row = sql(
            "INSERT INTO numbers (prefix, next) VALUES ($1, 1 + $2)
             ON CONFLICT (prefix) DO UPDATE SET next = numbers.next + $2 RETURNING next",
            doing,
        )
        .bind(kind.prefix)
        .bind(count)
        .first(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        let next: i64 = match &row {
            Some(row) => get(row, "next")?,
            None => return Err(Error::corrupt(doing, "no number came back")),
        };
        Ok(next - count)
    }
}
