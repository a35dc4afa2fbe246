//! Postgres that crashes, ends sessions, is locked, or has transactions that stay open.

use std::time::Duration;

use super::super::kind::Kind;
use super::super::schedule::Planned;
use super::super::stage::Stage;
use super::last;

impl Stage {
    pub(super) async fn inject_postgres(&mut self, fault: Planned) {
        let open = Duration::from_millis(fault.lasts);
        let (name, dice) = (format!("visitor-{}", fault.at), self.dice.split());
        match fault.kind {
            Kind::PostgresCrash => {
                self.world.postgres.stop_immediate().unwrap();
                last(fault).await;
                self.world.postgres.restart().unwrap();
            }
            Kind::BackendKill => self.end_backends("pg_terminate_backend", fault.pick).await,
            Kind::StatementCancel => self.end_backends("pg_cancel_backend", fault.pick).await,
            Kind::ListenerKill => {
                let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
                           where application_name = 'outbox-relay wake'";
                self.sql(sql).await;
            }
            Kind::TableLock => self.lock(fault.pick).await,
            Kind::LongTransaction => self.visitors.push(self.desk.long(&name, dice, open)),
            Kind::Prepared => self.visitors.push(self.desk.prepared(&name, dice, open)),
            _ => {}
        }
    }

    pub(super) async fn heal_postgres(&mut self, fault: Planned) {
        if fault.kind == Kind::TableLock {
            for client in self.locks.drain(..) {
                let _ = client.batch_execute("commit").await;
            }
        }
    }

    /// Some of the relays' connections are ended, or what they are doing is.
    async fn end_backends(&self, how: &str, pick: u64) {
        let sql = format!(
            "select {how}(pid) from pg_stat_activity where application_name like 'outbox-relay%' \
             and hashtext(application_name || {pick}) % 3 = 0"
        );
        self.sql(&sql).await;
    }

    /// A migration locks a table, if it is given the lock soon.
    async fn lock(&mut self, pick: u64) {
        let table = ["entry", "batch", "stream", "lease"][pick as usize % 4];
        let url = self.world.postgres.url();
        let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await
        else {
            return;
        };
        tokio::spawn(connection);
        let sql = format!(
            "set lock_timeout = '500ms'; begin; lock table outbox.{table} in access exclusive mode"
        );
        if client.batch_execute(&sql).await.is_ok() {
            self.locks.push(client);
        }
    }
}
