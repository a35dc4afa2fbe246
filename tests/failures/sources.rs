//! The tests that there are, read from the sources.

use std::collections::BTreeMap;
use std::path::Path;

/// A test of these sources.
#[derive(Debug, PartialEq)]
pub(super) struct Test {
    pub(super) is_ignored: bool,
}

/// All tests by their full names, as the test program lists them.
pub(super) fn tests() -> BTreeMap<String, Test> {
    let mut found = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    below(&root, &mut Vec::new(), &mut found);
    found
}

fn below(folder: &Path, modules: &mut Vec<String>, found: &mut BTreeMap<String, Test>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            modules.push(name);
            below(&path, modules, found);
            modules.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_root = matches!(name.as_str(), "main" | "mod");
            modules.extend((!is_root).then_some(name));
            read(&std::fs::read_to_string(&path).unwrap(), modules, found);
            modules.truncate(modules.len() - usize::from(!is_root));
        }
    }
}

/// Tests of a file that rustfmt has formatted: attributes on lines of their own, modules closed by a
/// brace at their own indent.
fn read(text: &str, modules: &[String], found: &mut BTreeMap<String, Test>) {
    let mut inside: Vec<(usize, String)> = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in text.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if code.starts_with('}') {
            inside.retain(|(at, _)| *at < indent);
        }
        is_test |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
        is_ignored |= code.starts_with("#[ignore");
        if let Some(name) = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inside.push((indent, name.to_owned()));
        }
        let function = code.strip_prefix("async ").unwrap_or(code).strip_prefix("fn ");
        if let Some((name, _)) = function.and_then(|rest| rest.split_once('(')) {
            if is_test {
                let path = modules.iter().chain(inside.iter().map(|(_, module)| module));
                let path: Vec<&str> = path.map(String::as_str).chain([name]).collect();
                found.insert(path.join("::"), Test { is_ignored });
            }
            (is_test, is_ignored) = (false, false);
        }
    }
}

#[test]
fn names_are_those_of_the_test_program() {
    let text = "\
#[test]
fn first() {}
mod inner {
    #[tokio::test(flavor = \"multi_thread\")]
    #[ignore = \"slow\"]
    async fn second() {}
    fn helper() {}
}
#[test]
fn third() {}
";
    let mut found = BTreeMap::new();
    read(text, &["file".to_owned()], &mut found);
    let ignored = |name: &str| found.get(name).map(|test| test.is_ignored);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(ignored("file::first"), Some(false));
    assert_eq!(ignored("file::inner::second"), Some(true));
    assert_eq!(ignored("file::third"), Some(false));
}
