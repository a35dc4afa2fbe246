//! The shop: its tables, its writers, and what it knows about its own transactions.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::error::DemoError;
use super::journal::{Event, Fate, Journal, Record, Row};
use super::writer;

/// Connections that sell at the same time.
pub(super) const WRITERS: u32 = 4;

/// Payments go to one of the latest orders, so that writers meet at the same rows.
const ORDERS_IN_REACH: usize = 24;

/// A shop with writers at work. They are aborted when it is dropped.
pub(super) struct Shop {
    writers: JoinSet<Result<(), DemoError>>,
    till: Arc<Till>,
    database_url: String,
}

/// What all writers share.
pub(super) struct Till {
    pub(super) journal: Journal,
    closed: AtomicBool,
    committed: AtomicU64,
    last_order: AtomicI64,
    last_payment: AtomicI64,
    unpaid: Mutex<Vec<i64>>,
}

impl Shop {
    /// Creates the shop's tables and lets writers place and pay for orders, in all about `rate`
    /// transactions a second.
    pub(super) async fn open(
        database_url: String,
        journal: Journal,
        rate: u32,
    ) -> Result<Self, DemoError> {
        connect(&database_url)
            .await?
            .batch_execute(include_str!("schema.sql"))
            .await
            .map_err(DemoError::postgres("cannot create the shop's tables"))?;
        let till = Arc::new(Till::new(journal));
        let mut writers = JoinSet::new();
        let pause = Duration::from_secs(1) * WRITERS / rate.max(1);
        for _ in 0..WRITERS {
            writers.spawn(writer::write(database_url.clone(), Arc::clone(&till), pause));
        }
        Ok(Self { writers, till, database_url })
    }

    /// Rows of `outbox.entry` that are known to be committed.
    pub(super) fn committed(&self) -> u64 {
        self.till.committed.load(Ordering::Relaxed)
    }

    pub(super) fn till(&self) -> Arc<Till> {
        Arc::clone(&self.till)
    }

    pub(super) fn records(&self) -> Result<Vec<Record>, DemoError> {
        self.till.journal.read().map_err(DemoError::io("cannot read the shop's journal"))
    }

    /// Fails when a writer has given up.
    pub(super) fn ensure_open(&mut self) -> Result<(), DemoError> {
        self.writers.try_join_next().map_or(Ok(()), outcome)
    }

    /// Lets the writers end what they are doing, then finds out what became of commits that
    /// nobody answered.
    pub(super) async fn close(&mut self) -> Result<(), DemoError> {
        self.till.closed.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            outcome(ended)?;
        }
        let unknown: Vec<Event> = self
            .records()?
            .into_iter()
            .filter(|record| record.fate == Fate::Unknown)
            .map(|record| record.event)
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut client = connect(&self.database_url).await?;
        let fates = fates(&mut client, &unknown)
            .await
            .map_err(DemoError::postgres("cannot look for the rows of unanswered commits"))?;
        for (event, fate) in unknown.iter().zip(fates) {
            self.till.write_down(std::slice::from_ref(event), fate)?;
        }
        Ok(())
    }
}

impl Till {
    fn new(journal: Journal) -> Self {
        Self {
            journal,
            closed: AtomicBool::new(false),
            committed: AtomicU64::new(0),
            last_order: AtomicI64::new(0),
            last_payment: AtomicI64::new(0),
            unpaid: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    pub(super) fn next_order(&self) -> i64 {
        self.last_order.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn next_payment(&self) -> i64 {
        self.last_payment.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One of the latest orders that are not paid, chosen by the number `choice`.
    pub(super) fn unpaid_order(&self, choice: usize) -> Option<i64> {
        let unpaid = self.unpaid.lock().unwrap_or_else(PoisonError::into_inner);
        let reach = unpaid.len().min(ORDERS_IN_REACH);
        (reach > 0).then(|| unpaid[unpaid.len() - 1 - choice % reach])
    }

    pub(super) fn order_placed(&self, order: i64) {
        self.unpaid.lock().unwrap_or_else(PoisonError::into_inner).push(order);
    }

    pub(super) fn order_paid(&self, order: i64) {
        let mut unpaid = self.unpaid.lock().unwrap_or_else(PoisonError::into_inner);
        unpaid.retain(|other| *other != order);
    }

    /// Puts the fate of all events of one transaction into the journal.
    pub(super) fn write_down(&self, events: &[Event], fate: Fate) -> Result<(), DemoError> {
        self.journal
            .append(events, fate)
            .map_err(DemoError::io("cannot write the shop's journal"))?;
        if fate == Fate::Committed {
            self.committed.fetch_add(events.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A connection of the shop.
pub(super) async fn connect(url: &str) -> Result<Client, DemoError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .map_err(DemoError::postgres("the shop cannot connect to PostgreSQL"))?;
    // Its errors reach whoever uses the client.
    tokio::spawn(connection);
    Ok(client)
}

fn outcome(ended: Result<Result<(), DemoError>, tokio::task::JoinError>) -> Result<(), DemoError> {
    ended.unwrap_or_else(|e| Err(DemoError::failed("a writer of the shop panicked", &e)))
}

/// Committed where the business row exists, else rolled back.
async fn fates(client: &mut Client, events: &[Event]) -> Result<Vec<Fate>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    // Waits for transactions whose client is gone but whose commit is still under way.
    transaction.batch_execute("lock table shop.orders, shop.payments in share mode").await?;
    let mut fates = Vec::with_capacity(events.len());
    for event in events {
        let (query, id) = match event.row {
            Row::Order(id) => ("select from shop.orders where id = $1", id),
            Row::Payment(id) => ("select from shop.payments where id = $1", id),
        };
        let row = transaction.query_opt(query, &[&id]).await?;
        fates.push(row.map_or(Fate::RolledBack, |_| Fate::Committed));
    }
    transaction.commit().await?;
    Ok(fates)
}
