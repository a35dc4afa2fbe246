//! The user that runs PostgreSQL's programs when we are root, which they refuse to be.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::explain;

const USERS_FILE: &str = "/etc/passwd";

/// Tried in this order.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// Who runs a server's programs and owns its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever we are.
    Ourselves,
    /// Somebody else; only root can choose this.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// Somebody who is not root: ourselves where that holds, else a user of `/etc/passwd`.
    pub(super) fn other_than_root() -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let users = fs::read_to_string(USERS_FILE).map_err(|e| explain(USERS_FILE, &e))?;
        NAMES.iter().find_map(|name| user_in(&users, name)).ok_or_else(|| {
            let text = format!(
                "PostgreSQL refuses to run as root, and {USERS_FILE} has neither of {NAMES:?} to \
                 run it as; run as an ordinary user"
            );
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    /// Makes `command` run as this account.
    pub(super) fn run(self, command: &mut Command) -> &mut Command {
        match self {
            Self::Ourselves => command,
            Self::Other { uid, gid } => command.uid(uid).gid(gid),
        }
    }

    /// Gives the file or folder at `path` (not what is in it) to this account.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid))
                .map_err(|e| explain(format_args!("chown {}", path.display()), &e)),
        }
    }

    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Ourselves => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => uid,
        }
    }
}

/// Finds `name` in the text of a passwd file.
fn user_in(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = id_in(fields.nth(1)?)?;
        let gid = id_in(fields.next()?)?;
        (uid != 0).then_some(Account::Other { uid, gid })
    })
}

/// macOS writes the ids of `nobody` as -2.
fn id_in(field: &str) -> Option<u32> {
    field.parse::<u32>().ok().or_else(|| field.parse::<i32>().ok().map(i32::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "# comment\nroot:x:0:0:root:/root:/bin/bash\n\
        postgresql:x:9:9::/:/bin/sh\n\npostgres:x:101:104:Admin,,,:/var/lib:/bin/bash\n\
        nobody:*:-2:-2:Unprivileged:/var/empty:/usr/bin/false\nbroken:x\n";

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let expected = Account::Other { uid: 101, gid: 104 };
        assert_eq!(user_in(USERS, "postgres"), Some(expected));
        assert_eq!(user_in(USERS, "postgre"), None);
    }

    #[test]
    fn negative_ids_wrap() {
        let expected = Account::Other { uid: 4_294_967_294, gid: 4_294_967_294 };
        assert_eq!(user_in(USERS, "nobody"), Some(expected));
    }

    #[test]
    fn root_and_broken_lines_are_no_answer() {
        assert_eq!(user_in(USERS, "root"), None);
        assert_eq!(user_in(USERS, "broken"), None);
        assert_eq!(user_in("", "postgres"), None);
    }
}
