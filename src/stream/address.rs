//! Where Redis is, and how to speak with it: what a URL says.

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates,
};

use super::sentinel::Sentinels;
use crate::tls::{Pem, Tls};

/// Where a sentinel is unless the URL says so.
const SENTINEL_PORT: u16 = 26_379;

/// What the URL says.
#[derive(Clone)]
pub(super) enum Address {
    /// A server, or a node of a cluster.
    Servers(Vec<Client>),
    /// Nodes of a cluster; one that answers is enough.
    Cluster(Vec<Client>),
    /// Sentinels that know the primary.
    Sentinels(Box<Sentinels>),
}

impl Address {
    /// Reads a URL like `redis://user:password@host:6379/0`,
    /// `redis+cluster://user:password@host:6379,host:6379` or
    /// `redis+sentinel://user:password@host:26379,host:26379/primary/0`; `rediss` for TLS.
    ///
    /// # Errors
    /// A sentence. It never repeats the URL: it may hold a password.
    pub(super) fn read(url: &str, tls: &Tls) -> Result<Self, String> {
        if let Some(rest) = url.strip_prefix("redis+sentinel://") {
            return Sentinel { scheme: "redis", rest, tls }
                .read()
                .map(|read| Self::Sentinels(Box::new(read)));
        }
        if let Some(rest) = url.strip_prefix("rediss+sentinel://") {
            return Sentinel { scheme: "rediss", rest, tls }
                .read()
                .map(|read| Self::Sentinels(Box::new(read)));
        }
        if let Some(rest) = url.strip_prefix("redis+cluster://") {
            return nodes("redis", rest, tls).map(Self::Cluster);
        }
        if let Some(rest) = url.strip_prefix("rediss+cluster://") {
            return nodes("rediss", rest, tls).map(Self::Cluster);
        }
        if url.contains('#') && !url.ends_with("#insecure") {
            return Err("has a #; of a password, write it as %23".to_owned());
        }
        let info = url.into_connection_info().map_err(|_| {
            "is not a Redis URL; write it like redis://user:password@host:6379/0".to_owned()
        })?;
        client(info, tls).map(|client| Self::Servers(vec![client]))
    }

    fn info(&self) -> Option<&ConnectionInfo> {
        match self {
            Self::Servers(clients) | Self::Cluster(clients) => {
                clients.first().map(Client::get_connection_info)
            }
            Self::Sentinels(sentinels) => Some(&sentinels.server),
        }
    }

    /// For messages. Never the password.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Servers(clients) | Self::Cluster(clients) => {
                let places = clients.iter().map(|client| place(client.get_connection_info()));
                places.collect::<Vec<_>>().join(", ")
            }
            Self::Sentinels(sentinels) => sentinels.to_string(),
        }
    }

    /// The word that a person gives for it: host and port, or all nodes of a cluster. Behind sentinels the
    /// name of the primary and where they are, for the name alone is the same in every environment.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Sentinels(sentinels) => {
                let nodes = sentinels.nodes.iter().map(|node| place(node.get_connection_info()));
                format!("{}@{}", sentinels.primary, nodes.collect::<Vec<_>>().join(","))
            }
            _ => self.name().replace(", ", ","),
        }
    }

    pub(super) fn user(&self) -> &str {
        let named = self.info().and_then(|info| info.redis_settings().username());
        named.unwrap_or("default")
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.info().is_some_and(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }))
    }
}

/// Host and port.
pub(super) fn place(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            format!("{host}:{port}")
        }
        other => other.to_string(),
    }
}

/// The host.
pub(super) fn host(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        other => other.to_string(),
    }
}

/// How to connect to another place in the same way.
pub(super) fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

/// What opens connections, with the files of `tls` as they are now.
pub(super) fn client(info: ConnectionInfo, tls: &Tls) -> Result<Client, String> {
    let unusable = |_| "is not a Redis URL that can be used".to_owned();
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            return Err(
                "ends with #insecure, but the server's certificate is always checked; name its \
                        authority in REDIS_TLS_CA"
                    .to_owned(),
            );
        }
        ConnectionAddr::TcpTls { .. } => {}
        _ if tls.is_set() => {
            return Err("says redis, but REDIS_TLS_ settings are given; write rediss or drop them"
                .to_owned());
        }
        _ => return Client::open(info).map_err(unusable),
    }
    let Pem { ca, client } = tls.read()?;
    let certificates = TlsCertificates {
        client_tls: client
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
        root_cert: ca,
    };
    let client = Client::build_with_tls(info, certificates).map_err(unusable)?;
    let info = client.get_connection_info();
    let mut address = info.addr().clone();
    address.set_danger_accept_invalid_hostnames(tls.any_name);
    Client::open(info.clone().set_addr(address)).map_err(unusable)
}

