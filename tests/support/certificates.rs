//! An authority and what it signs, and servers that are given it.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::eventually;
use super::world::World;

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) key: String,
}

/// Named for a certificate: who it is for.
fn named(subject: &str, names: &[&str]) -> CertificateParams {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

impl Authority {
    pub(crate) fn new(subject: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named(subject, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certificate { pem, key: key.serialize_pem() }
    }

    /// For a server that is reached by this name, or a client that is called so.
    pub(crate) fn issue(&self, name: &str) -> Certificate {
        self.sign(&named(name, &[name]))
    }

    /// For a server, and out of date.
    pub(crate) fn issue_expired(&self, name: &str) -> Certificate {
        let mut params = named(name, &[name]);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.sign(&params)
    }
}

/// Writes a file in the folder of a test.
pub(crate) fn file(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Writes a file in the data folder of Postgres, as its user and for that one alone.
pub(crate) async fn postgres_file(world: &World, name: &str, text: &str) {
    let sql = format!(
        "copy (select unnest(string_to_array($text${text}$text$, E'\\n'))) \
         to program 'umask 077; cat > {name}'"
    );
    world.sql(&sql).await;
}

/// Gives Postgres a certificate, and an authority for those of its clients.
pub(crate) async fn postgres_has(world: &World, certificate: &Certificate, clients: &Authority) {
    postgres_file(world, "server.crt", &certificate.pem).await;
    postgres_file(world, "server.key", &certificate.key).await;
    postgres_file(world, "root.crt", &clients.pem).await;
    world.sql("alter system set ssl_ca_file = 'root.crt'").await;
    world.sql("alter system set ssl = on").await;
    reload(world).await;
    let sql = "select current_setting('ssl') = 'on'";
    eventually("Postgres speaks TLS", std::time::Duration::from_secs(10), || async {
        world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
}

/// Who is let in, after the owner, who always is.
pub(crate) async fn postgres_lets_in(world: &World, lines: &str) {
    let text = format!("host all postgres all trust\nhost all shop all trust\n{lines}");
    postgres_file(world, "pg_hba.conf", &text).await;
    reload(world).await;
}

async fn reload(world: &World) {
    // What is read again is in force once a new session says when.
    let before = "select pg_conf_load_time()::text";
    let loaded = world.owner().await.query_one(before, &[]).await.unwrap().get::<_, String>(0);
    world.sql("select pg_reload_conf()").await;
    eventually("Postgres has read its files", std::time::Duration::from_secs(10), || async {
        let now = world.owner().await.query_one(before, &[]).await.unwrap().get::<_, String>(0);
        now != loaded
    })
    .await;
}

/// Gives Redis a certificate, and an authority for those of its clients. The port on which it speaks TLS.
pub(crate) async fn redis_has(
    world: &World,
    certificate: &Certificate,
    clients: &Authority,
) -> u16 {
    let path = |name: &str, text: &str| -> String { shown(&file(world, name, text)) };
    let (pem, key) = (path("redis.crt", &certificate.pem), path("redis.key", &certificate.key));
    let ca = path("redis-clients.crt", &clients.pem);
    let files = ["tls-cert-file", &pem, "tls-key-file", &key, "tls-ca-cert-file", &ca];
    world.redis::<()>(&[&["CONFIG", "SET"], &files[..]].concat()).await;
    let known: (String, String) = world.redis(&["CONFIG", "GET", "tls-port"]).await;
    if known.1 != "0" {
        return known.1.parse().unwrap();
    }
    // Another one may take the port between; Redis says so.
    for _ in 0..20 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let set = redis::cmd("CONFIG").arg("SET").arg("tls-port").arg(free).to_owned();
        if set.query_async::<()>(&mut world.streams().await).await.is_ok() {
            return free;
        }
    }
    panic!("Redis finds no port for TLS");
}

pub(crate) fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
