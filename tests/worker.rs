//! The worker library: each event's work is done once, whatever dies in between.

mod attempts;
mod dead;
mod losses;
mod order;
mod process;
mod rights;
mod shop;
