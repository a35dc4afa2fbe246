//! Sixty ways to fail, each with the tests that show what happens then, or the reason why there is none.
//! `tests/failures.md` is the same for people; `make failure N=14` runs the tests of one.

mod sources;
mod table;

use std::path::Path;

use self::sources::{Test, tests};
use self::table::{Failure, failures};

const HEAD: &str = "\
# Sixty failures

What can go wrong between an application, Postgres, the relay and Redis, and the tests that show what
happens then: real servers, the real program, and at the end everything compared with what the writers
noted down. `make failure N=14` runs the tests of one.

Generated from `tests/failures/table`; anew with `UPDATE_GOLDEN=1 cargo test --test it failures`.

| # | failure | shown by |
|---|---|---|
";

fn row(failure: &Failure) -> String {
    let mut shown: Vec<String> = failure.tests.iter().map(|test| format!("`{test}`")).collect();
    shown.extend((!failure.note.is_empty()).then(|| failure.note.to_owned()));
    format!("| {} | {} | {} |\n", failure.number, failure.what, shown.join("<br>"))
}

#[test]
fn there_are_sixty_each_with_tests_or_a_reason() {
    let numbers: Vec<u32> = failures().map(|failure| failure.number).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    for failure in failures() {
        let says = !failure.tests.is_empty() || !failure.note.is_empty();
        assert!(says && !failure.what.is_empty(), "{} says nothing", failure.number);
    }
}

#[test]
fn every_test_that_is_named_exists_and_runs() {
    let known = tests();
    assert!(known.len() > 200, "the sources were misread: {} tests", known.len());
    let mut wrong = Vec::new();
    for failure in failures() {
        for name in failure.tests {
            match known.get(*name) {
                Some(Test { is_ignored: false }) => {}
                Some(_) => wrong.push(format!("{}: {name} is ignored", failure.number)),
                None => wrong.push(format!("{}: there is no {name}", failure.number)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_for_people_is_that_of_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failures.md");
    let page = format!("{HEAD}{}", failures().map(row).collect::<String>());
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
        std::fs::write(&file, &page).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        golden == page,
        "tests/failures.md is old: UPDATE_GOLDEN=1 cargo test --test it failures"
    );
}
