//! Hears what the relay says of losses, and tells the oracle.

use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use super::world::Shared;

/// Listens on this thread until it is dropped.
pub(super) fn listen(world: &Shared) -> DefaultGuard {
    let aloud = std::env::var_os("OUTBOX_SIMULATION_RUN").is_some();
    tracing::subscriber::set_default(Ear { world: world.clone(), aloud })
}

struct Ear {
    world: Shared,
    /// What the relay says is printed: one run is repeated to be understood.
    aloud: bool,
}

/// The fields of `Redis lost entries … of stream …`.
#[derive(Default)]
struct Told {
    stream: Option<String>,
    first: Option<u64>,
    last: Option<u64>,
    kind: bool,
    message: String,
}

/// How sentences begin that tell of a loss without a range.
const ALARMS: [&str; 3] =
    ["Redis lost its identity", "Redis went back to an older", "Redis lost the positions"];

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "stream" => self.stream = Some(value.to_owned()),
            "kind" => self.kind = true,
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "first" => self.first = Some(value),
            "last" => self.last = Some(value),
            _ => {}
        }
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let reports =
            *metadata.level() <= Level::WARN && metadata.target().ends_with("relay::report");
        reports || self.aloud && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut told = Told::default();
        event.record(&mut told);
        if self.aloud {
            println!("  {:>6} ms  {}", self.world.with(|world| world.elapsed_ms()), told.message);
        }
        if ALARMS.iter().any(|alarm| told.message.starts_with(alarm)) {
            self.world.with(|world| world.oracle.alarmed(&told.message));
        }
        if let (true, Some(stream), Some(first), Some(last)) =
            (told.kind, told.stream, told.first, told.last)
        {
            self.world.with(|world| {
                let now = world.now_ms();
                world.oracle.reported(now, &stream, first, last);
            });
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