/// Reads a URL of nodes of a cluster, after its scheme.
fn nodes(scheme: &str, rest: &str, tls: &Tls) -> Result<Vec<Client>, String> {
    let wrong = || {
        "is not a URL of a cluster; write it like redis+cluster://user:password@host:6379,host:6379"
            .to_owned()
    };
    if rest.contains('#') {
        return Err("has a #; of a password, write it as %23".to_owned());
    }
    let (credentials, hosts) = split_credentials(rest.strip_suffix('/').unwrap_or(rest));
    let node = |host: &str| {
        let url = format!("{scheme}://{credentials}{host}/");
        let info = url.as_str().into_connection_info().map_err(|_| wrong())?;
        client(info, tls)
    };
    match rest.trim_end_matches('/').contains(['/', '?']) || hosts.split(',').any(str::is_empty) {
        true => Err(wrong()),
        false => hosts.split(',').map(node).collect(),
    }
}

/// User and password, up to the @, and what comes after it.
fn split_credentials(authority: &str) -> (String, &str) {
    match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    }
}

/// A URL of sentinels, after its scheme.
struct Sentinel<'a> {
    /// Of the servers and of the sentinels alike.
    scheme: &'a str,
    rest: &'a str,
    tls: &'a Tls,
}

impl Sentinel<'_> {
    fn read(&self) -> Result<Sentinels, String> {
        let wrong = || {
            "is not a URL of sentinels; write it like \
             redis+sentinel://user:password@host:26379,host:26379/primary/0"
                .to_owned()
        };
        if self.rest.contains('#') {
            return Err(
                "has a #; of a password of servers behind sentinels, write it as %23".to_owned()
            );
        }
        let (rest, options) = self.rest.split_once('?').unwrap_or((self.rest, ""));
        let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (credentials, hosts) = split_credentials(authority);
        let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
        if primary.is_empty() || hosts.split(',').any(str::is_empty) {
            return Err(wrong());
        }
        let own = credentials_in(options)?;
        let info = |text: String| text.as_str().into_connection_info().map_err(|_| wrong());
        let node = |host: &str| {
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
            info(format!("{}://{own}{host}{port}/", self.scheme))
                .and_then(|info| client(info, self.tls))
        };
        Ok(Sentinels {
            primary: primary.to_owned(),
            nodes: hosts.split(',').map(node).collect::<Result<_, _>>()?,
            server: info(format!("{}://{credentials}primary/{database}", self.scheme))?,
            tls: self.tls.clone(),
        })
    }
}

/// Of the sentinels themselves: `sentinel_username` and `sentinel_password`, as a URL begins with them.
fn credentials_in(options: &str) -> Result<String, String> {
    let (mut user, mut password) = ("", "");
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sentinel_username", value)) => user = value,
            Some(("sentinel_password", value)) => password = value,
            _ => {
                return Err(
                    "has an option that is neither sentinel_username nor sentinel_password"
                        .to_owned(),
                );
            }
        }
    }
    let given = !user.is_empty() || !password.is_empty();
    Ok(if given { format!("{user}:{password}@") } else { String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<String, String> {
        Address::read(url, &Tls::default()).map(|address| address.name())
    }

    #[test]
    fn reads_urls_of_servers_and_of_sentinels() {
        assert_eq!(read("redis://u:p@h:1/0").as_deref(), Ok("h:1"));
        assert_eq!(
            read("redis+sentinel://u:p@a:1,b,[::1]:3/main/2").as_deref(),
            Ok("main (sentinels a:1, b:26379, ::1:3)")
        );
        assert_eq!(read("redis+cluster://u:p@a:1,b,[::1]:3/").as_deref(), Ok("a:1, b:6379, ::1:3"));
        let url = "redis+sentinel://a/main?sentinel_username=x&sentinel_password=y";
        let Ok(Address::Sentinels(sentinels)) = Address::read(url, &Tls::default()) else {
            panic!("{:?}", read(url));
        };
        assert_eq!(Address::Sentinels(sentinels.clone()).word(), "main@a:26379");
        let url = "redis+sentinel://u:secret@a:1,b,[::1]:3/main/2";
        let several = Address::read(url, &Tls::default()).map(|address| address.word());
        assert_eq!(several.as_deref(), Ok("main@a:1,b:26379,::1:3"));
        let own = sentinels.nodes[0].get_connection_info().redis_settings();
        assert_eq!((own.username(), own.password()), (Some("x"), Some("y")));
        let servers = sentinels.server.redis_settings();
        assert_eq!((servers.username(), servers.password(), servers.db()), (None, None, 0));
    }

    #[test]
    fn says_how_a_url_looks_and_repeats_none() {
        for bad in [
            "redis+sentinel://:secret@a:1",
            "redis+sentinel://:secret@a:1,/main",
            "redis+sentinel://:secret@a:x/main",
            "redis+sentinel://:secret@a/main/x",
            "redis+sentinel://a/main?password=secret",
            "redis+cluster://:secret@",
            "redis+cluster://:secret@a,/",
            "redis+cluster://:secret@a/1",
            "redis+cluster://:secret@a:x",
            "redis+cluster://user:12?secret@a",
        ] {
            let told = read(bad).expect_err(bad);
            let named = told.contains("sentinel") || told.contains("cluster");
            assert!(named && !told.contains("secret"), "{bad}: {told}");
        }
        let told = read("redis://u:12#secret@h").expect_err("it has a #");
        assert!(told.contains("%23") && !told.contains("secret"), "{told}");
        assert!(read("rediss://h/#insecure").is_err_and(|told| told.contains("always checked")));
    }
}
