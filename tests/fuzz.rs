//! Bad input at every door: all that is in the corpus of a door first, then mutations of it until the time
//! is over. `OUTBOX_FUZZ_SECONDS` is the time per door; `make fuzz MINUTES=5` takes longer. An input on
//! which a door fails is left in its corpus, `tests/fuzz/corpus/<door>`, and is tried first from then on.

mod door;
mod liar;
mod mutate;
mod names;
mod replies;
mod resp;
mod rows;
mod settings;
mod urls;
