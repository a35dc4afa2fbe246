//! TLS to a server: with which files, and what went wrong in words.
//!
//! The server's certificate is always checked: signed by a trusted authority, within its dates, and for the
//! host that the URL names, unless any name is to be accepted.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};

use crate::error::Target;

/// The files that TLS to one server needs. They are read at each connection, so that what was rotated is
/// used without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities to trust, as PEM; those of the system if there is none.
    pub ca: Option<PathBuf>,
    /// Certificate to show to the server with those that signed it, and its key, as PEM.
    pub client: Option<(PathBuf, PathBuf)>,
    /// A certificate of a trusted authority is accepted whatever name it is for.
    pub any_name: bool,
}

/// What the files hold.
pub struct Pem {
    /// Authorities to trust.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Anything is set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(&self) -> Result<Pem, String> {
        let client = match &self.client {
            Some((certificate, key)) => {
                let chain = file(certificate)?;
                certificates(certificate, &chain)?;
                let secret = file(key)?;
                PrivateKeyDer::from_pem_slice(&secret)
                    .map_err(|_| format!("{} holds no private key in PEM", key.display()))?;
                Some((chain, secret))
            }
            None => None,
        };
        let ca = self.ca.as_deref().map(|ca| file(ca).map(|pem| (ca, pem))).transpose()?;
        if let Some((ca, pem)) = &ca {
            certificates(ca, pem)?;
        }
        Ok(Pem { ca: ca.map(|(_, pem)| pem), client })
    }

    /// What rustls needs to know.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, String> {
        let pem = self.read()?;
        let roots = Arc::new(self.roots(&pem)?);
        let builder = ClientConfig::builder().with_root_certificates(roots.clone());
        let mut config = match (&pem.client, &self.client) {
            (Some((chain, key)), Some((file, _))) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
                let chain = certificates(file, chain)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    format!("{} and its key do not fit: {error}", file.display())
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        if self.any_name {
            let inner =
                WebPkiServerVerifier::builder(roots).build().map_err(|error| error.to_string())?;
            config.dangerous().set_certificate_verifier(Arc::new(AnyName(inner)));
        }
        Ok(config)
    }

    fn roots(&self, pem: &Pem) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let trusted = match (&self.ca, &pem.ca) {
            (Some(file), Some(pem)) => certificates(file, pem)?,
            _ => rustls_native_certs::load_native_certs().certs,
        };
        // What this system has and rustls cannot read is of no use, and no reason to stop.
        roots.add_parsable_certificates(trusted);
        if roots.is_empty() {
            return Err("this system has no trusted authorities".to_owned());
        }
        Ok(roots)
    }
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| format!("{} holds no certificate in PEM", file.display()))
}

/// As usual, but for the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        checked.or_else(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Ok(ServerCertVerified::assertion()),
            error => Err(error),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What was wrong with TLS to `target`, if that is what an error or one of its causes is about, and what
/// to do.
pub(crate) fn explain(error: &(dyn StdError + 'static), target: Target) -> Option<String> {
    let settings = match target {
        Target::Postgres => "DATABASE_TLS",
        Target::Redis => "REDIS_TLS",
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = of_tls(error) {
            return Some(in_words(found, settings));
        }
        next = error.source();
    }
    None
}

/// The error of rustls that this one is or wraps. Neither an error of I/O nor one that is shared names what
/// it wraps as its source.
fn of_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(shared) = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return of_tls(&**shared);
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let wrapped = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    error.downcast_ref::<rustls::Error>().or(wrapped)
}

/// The name in `DnsName("a.example")`, as rustls writes it.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn in_words(error: &rustls::Error, settings: &str) -> String {
    use AlertDescription as Alert;
    use CertificateError as Wrong;
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => {
                "its certificate has expired; renew it on the server".to_owned()
            }
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                "its certificate is not valid yet; compare the clocks of both machines".to_owned()
            }
            Wrong::UnknownIssuer => format!(
                "its certificate is signed by nobody who is trusted here; set {settings}_CA to the file with \
                 the certificate of its authority"
            ),
            Wrong::NotValidForNameContext { expected, presented } => format!(
                "its certificate is for {}, not for {}; use such a name in the URL, or accept any with \
                 {settings}_ACCEPT_ANY_NAME=on",
                presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
                expected.to_str(),
            ),
            other => format!("its certificate is not accepted: {other}"),
        },
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            format!("it wants a certificate of ours; set {settings}_CERT and {settings}_KEY")
        }
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure),
        ) => format!(
            "it does not accept our certificate, or wants one ({alert:?}); see {settings}_CERT and \
             {settings}_KEY"
        ),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS on this port".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}
