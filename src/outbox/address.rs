//! Where Postgres is, and how to speak with it: what a URL says.

use std::ops::Range;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::error::{Error, Kind, Result};
use crate::tls::Tls;

/// A host that does not answer is given up after this long.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that answers no keepalive is given up within about this long.
const SILENCE: Duration = Duration::from_secs(15);

/// What the URL says.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) config: Config,
    /// None where TLS is not spoken.
    pub(super) tls: Option<Tls>,
}

impl Address {
    /// Reads a URL like `postgres://user:password@host:5432/database`, or `host=… dbname=…`; it may name
    /// several hosts. TLS is spoken if its `sslmode` or a file in `tls` says so.
    ///
    /// # Errors
    /// `Usage` if it cannot be read. The text never repeats the URL: it may hold a password.
    pub(super) fn read(url: &str, tls: &Tls) -> Result<Self> {
        let (url, wanted) = ssl_mode(url);
        let mut config = parse(&with_known_attributes(&url))?;
        let wanted = match config.get_ssl_mode() {
            // However it was written.
            SslMode::Require if wanted == Wanted::Unsaid => Wanted::Checked,
            _ => wanted,
        };
        let tls = match wanted {
            Wanted::Plain if tls.is_set() => {
                return Err(Error::new(
                    Kind::Usage,
                    "says sslmode=disable, but DATABASE_TLS_ settings are given; drop one of them",
                ));
            }
            Wanted::Unprotected => {
                return Err(Error::new(
                    Kind::Usage,
                    "says sslmode=prefer or allow, which goes on without TLS where somebody is in the way; \
                     write require or disable",
                ));
            }
            Wanted::Unsaid if !tls.is_set() => None,
            Wanted::Plain => None,
            Wanted::Unsaid | Wanted::Checked => Some(tls.clone()),
            Wanted::AnyName => Some(Tls { any_name: true, ..tls.clone() }),
        };
        bound(&mut config, tls.is_some());
        Ok(Self { config, tls })
    }

    /// An address for each host that the URL names, in its order. Of several only one takes writes, and only
    /// that one is of use, whatever the URL says.
    pub(super) fn hosts(&self) -> Vec<Self> {
        match count(&self.config) {
            0 | 1 => vec![self.clone()],
            several => {
                let only = |at| Self { config: only(&self.config, at), tls: self.tls.clone() };
                (0..several).map(only).collect()
            }
        }
    }

    /// Hosts with their ports, and database, for messages. Never the password.
    pub(super) fn name(&self) -> String {
        let host = |at: usize| {
            let host = match self.config.get_hosts().get(at) {
                Some(Host::Tcp(name)) => name.clone(),
                #[cfg(unix)]
                Some(Host::Unix(path)) => path.display().to_string(),
                None => {
                    self.config.get_hostaddrs().get(at).map(ToString::to_string).unwrap_or_default()
                }
            };
            format!("{host}:{}", port(&self.config, at))
        };
        let hosts: Vec<String> = (0..count(&self.config)).map(host).collect();
        let user = self.config.get_user().unwrap_or_default();
        format!("{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or(user))
    }

    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }
}

/// How many hosts it names.
fn count(config: &Config) -> usize {
    config.get_hosts().len().max(config.get_hostaddrs().len())
}

/// The port of its host `at`: one port may be that of all hosts.
fn port(config: &Config, at: usize) -> u16 {
    let ports = config.get_ports();
    *ports.get(at).or_else(|| ports.first()).unwrap_or(&5432)
}

/// `all` with its host `at` alone, if that takes writes: the library has no way to take a host out.
fn only(all: &Config, at: usize) -> Config {
    let mut one = Config::new();
    match all.get_hosts().get(at) {
        Some(Host::Tcp(name)) => one.host(name),
        #[cfg(unix)]
        Some(Host::Unix(path)) => one.host_path(path),
        None => &mut one,
    };
    if let Some(address) = all.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(patience) = all.get_connect_timeout() {
        one.connect_timeout(*patience);
    }
    one.port(port(all, at))
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .load_balance_hosts(all.get_load_balance_hosts())
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    bound(&mut one, all.get_ssl_mode() == SslMode::Require);
    one
}

