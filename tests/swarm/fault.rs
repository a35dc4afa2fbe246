//! How each fault is injected, and how it is healed.

mod network;
mod postgres;
mod redis;
mod relay;

use std::time::Duration;

use super::kind::{Kind, Side};
use super::moment::now;
use super::schedule::Planned;
use super::stage::{Stage, Window};

impl Stage {
    /// Lets it happen.
    pub(crate) async fn inject(&mut self, fault: Planned) {
        *self.injected.entry(fault.kind).or_default() += 1;
        let began = now();
        match fault.kind.side() {
            Side::Relay => self.inject_relay(fault).await,
            Side::Network => self.inject_network(fault).await,
            Side::Redis => self.inject_redis(fault).await,
            Side::Postgres => self.inject_postgres(fault).await,
            Side::Application => self.inject_application(fault),
        }
        let ended = now().max(began + fault.lasts as i64 * 1_000);
        self.windows.push(Window { kind: fault.kind, began, ended });
    }

    /// Ends it, when its time is over.
    pub(crate) async fn heal(&mut self, fault: Planned) {
        match fault.kind.side() {
            Side::Relay => self.heal_relay(fault),
            Side::Network => self.heal_network(fault),
            Side::Redis => self.heal_redis(fault).await,
            Side::Postgres => self.heal_postgres(fault).await,
            Side::Application => self.heal_application(fault),
        }
        let ended = now();
        let last = self.windows.iter_mut().rev().find(|window| window.kind == fault.kind);
        if let Some(window) = last {
            window.ended = window.ended.max(ended);
        }
    }

    fn inject_application(&mut self, fault: Planned) {
        match fault.kind {
            Kind::Bulk => {
                let (name, dice) = (format!("bulk-{}", fault.at), self.dice.split());
                let rows = 500 + fault.pick as usize % 2_500;
                self.visitors.push(self.desk.bulk(&name, dice, rows));
            }
            Kind::ConsumerKill => {
                let (group, stream) = self.seat(fault.pick);
                self.consumers.dismiss(&group, &stream);
            }
            Kind::ConsumerSlow => self.consumers.slow_down(150),
            _ => {}
        }
    }

    fn heal_application(&mut self, fault: Planned) {
        match fault.kind {
            Kind::ConsumerKill => {
                let (group, stream) = self.seat(fault.pick);
                if !self.destroyed.contains_key(&(group.clone(), stream.clone())) {
                    self.consumers.seat(&group, &stream);
                }
            }
            Kind::ConsumerSlow => self.consumers.slow_down(self.usual_slowness()),
            _ => {}
        }
    }

    /// A group and a stream.
    fn seat(&self, pick: u64) -> (String, String) {
        let group = self.groups[(pick / 16) as usize % self.groups.len()].clone();
        (group, self.stream(pick))
    }

    /// Runs a command of the program against the servers themselves; true if it did what it was asked.
    pub(crate) fn command(&self, words: &[&str]) -> bool {
        let urls = self.world.urls();
        let variables = [
            ("DATABASE_URL", &*urls.0),
            ("REDIS_URL", &*urls.1),
            ("OUTBOX_PREFIX", self.prefix),
            ("OUTBOX_START", "1s"),
        ];
        let ended = crate::support::command::command(words, &variables);
        if ended.code != Some(0) {
            println!("{words:?} ended with {ended:?}");
        }
        ended.code == Some(0)
    }
}

/// How long a fault that is over within its injection lasts; nothing is waited for.
async fn last(fault: Planned) {
    tokio::time::sleep(Duration::from_millis(fault.lasts)).await;
}
