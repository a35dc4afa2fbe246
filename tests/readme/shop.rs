//! The tables of the shop that the README speaks of, and what its workers have done.

use crate::support::world::World;

/// A mail is counted by what nothing can hide a second one from.
const TABLES: &str = "
    create table orders (id bigint primary key, status text not null);
    create table mail (order_id bigint not null, status text not null);
    create table mailed (order_id bigint primary key, times bigint not null);
    create function count_mail() returns trigger language plpgsql security definer as $$ begin
        insert into mailed values (new.order_id, 1)
        on conflict (order_id) do update set times = mailed.times + 1;
        return null;
    end $$;
    create trigger count_mail after insert on mail for each row execute function count_mail();
    grant all on orders, mail to shop";

/// What workers have done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mails {
    /// Orders that were told at least once.
    pub(super) orders: i64,
    /// The most often that one was told.
    pub(super) most: i64,
    /// Mails.
    pub(super) all: i64,
    /// Events that are noted as done.
    pub(super) noted: i64,
}

impl World {
    /// Makes the tables, with `orders` orders.
    pub(super) async fn open_shop(&self, orders: u64) {
        self.sql(TABLES).await;
        let sql =
            format!("insert into orders select n, 'paid' from generate_series(1, {orders}) n");
        self.sql(&sql).await;
    }

    pub(super) async fn mails(&self) -> Mails {
        let sql = "select count(*), coalesce(max(times), 0), (select count(*) from mail), \
                   (select count(*) from outbox.done where consumer_group = 'workers') from mailed";
        let row = self.owner().await.query_one(sql, &[]).await.unwrap();
        Mails { orders: row.get(0), most: row.get(1), all: row.get(2), noted: row.get(3) }
    }
}
