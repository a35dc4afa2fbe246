//! Bad input and bad surroundings: a clear error, the right exit code, nothing changed, no secret.

mod servers;
mod settings;
mod verified;