/// Sets what every connection has, whatever the URL says.
fn bound(config: &mut Config, tls: bool) {
    let patience = *config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT);
    config
        .ssl_mode(if tls { SslMode::Require } else { SslMode::Disable })
        .connect_timeout(patience)
        .keepalives(true)
        .keepalives_idle(SILENCE / 3)
        .keepalives_interval(SILENCE / 3)
        .keepalives_retries(2)
        .tcp_user_timeout(SILENCE);
}

/// What the URL says of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Unsaid,
    Plain,
    Checked,
    AnyName,
    /// TLS, unless somebody is in the way.
    Unprotected,
}

/// Where the value of an option of the URL is; `option` ends with `=`.
fn value_of(url: &str, option: &str) -> Option<Range<usize>> {
    let ends = |c: char| c == '?' || c == '&' || c.is_whitespace();
    let begins = |at: usize| url[..at].chars().next_back().is_none_or(ends);
    let at = url.match_indices(option).map(|(at, _)| at).find(|at| begins(*at))?;
    let value = at + option.len();
    Some(value..url[value..].find(ends).map_or(url.len(), |length| value + length))
}

/// The URL with `target_session_attrs` as the library knows it, which has no word for libpq's `primary`.
fn with_known_attributes(url: &str) -> String {
    match value_of(url, "target_session_attrs=") {
        Some(value) if &url[value.clone()] == "primary" => {
            format!("{}read-write{}", &url[..value.start], &url[value.end..])
        }
        _ => url.to_owned(),
    }
}

/// The URL with an `sslmode` that the library knows, and what it meant: libpq's names, of which some promise
/// less than they seem to. Here TLS always checks the certificate.
fn ssl_mode(url: &str) -> (String, Wanted) {
    let Some(value) = value_of(url, "sslmode=") else {
        return (url.to_owned(), Wanted::Unsaid);
    };
    let (mode, wanted) = match &url[value.clone()] {
        "disable" => ("disable", Wanted::Plain),
        "require" | "verify-full" => ("require", Wanted::Checked),
        "verify-ca" => ("require", Wanted::AnyName),
        "prefer" | "allow" => ("disable", Wanted::Unprotected),
        // In quotes, or wrong: the library knows.
        _ => return (url.to_owned(), Wanted::Unsaid),
    };
    (format!("{}{mode}{}", &url[..value.start], &url[value.end..]), wanted)
}

fn parse(url: &str) -> Result<Config> {
    let wrong = |why: &str| {
        let form = "postgres://user:password@host:5432/database";
        Error::new(Kind::Usage, format!("{why}; write it like {form}"))
    };
    let config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if let Some(setting) = libpq_file(&cause) {
            return Error::new(Kind::Usage, format!("names a file for TLS; set {setting} instead"));
        }
        // Of a text that is no URL, other causes may repeat a piece, and that may be a secret.
        let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let ambiguous = url.matches('@').count() > 1 || cause.starts_with("unknown option");
        let repeats_nothing = is_url && !ambiguous || cause.starts_with("invalid value for option");
        wrong(if repeats_nothing { &cause } else { "is not a Postgres URL" })
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(wrong("names no host"));
    }
    if config.get_user().is_none() {
        return Err(wrong("names no user"));
    }
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let ports = config.get_ports().len();
    if ports > 1 && ports != count(&config) || hosts.min(addresses) > 0 && hosts != addresses {
        return Err(wrong("has not one port, or one hostaddr, for each host"));
    }
    if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
        return Err(wrong("says target_session_attrs=read-only, but the relay writes; drop that"));
    }
    let has_at = |host: &Host| match host {
        Host::Tcp(name) => name.contains('@'),
        #[cfg(unix)]
        Host::Unix(path) => path.as_os_str().as_encoded_bytes().contains(&b'@'),
    };
    let database_has_at = config.get_dbname().is_some_and(|name| name.contains('@'));
    if config.get_hosts().iter().any(has_at) || database_has_at {
        return Err(wrong(
            "has an @ in its host or database; write @ and / of the password as %40 and %2F",
        ));
    }
    Ok(config)
}

