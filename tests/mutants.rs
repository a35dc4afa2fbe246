//! Builds with one thing broken, each caught by a seed and an invariant; `tests/mutants.md` says which.
//!
//! A mutant that survives is a hole in the oracle. Building and running all of them takes about half an hour,
//! so that is a command, `make mutants`; what always runs here is that each still fits the source.

mod build;
mod table;

use std::collections::BTreeMap;

use self::build::Tree;
use self::table::{MUTANTS, Mutant};

const PAGE: &str = "tests/mutants.md";
const HEADER: &str = "\
# Broken builds, and what catches them

Each row is this program with one thing broken (`tests/mutants/table.rs` has the change), run against
the simulation (`tests/simulation`) or the swarm (`tests/swarm`) until an invariant is broken. The
seed repeats it. Written by `make mutants`; a test fails where a mutant is missing here.

| what is broken | where | caught by | seed | invariant |
|---|---|---|---|---|
";

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rows of the page as it is, by the name of the mutant.
fn rows() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what "));
    rows.map(|row| (row.split('|').nth(1).unwrap().trim().to_owned(), row.to_owned())).collect()
}

fn row(mutant: &Mutant, seed: &str, invariant: &str) -> String {
    format!("| {} | `{}` | {} | {seed} | {invariant} |", mutant.name, mutant.file, mutant.by)
}

fn write(rows: &BTreeMap<String, String>) {
    let row = |mutant: &Mutant| {
        rows.get(mutant.name).cloned().unwrap_or_else(|| row(mutant, "not run yet", ""))
    };
    let page: String = MUTANTS.iter().map(|mutant| row(mutant) + "\n").collect();
    std::fs::write(root().join(PAGE), format!("{HEADER}{page}")).unwrap();
}

#[test]
fn every_mutant_still_fits_the_source_and_is_on_the_page() {
    let rows = rows();
    for mutant in MUTANTS {
        let text = std::fs::read_to_string(root().join(mutant.file)).unwrap();
        let found = text.matches(mutant.from).count();
        assert_eq!(found, 1, "{:?} stands {found} times in {}", mutant.from, mutant.file);
        assert!(rows.contains_key(mutant.name), "{:?} is not in {PAGE}: make mutants", mutant.name);
    }
    assert_eq!(rows.len(), MUTANTS.len(), "{PAGE} has rows of mutants that are gone: make mutants");
}

/// Builds and runs all, or those whose names contain `OUTBOX_MUTANT`, or that it is to catch them.
#[test]
#[ignore = "builds the program some thirty times: make mutants"]
fn each_is_caught() {
    let only = std::env::var("OUTBOX_MUTANT").unwrap_or_default();
    let mut survivors = Vec::new();
    write(&rows());
    let is_meant = |mutant: &&Mutant| format!("{} {}", mutant.by, mutant.name).contains(&only);
    for mutant in MUTANTS.iter().filter(is_meant) {
        let caught = Tree::new(root(), mutant.by).catch(mutant);
        let mut rows = rows();
        match caught {
            Ok(caught) => {
                println!("{}: seed {}: {}", mutant.name, caught.seed, caught.sentence);
                rows.insert(mutant.name.to_owned(), row(mutant, &caught.seed, &caught.invariant));
            }
            Err(why) => {
                println!("{}: NOT CAUGHT: {why}", mutant.name);
                rows.insert(mutant.name.to_owned(), row(mutant, "survived", "none"));
                survivors.push(mutant.name);
            }
        }
        write(&rows);
    }
    assert!(survivors.is_empty(), "holes in the oracle: {survivors:#?}");
}
