//! What the proxies between relays and servers do.

use std::time::Duration;

use super::super::kind::Kind;
use super::super::schedule::Planned;
use super::super::stage::Stage;
use crate::support::proxy::{Direction, Proxy};

impl Stage {
    /// The proxy that a fault is about.
    fn proxy(&self, kind: Kind) -> &Proxy {
        if kind.name().starts_with("redis-") { &self.front } else { &self.back }
    }

    pub(super) async fn inject_network(&mut self, fault: Planned) {
        let proxy = self.proxy(fault.kind);
        let bytes = fault.pick % 6_000;
        match fault.kind {
            Kind::RedisDelay | Kind::PostgresDelay => {
                proxy.set_delay(Duration::from_millis(1 + fault.pick % 100));
            }
            Kind::RedisJitter => proxy.set_jitter(Duration::from_millis(1 + fault.pick % 60)),
            Kind::RedisHold | Kind::PostgresHold => {
                proxy.hold_requests(Duration::from_millis(fault.lasts));
                proxy.hold_only_current();
                self.end_session(fault).await;
            }
            Kind::RedisSwallow | Kind::PostgresSwallow => proxy.swallow_replies(true),
            Kind::RedisCut | Kind::PostgresCut => proxy.cut(),
            Kind::RedisCutRequest | Kind::PostgresCutRequest => {
                proxy.cut_after_bytes(Direction::ToServer, bytes);
            }
            Kind::RedisCutReply | Kind::PostgresCutReply => {
                proxy.cut_after_bytes(Direction::ToClient, bytes);
            }
            Kind::RedisBlackHole | Kind::PostgresBlackHole => proxy.black_hole(true),
            Kind::RedisRefuse | Kind::PostgresRefuse => {
                proxy.refuse(true);
                proxy.cut();
            }
            _ => {}
        }
    }

    pub(super) fn heal_network(&mut self, fault: Planned) {
        let proxy = self.proxy(fault.kind);
        match fault.kind {
            Kind::RedisDelay | Kind::PostgresDelay => proxy.set_delay(Duration::ZERO),
            Kind::RedisJitter => proxy.set_jitter(Duration::ZERO),
            Kind::RedisHold | Kind::PostgresHold => proxy.release(),
            Kind::RedisSwallow | Kind::PostgresSwallow => {
                proxy.swallow_replies(false);
                // They are out of step, and would be found out after the time for an answer.
                proxy.cut();
            }
            Kind::RedisBlackHole | Kind::PostgresBlackHole => {
                proxy.black_hole(false);
                if fault.pick.is_multiple_of(2) {
                    proxy.cut();
                }
            }
            Kind::RedisRefuse | Kind::PostgresRefuse => proxy.refuse(false),
            _ => {}
        }
    }

    /// Whoever has sent what is held gives up, as after the time for an answer, and comes back.
    async fn end_session(&mut self, fault: Planned) {
        tokio::time::sleep(Duration::from_millis(fault.pick % 200)).await;
        match fault.pick % 3 {
            0 => self.restart_relays(),
            _ => {
                let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
                           where application_name = 'outbox-relay lease'";
                self.sql(sql).await;
            }
        }
    }

    fn restart_relays(&mut self) {
        for slot in 0..self.relays.len() {
            self.kill_relay(slot);
            self.start_relay(slot);
        }
    }
}