/// The setting in place of an option of libpq that the library does not know.
fn libpq_file(cause: &str) -> Option<&'static str> {
    let settings = [
        ("sslrootcert", "DATABASE_TLS_CA"),
        ("sslcert", "DATABASE_TLS_CERT"),
        ("sslkey", "DATABASE_TLS_KEY"),
    ];
    let option = cause.strip_prefix("unknown option")?;
    settings.iter().find(|(name, _)| option.contains(name)).map(|(_, setting)| *setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str, tls: &Tls) -> Result<Option<Tls>> {
        Address::read(&format!("postgres://u@h/d{options}"), tls).map(|address| address.tls)
    }

    #[test]
    fn tls_is_spoken_if_the_url_or_a_file_says_so() {
        let (none, some) = (Tls::default(), Tls { ca: Some("ca".into()), ..Tls::default() });
        let any = Tls { any_name: true, ..Tls::default() };
        assert_eq!(read("", &none).ok(), Some(None));
        assert_eq!(read("?sslmode=disable", &none).ok(), Some(None));
        assert_eq!(
            read("?sslmode=require&connect_timeout=3", &none).ok(),
            Some(Some(none.clone()))
        );
        assert_eq!(
            read("?connect_timeout=3&sslmode=verify-full", &none).ok(),
            Some(Some(none.clone()))
        );
        assert_eq!(read("?sslmode=verify-ca", &none).ok(), Some(Some(any)));
        assert_eq!(read("", &some).ok(), Some(Some(some.clone())));
        for text in ["sslmode = require", "sslmode='require'", "user=u\nsslmode=require\ndbname=d"]
        {
            let address = Address::read(&format!("host=h user=u {text}"), &none);
            assert_eq!(address.ok().map(|address| address.tls), Some(Some(none.clone())), "{text}");
        }
        assert!(read("?sslmode=disable", &some).is_err());
        assert!(read("?sslmode=prefer", &none).is_err());
    }

    #[test]
    fn each_of_several_hosts_has_its_port_and_all_else() {
        let read = |url: &str| Address::read(url, &Tls::default()).expect("a URL");
        let url = "postgres://u:p@a:1,b/d?options=-cx%3Dy&connect_timeout=3&target_session_attrs=";
        for attributes in ["any", "read-write", "primary"] {
            let address = read(&format!("{url}{attributes}&sslmode=require"));
            assert_eq!(address.name(), "a:1,b:5432/d");
            let hosts = address.hosts();
            let names: Vec<String> = hosts.iter().map(Address::name).collect();
            assert_eq!(names, ["a:1/d", "b:5432/d"]);
            for (host, name) in hosts.iter().zip(["a:1", "b:5432"]) {
                let alone = format!("postgres://u:p@{name}/d?options=-cx%3Dy&connect_timeout=3");
                let alone = format!("{alone}&target_session_attrs=read-write&sslmode=require");
                assert_eq!(host.config, read(&alone).config);
                assert!(host.tls.is_some());
            }
        }
        let address = read("host=a,b hostaddr=::1,::2 port=7 user=u");
        assert_eq!(address.name(), "a:7,b:7/u");
        assert_eq!(address.hosts()[1].config.get_hostaddrs().len(), 1);
        let alone = read("postgres://u@a/d?target_session_attrs=any");
        assert_eq!(alone.hosts()[0].config, alone.config, "a standby is told of in words of ours");
    }

    #[test]
    fn hosts_that_do_not_fit_together_are_refused() {
        for url in ["host=a,b port=1,2,3 user=u", "host=a,b hostaddr=::1 user=u"] {
            let told = Address::read(url, &Tls::default()).map_err(|error| error.to_string());
            assert!(told.is_err_and(|text| text.contains("for each host")), "{url}");
        }
        assert!(read("?target_session_attrs=read-only", &Tls::default()).is_err());
    }

    #[test]
    fn files_of_libpq_are_named_by_settings_of_ours() {
        let told = |options| read(options, &Tls::default()).map_err(|error| error.to_string());
        assert!(told("?sslrootcert=/x").is_err_and(|text| text.contains("DATABASE_TLS_CA")));
        assert!(told("?sslkey=/x").is_err_and(|text| text.contains("DATABASE_TLS_KEY")));
    }
}
