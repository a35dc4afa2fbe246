//! Whether the schema is as `migrate` left it, and as a relay needs it: for a doctor.

use std::time::Duration;

use tokio_postgres::Row;

use super::cluster::{Checkup, Holder};
use super::connect::answer;
use super::migrate::{self, NEWEST};
use crate::error::Result;

/// Where triggers are defined.
const DEFINITIONS: &str = include_str!("../../sql/migrations/0001_outbox.sql");

/// The version of the schema, against that of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaVersion {
    /// There is no schema.
    Missing,
    /// It is older than this program.
    Older(i32),
    /// It is this program's.
    Current,
    /// It is newer than this program.
    Newer(i32),
}

/// A trigger of `outbox.entry` that does not fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleTrigger {
    /// Its name.
    pub name: String,
    /// It is there, and disabled.
    pub exists: bool,
    /// The statement that enables it, or makes it.
    pub remedy: String,
}

impl Checkup {
    /// The version of the schema.
    ///
    /// # Errors
    /// As any statement.
    pub async fn schema_version(&self) -> Result<SchemaVersion> {
        Ok(match migrate::version(&self.0).await? {
            0 => SchemaVersion::Missing,
            version if version < NEWEST => SchemaVersion::Older(version),
            version if version > NEWEST => SchemaVersion::Newer(version),
            _ => SchemaVersion::Current,
        })
    }

    /// The outbox, the cluster that it was made in, and the cluster that this is.
    ///
    /// # Errors
    /// As any statement.
    pub async fn identity(&self) -> Result<(String, String, String)> {
        let sql = "select i.id::text, i.system_identifier, c.system_identifier::text \
                   from outbox.identity i cross join pg_control_system() c";
        let row = answer(self.0.client().query_one(sql, &[])).await?;
        Ok((row.get(0), row.get(1), row.get(2)))
    }

    /// Rights that a relay needs and this role does not have, as `grant` names them. Answered also where
    /// the role has none.
    ///
    /// # Errors
    /// As any statement.
    pub async fn missing_rights(&self) -> Result<Vec<String>> {
        let rows = self.ask(include_str!("../../sql/queries/missing_rights.sql")).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Triggers of `outbox.entry` that do not fire.
    ///
    /// # Errors
    /// As any statement.
    pub async fn idle_triggers(&self) -> Result<Vec<IdleTrigger>> {
        let rows = self.ask(include_str!("../../sql/queries/idle_triggers.sql")).await?;
        let read = |row: &Row| {
            let (name, enable): (String, Option<String>) = (row.get(0), row.get(1));
            let exists = enable.is_some();
            let remedy = enable.unwrap_or_else(|| definition(&name));
            IdleTrigger { name, exists, remedy }
        };
        Ok(rows.iter().map(read).collect())
    }

    /// What is wrong with the sequence that numbers rows, if something is: how many ids a session draws
    /// at once, whether it begins again at its end.
    ///
    /// # Errors
    /// As any statement.
    pub async fn odd_sequence(&self) -> Result<Option<(i64, bool)>> {
        let sql = "select s.seqcache, s.seqcycle from pg_sequence s join pg_class c on c.oid = s.seqrelid \
                   where c.relnamespace = 'outbox'::regnamespace and c.relname = 'entry_id_seq' \
                   and (s.seqcache <> 1 or s.seqcycle)";
        let row = answer(self.0.client().query_opt(sql, &[])).await?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    /// Nets with rows in them.
    ///
    /// # Errors
    /// As any statement.
    pub async fn nets(&self) -> Result<Vec<String>> {
        let rows = self.ask(include_str!("../../sql/queries/nets.sql")).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// For each partitioned table, how many more numbers have a leaf to go to.
    ///
    /// # Errors
    /// As any statement.
    pub async fn leaf_room(&self) -> Result<Vec<(String, i64)>> {
        let rows = self.ask(include_str!("../../sql/queries/leaf_room.sql")).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// As [`Checkup::holders`], those whose begin this role may not see.
    ///
    /// # Errors
    /// As any statement.
    pub async fn unseen_holders(&self, least: Duration) -> Result<Vec<Holder>> {
        let sql = include_str!("../../sql/queries/unseen_holders.sql");
        let rows = answer(self.0.client().query(sql, &[&least.as_secs_f64()])).await?;
        let read = |row: &Row| Holder {
            name: row.get("name"),
            prepared: false,
            who: row.get("who"),
            age: None,
            remedy: row.get("remedy"),
        };
        Ok(rows.iter().map(read).collect())
    }
}

/// The statement that made a trigger, on one line.
fn definition(name: &str) -> String {
    let begin = ["create trigger ", name, " "].concat();
    let text = DEFINITIONS.split_once(&begin).map_or("", |(_, rest)| rest);
    let text = text.split(';').next().unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    begin + &words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::definition;

    #[test]
    fn a_trigger_is_made_as_the_migration_made_it() {
        let wake = definition("wake");
        assert!(wake.starts_with("create trigger wake after insert on outbox.entry"), "{wake}");
        assert!(wake.ends_with("execute function outbox.wake()"), "{wake}");
        let refuse = definition("refuse_entry");
        assert!(refuse.ends_with("execute function outbox.refuse_entry()"), "{refuse}");
    }
}
