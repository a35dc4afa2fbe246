//! Finds the servers' programs on this machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PG_BIN: &str = "OUTBOX_PG_BIN";
const REDIS_SERVER: &str = "OUTBOX_REDIS_SERVER";

/// Where packages put PostgreSQL's versions: a folder, how a version's name in it begins, and
/// what follows the version.
const PG_PLACES: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr", "pgsql-", "bin"),
];

const REDIS_PLACES: [&str; 4] =
    ["/usr/local/bin", "/opt/homebrew/bin", "/usr/local/opt/redis/bin", "/usr/bin"];

/// The folder with `postgres` and `initdb`.
pub(super) fn postgres_folder() -> io::Result<PathBuf> {
    if let Some(folder) = env::var_os(PG_BIN).filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        let missing =
            || missing(format!("{PG_BIN}={} has no postgres and initdb", folder.display()));
        return server_folder(&folder).ok_or_else(missing);
    }
    let in_path = folders_in_path().into_iter().find_map(|folder| server_folder(&folder));
    let packaged = || PG_PLACES.iter().find_map(newest_in);
    in_path.or_else(packaged).ok_or_else(|| {
        let places = PG_PLACES.map(|(root, start, end)| format!("{root}/{start}*/{end}"));
        missing(format!(
            "no PostgreSQL server found: looked for postgres and initdb in PATH, {}; install it \
             with `make deps` or set {PG_BIN} to their folder",
            places.join(", ")
        ))
    })
}

/// The program `redis-server`, or else `valkey-server`.
pub(super) fn redis_server() -> io::Result<PathBuf> {
    if let Some(program) = env::var_os(REDIS_SERVER).filter(|value| !value.is_empty()) {
        let program = PathBuf::from(program);
        let missing = || missing(format!("{REDIS_SERVER}={} is no file", program.display()));
        return program.is_file().then(|| program.clone()).ok_or_else(missing);
    }
    let mut folders = folders_in_path();
    folders.extend(REDIS_PLACES.map(PathBuf::from));
    let find = |name: &str| folders.iter().map(|f| f.join(name)).find(|file| file.is_file());
    find("redis-server").or_else(|| find("valkey-server")).ok_or_else(|| {
        missing(format!(
            "no Redis server found: looked for redis-server and valkey-server in PATH, {}; \
             install it with `make deps` or set {REDIS_SERVER} to the program",
            REDIS_PLACES.join(", ")
        ))
    })
}

fn missing(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, text)
}

fn folders_in_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// `folder`, or the one that its link `postgres` leads to, if a server can be made from it.
fn server_folder(folder: &Path) -> Option<PathBuf> {
    // A link in PATH seldom has all the other programs beside it.
    let real = fs::canonicalize(folder.join("postgres")).ok()?;
    [real.parent()?, folder]
        .into_iter()
        .find(|candidate| ["postgres", "initdb"].iter().all(|name| candidate.join(name).is_file()))
        .map(Path::to_path_buf)
}

fn newest_in((root, start, end): &(&str, &str, &str)) -> Option<PathBuf> {
    let entries = fs::read_dir(root).ok()?.filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    newest_first(names.filter(|name| name.starts_with(start)).collect())
        .iter()
        .find_map(|name| server_folder(&Path::new(root).join(name).join(OsStr::new(end))))
}

fn newest_first(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_cached_key(|name| std::cmp::Reverse(numbers_in(name)));
    names
}

/// The numbers in a name: `[9, 6]` of `postgresql@9.6`, none of `postgresql`.
fn numbers_in(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Vec<String> {
        newest_first(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert_eq!(sorted(&["9.6", "15", "10", "9.10"]), ["15", "10", "9.10", "9.6"]);
        assert_eq!(
            sorted(&["postgresql", "postgresql@9.6", "postgresql@16"]),
            ["postgresql@16", "postgresql@9.6", "postgresql"]
        );
        assert_eq!(sorted(&["pgsql-9.6", "pgsql-17"]), ["pgsql-17", "pgsql-9.6"]);
    }

    #[test]
    fn a_name_without_numbers_has_none() {
        assert!(numbers_in("postgresql").is_empty());
    }
}
