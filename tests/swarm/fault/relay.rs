//! Relays that die, stop, stand still, or are told to let go.

use rustix::process::Signal;

use super::super::kind::Kind;
use super::super::schedule::Planned;
use super::super::stage::Stage;

impl Stage {
    pub(super) async fn inject_relay(&mut self, fault: Planned) {
        let slot = fault.pick as usize % self.relays.len();
        match fault.kind {
            Kind::RelayKill => self.kill_relay(slot),
            Kind::RelayStop => {
                self.measure();
                self.signal(slot, Signal::TERM);
            }
            Kind::RelayFreeze => {
                self.signal(slot, Signal::STOP);
                self.frozen.insert(slot);
            }
            Kind::LeaseTaken => self.take_lease(fault.lasts).await,
            Kind::StreamPaused => {
                let stream = self.stream(fault.pick);
                if self.command(&["pause", &stream]) {
                    self.paused.insert(stream);
                }
            }
            _ => {}
        }
    }

    pub(super) fn heal_relay(&mut self, fault: Planned) {
        let slot = fault.pick as usize % self.relays.len();
        match fault.kind {
            Kind::RelayKill | Kind::RelayStop => self.replace(slot),
            Kind::RelayFreeze => {
                self.frozen.remove(&slot);
                self.signal(slot, Signal::CONT);
            }
            Kind::StreamPaused => self.resume(&self.stream(fault.pick)),
            _ => {}
        }
    }

    /// Somebody starts it again; one that has not ended by then is killed.
    pub(crate) fn replace(&mut self, slot: usize) {
        let ended = self.relays[slot].as_mut().is_none_or(|relay| !relay.is_running());
        let asked = self.relays[slot].is_some();
        if !ended && asked {
            self.kill_relay(slot);
        }
        self.start_relay(slot);
    }

    pub(crate) fn resume(&mut self, stream: &str) {
        if self.paused.contains(stream) && self.command(&["resume", stream]) {
            self.paused.remove(stream);
        }
    }

    fn signal(&mut self, slot: usize, signal: Signal) {
        if let Some(relay) = &mut self.relays[slot]
            && relay.is_running()
        {
            relay.signal(signal);
        }
    }

    /// Somebody else begins a term, and keeps it for a moment.
    async fn take_lease(&self, lasts: u64) {
        let sql = format!(
            "with ended as (update outbox.lease set ended_at = clock_timestamp() \
                            where ended_at is null returning token), \
             taken as (insert into outbox.lease (token, holder) select token + 1, 'somebody' from ended \
                       returning token) \
             select setval('outbox.lease_until', \
                           (extract(epoch from clock_timestamp()) * 1000)::bigint + {lasts}) from taken"
        );
        self.sql(&sql).await;
    }
}
