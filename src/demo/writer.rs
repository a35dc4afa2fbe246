//! A writer: one sale after the other, each a business row and its events in one transaction.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};
use uuid::Uuid;

use super::error::DemoError;
use super::journal::{Event, Fate, Row};
use super::shop::{Till, connect};

/// One transaction in so many is rolled back on purpose.
const ROLLED_BACK_ONE_IN: usize = 20;

/// One transaction in so many places an order, the others pay.
const PLACES_ONE_IN: usize = 3;

const INSTALMENTS_AT_MOST: usize = 3;

const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Makes one sale every `pause` until the shop closes. A lost connection is opened again, any
/// other failure is a fault in this program or in the schema, and ends the demo.
pub(super) async fn write(url: String, till: Arc<Till>, pause: Duration) -> Result<(), DemoError> {
    let mut client = connect(&url).await?;
    let mut tick = interval(pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !till.is_closed() {
        tick.tick().await;
        if client.is_closed() {
            sleep(RECONNECT_PAUSE).await;
            client = connect(&url).await?;
        }
        sell(&mut client, &till).await?;
    }
    Ok(())
}

/// What a transaction did to an order, and the events that say so.
struct Sale {
    order: i64,
    change: Change,
    events: Vec<(Event, &'static str)>,
}

enum Change {
    Placed,
    PartlyPaid,
    Paid,
}

async fn sell(client: &mut Client, till: &Till) -> Result<(), DemoError> {
    let (sale, fate) = match try_to_sell(client, till).await {
        Ok(Some(known)) => known,
        Ok(None) => return Ok(()),
        Err(error) if is_lost_connection(&error) => return Ok(()),
        Err(error) => return Err(DemoError::failed("a writer of the shop failed", &error)),
    };
    if fate == Fate::Committed {
        match sale.change {
            Change::Placed => till.order_placed(sale.order),
            Change::PartlyPaid => {}
            Change::Paid => till.order_paid(sale.order),
        }
    }
    let events: Vec<Event> = sale.events.into_iter().map(|(event, _)| event).collect();
    till.write_down(&events, fate)
}

fn is_lost_connection(error: &Error) -> bool {
    // 08 is a broken connection; 57P01 to 57P03 a server that ends it.
    let ended =
        |state: &SqlState| ["08", "57P"].iter().any(|class| state.code().starts_with(class));
    error.is_closed()
        || error.code().is_some_and(ended)
        || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// One transaction. Nothing is in the journal about one that failed before its commit: it left
/// no row, and an entry made from it would be one that the journal does not know.
async fn try_to_sell(client: &mut Client, till: &Till) -> Result<Option<(Sale, Fate)>, Error> {
    let transaction = client.transaction().await?;
    let unpaid = match dice(PLACES_ONE_IN) {
        0 => None,
        _ => till.unpaid_order(dice(usize::MAX)),
    };
    let sale = match unpaid {
        Some(order) => pay(&transaction, till, order).await?,
        None => Some(place(&transaction, till).await?),
    };
    let Some(sale) = sale else {
        transaction.rollback().await?;
        return Ok(None);
    };
    for (event, kind) in &sale.events {
        insert(&transaction, event, kind).await?;
    }
    if dice(ROLLED_BACK_ONE_IN) == 0 {
        transaction.rollback().await?;
        return Ok(Some((sale, Fate::RolledBack)));
    }
    let fate = match transaction.commit().await {
        Ok(()) => Fate::Committed,
        Err(_) => Fate::Unknown,
    };
    Ok(Some((sale, fate)))
}

async fn place(transaction: &Transaction<'_>, till: &Till) -> Result<Sale, Error> {
    let order = till.next_order();
    let instalments = 1 + i32::try_from(dice(INSTALMENTS_AT_MOST)).unwrap_or_default();
    let query = "insert into shop.orders (id, instalments) values ($1, $2)";
    transaction.execute(query, &[&order, &instalments]).await?;
    let row = Row::Order(order);
    Ok(Sale {
        order,
        change: Change::Placed,
        events: vec![(event("orders", order, 1, row), "order.placed")],
    })
}

/// Pays one instalment; `None` when another writer has paid the last one.
async fn pay(
    transaction: &Transaction<'_>,
    till: &Till,
    order: i64,
) -> Result<Option<Sale>, Error> {
    // The lock on the order gives all events about it their order.
    let query = "select instalments, payments from shop.orders where id = $1 for update";
    let row = transaction.query_one(query, &[&order]).await?;
    let (instalments, payments): (i32, i32) = (row.get(0), row.get(1));
    if payments >= instalments {
        return Ok(None);
    }
    let (number, is_last) = (payments + 1, payments + 1 == instalments);
    let payment = till.next_payment();
    let query = "insert into shop.payments (id, order_id, number) values ($1, $2, $3)";
    transaction.execute(query, &[&payment, &order, &number]).await?;
    let status = if is_last { "paid" } else { "partly paid" };
    let query = "update shop.orders set payments = $2, status = $3 where id = $1";
    transaction.execute(query, &[&order, &number, &status]).await?;
    let row = Row::Payment(payment);
    let mut events = vec![(event("payments", order, number, row), "payment.received")];
    if is_last {
        events.push((event("orders", order, 2, row), "order.paid"));
    }
    Ok(Some(Sale {
        order,
        change: if is_last { Change::Paid } else { Change::PartlyPaid },
        events,
    }))
}

fn event(stream: &'static str, order: i64, sequence: i32, row: Row) -> Event {
    Event { id: Uuid::new_v4(), stream, key: order, sequence, row }
}

async fn insert(transaction: &Transaction<'_>, event: &Event, kind: &str) -> Result<(), Error> {
    let query = "insert into outbox.entry (event_id, stream, key, type, payload) \
                 values ($1, $2, $3, $4, $5)";
    let payload = json!({ "order_id": event.key });
    let key = event.key.to_string();
    transaction.execute(query, &[&event.id, &event.stream, &key, &kind, &payload]).await.map(drop)
}

/// A number below `sides`, from the random bits of a new UUID.
fn dice(sides: usize) -> usize {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    usize::try_from(random).unwrap_or(usize::MAX) % sides
}
