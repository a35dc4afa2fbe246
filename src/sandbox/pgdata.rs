//! Makes a PostgreSQL data folder: by `initdb`, or by copying one made before.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::explain;
use super::postgres::PostgresOptions;

/// Settings of the caller's environment that would reach the server's programs.
const FOREIGN_VARIABLES: [&str; 4] = ["PGDATA", "PGPORT", "PGDATESTYLE", "PGCLIENTENCODING"];

/// The programs to make a data folder with, and who owns it.
pub(super) struct Maker<'a> {
    pub(super) bin: &'a Path,
    pub(super) account: Account,
    pub(super) options: &'a PostgresOptions,
}

impl Maker<'_> {
    /// Makes the data folder `data`, whose parent must exist and belong to the account.
    pub(super) fn make(&self, data: &Path) -> io::Result<()> {
        match &self.options.template {
            Some(template) => self.make_from(template, data)?,
            None => self.init(data)?,
        }
        append_settings(data, self.options)
    }

    fn init(&self, data: &Path) -> io::Result<()> {
        let mut command = program(self.bin, "initdb", self.account);
        command
            .args(["-U", "postgres", "-A", "trust", "--locale", "C", "--no-sync"])
            .args(["--encoding", &self.options.encoding])
            .arg("-D")
            .arg(data)
            // Otherwise it complains when its user cannot enter our current folder.
            .current_dir(data.parent().unwrap_or(data));
        let output = command.output().map_err(|e| explain("cannot start initdb", &e))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("initdb failed ({}):\n{}", output.status, text.trim_end())))
    }

    fn make_from(&self, templates: &Path, data: &Path) -> io::Result<()> {
        fs::create_dir_all(templates)
            .map_err(|e| explain(format_args!("template folder {}", templates.display()), &e))?;
        let template = templates.join(self.template_name()?);
        if !template.exists() {
            self.make_template(&template, data)?;
        }
        if data.exists() { Ok(()) } else { copy_tree(&template, data, self.account) }
    }

    /// Makes `template`, and with it `data` unless somebody else was faster.
    fn make_template(&self, template: &Path, data: &Path) -> io::Result<()> {
        // Only saves work: of several that copy at the same time, one rename wins.
        let lock = File::create(template.with_extension("lock"));
        let _locked = lock.and_then(|file| file.lock().map(|()| file));
        if template.exists() {
            return Ok(());
        }
        self.init(data)?;
        let folder = template.parent().unwrap_or(template);
        let build = tempfile::Builder::new().prefix(".building-").tempdir_in(folder)?;
        copy_tree(data, &build.path().join("data"), self.account)?;
        match fs::rename(build.path().join("data"), template) {
            Err(_) if template.exists() => Ok(()),
            outcome => outcome,
        }
    }

    /// Folders of another version, encoding or owner would not do.
    fn template_name(&self) -> io::Result<String> {
        let output = program(self.bin, "postgres", self.account).arg("--version").output()?;
        let version = String::from_utf8_lossy(&output.stdout);
        let wanted = format!(
            "pg{}-{}-uid{}",
            version.split_whitespace().nth(2).unwrap_or_default(),
            self.options.encoding,
            self.account.uid()
        );
        Ok(wanted.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_"))
    }
}

/// A command for the program `name`, run as `account`, with English messages.
pub(super) fn program(bin: &Path, name: &str, account: Account) -> Command {
    let mut command = Command::new(bin.join(name));
    command.env("LC_ALL", "C");
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    account.run(&mut command);
    command
}

fn append_settings(data: &Path, options: &PostgresOptions) -> io::Result<()> {
    let file = data.join("postgresql.conf");
    OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut conf| conf.write_all(settings_text(options).as_bytes()))
        .map_err(|e| explain(file.display(), &e))
}

fn settings_text(options: &PostgresOptions) -> String {
    let defaults = [
        ("max_connections", "100"),
        ("max_prepared_transactions", "20"),
        ("shared_buffers", "32MB"),
        ("fsync", if options.fsync { "on" } else { "off" }),
        // In the data folder, so that a killed server leaves nothing in /dev/shm.
        ("dynamic_shared_memory_type", "mmap"),
        ("log_checkpoints", "off"),
        ("logging_collector", "off"),
    ];
    let chosen = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // The last of several lines for one name counts.
    defaults.into_iter().chain(chosen).fold(String::from("\n"), |mut text, (name, value)| {
        let value = value.replace('\\', r"\\").replace('\'', "''");
        let _ = writeln!(text, "{name} = '{value}'");
        text
    })
}

/// Copies a folder of files and folders, with their modes, for `owner`.
fn copy_tree(from: &Path, to: &Path, owner: Account) -> io::Result<()> {
    // PostgreSQL refuses a data folder that others may enter, and so must not see one half made.
    DirBuilder::new().mode(0o700).create(to).map_err(|e| explain(to.display(), &e))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &target, owner)?;
        } else {
            fs::copy(&source, &target).map_err(|e| explain(source.display(), &e))?;
            owner.own(&target)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    owner.own(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_and_follow_the_defaults() {
        let options = PostgresOptions::default().with("max_connections", "5").with("x", r"a'b\c");
        let text = settings_text(&options);
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("max_conn")).collect();
        assert_eq!(lines, ["max_connections = '100'", "max_connections = '5'"]);
        assert!(text.ends_with("x = 'a''b\\\\c'\n"));
        assert!(text.contains("fsync = 'off'"));
    }
}
