//! A real PgBouncer before the Postgres of a test.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;
use super::world::{RELAY, World};

/// A running pooler; killed when dropped.
pub(crate) struct PgBouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts one that gives out sessions by `mode`, `session` or `transaction`; None, and said so, where it
    /// is not installed.
    pub(crate) async fn start(world: &World, mode: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Where Debian has it, and PATH may not.
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
        let programs = folders.map(|folder| folder.join("pgbouncer"));
        let Some(program) = programs.into_iter().find(|file| file.is_file()) else {
            // Not by a macro: those are kept from sight where the test passes.
            let _ = std::io::stderr().write_all(b"SKIPPED: pgbouncer is not installed\n");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = folder.path().join("users");
        std::fs::write(&users, "\"postgres\" \"\"\n\"relay\" \"\"\n\"shop\" \"\"\n").unwrap();
        let settings = format!(
            "[databases]\npostgres = dbname=postgres user={RELAY} host=127.0.0.1 port={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {}\n\
             pool_mode = {mode}\ndefault_pool_size = 20\nmax_client_conn = 100\n",
            world.postgres.port(),
            users.display(),
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        // It refuses root, as Postgres does.
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "postgres"]);
            for path in [folder.path(), &users, &file] {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(path, mode).unwrap();
            }
        }
        let child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = Self { child, port, _folder: folder };
        eventually("PgBouncer listens", Duration::from_secs(10), || async {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Some(pooler)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
