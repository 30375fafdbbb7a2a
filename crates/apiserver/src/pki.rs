//! Keys and certificates: a CA, the server's certificate, the administrator's, and the kubeconfig that holds them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};

use crate::auth::der;
use crate::auth::token::{NoKey, TokenKey};
use crate::folder::{OpenError, io, write_atomically};
use crate::user::User;

/// Days that the CA's certificate is good for.
const CA_DAYS: i64 = 3650;
/// Days that other certificates are good for.
const DAYS: i64 = 365;
/// Certificates with fewer days left are made anew at start.
const RENEW_DAYS: i64 = 60;

/// The keys and certificates of one cluster, as PEM.
#[derive(Debug, Clone)]
pub struct Pki {
    /// The CA's certificate.
    pub ca: String,
    /// The server's certificate.
    pub server: Pair,
    /// The administrator's certificate.
    pub admin: Pair,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// Keys and certificates that live in memory only.
///
/// # Errors
/// When a host name cannot stand in a certificate.
pub fn generate(hosts: &[String], now: Timestamp) -> Result<Pki, OpenError> {
    let key = KeyPair::generate().map_err(failed)?;
    let ca = ca_params(now)?.self_signed(&key).map_err(failed)?.pem();
    let issuer = Issuer::new(ca_params(now)?, key);
    let server = issue(&issuer, server_params(hosts)?, now)?;
    let admin = issue(&issuer, client_params(&User::admin())?, now)?;
    Ok(Pki { ca, server, admin })
}

/// Reads the keys and certificates of a folder, and makes what is missing, near its end, or for other hosts.
///
/// # Errors
/// When files cannot be read or written, or hold something else.
pub fn ensure(dir: &Path, hosts: &[String], now: Timestamp) -> Result<Pki, OpenError> {
    fs::create_dir_all(dir).map_err(io("making", dir))?;
    let (ca_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
    let known = read(&ca_path)?
        .filter(|pem| !near_end(pem, now))
        .zip(read(&key_path)?);
    let fresh_ca = known.is_none();
    let (ca, key) = match known {
        Some((ca, key)) => (ca, KeyPair::from_pem(&key).map_err(failed)?),
        None => {
            let key = KeyPair::generate().map_err(failed)?;
            let ca = ca_params(now)?.self_signed(&key).map_err(failed)?.pem();
            write_atomically(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
            write_atomically(&ca_path, ca.as_bytes(), 0o644)?;
            (ca, key)
        }
    };
    let issuer = Issuer::new(ca_params(now)?, key);
    let hosts_path = dir.join("server.hosts");
    let listed = hosts.join("\n");
    let same_hosts = read(&hosts_path)?.as_deref() == Some(listed.as_str());
    let server = kept(dir, "server", fresh_ca || !same_hosts, now, || {
        issue(&issuer, server_params(hosts)?, now)
    })?;
    write_atomically(&hosts_path, listed.as_bytes(), 0o644)?;
    let admin = kept(dir, "admin", fresh_ca, now, || {
        issue(&issuer, client_params(&User::admin())?, now)
    })?;
    Ok(Pki { ca, server, admin })
}

/// The key that signs service account tokens: read from the folder, or made.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn token_key(dir: &Path) -> Result<TokenKey, OpenError> {
    fs::create_dir_all(dir).map_err(io("making", dir))?;
    let path = dir.join("tokens.p8");
    match fs::read(&path) {
        Ok(bytes) => TokenKey::from_pkcs8(&bytes).map_err(|error| {
            OpenError::Pki(format!(
                "{}: {error}; remove it to have another made",
                path.display()
            ))
        }),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let failed = |error: NoKey| OpenError::Pki(error.to_string());
            let document = TokenKey::generate_pkcs8().map_err(failed)?;
            write_atomically(&path, &document, 0o600)?;
            TokenKey::from_pkcs8(&document).map_err(failed)
        }
        Err(cause) => Err(io("reading", &path)(cause)),
    }
}

/// A key that lives in memory only.
///
/// # Errors
/// When the operating system gives no random bytes.
pub(crate) fn random_token_key() -> Result<TokenKey, OpenError> {
    TokenKey::generate().map_err(|error| OpenError::Pki(error.to_string()))
}

fn read(path: &Path) -> Result<Option<String>, OpenError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io("reading", path)(cause)),
    }
}

fn kept(
    dir: &Path,
    name: &str,
    anew: bool,
    now: Timestamp,
    make: impl FnOnce() -> Result<Pair, OpenError>,
) -> Result<Pair, OpenError> {
    let (certificate_path, key_path) = (
        dir.join(format!("{name}.crt")),
        dir.join(format!("{name}.key")),
    );
    if !anew
        && let Some(certificate) = read(&certificate_path)?.filter(|pem| !near_end(pem, now))
        && let Some(key) = read(&key_path)?
    {
        return Ok(Pair { certificate, key });
    }
    let pair = make()?;
    write_atomically(&key_path, pair.key.as_bytes(), 0o600)?;
    write_atomically(&certificate_path, pair.certificate.as_bytes(), 0o644)?;
    Ok(pair)
}

/// Whether a certificate ends soon, or is none.
fn near_end(pem: &str, now: Timestamp) -> bool {
    let end = CertificateDer::from_pem_slice(pem.as_bytes())
        .ok()
        .and_then(|der| der::read(&der))
        .and_then(|read| read.not_after);
    end.is_none_or(|end| end < now + SignedDuration::from_hours(24 * RENEW_DAYS))
}

fn failed(error: rcgen::Error) -> OpenError {
    OpenError::Pki(error.to_string())
}

fn valid(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |at: Timestamp| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    // A day of slack for clocks that are behind.
    params.not_before = day(now - SignedDuration::from_hours(24));
    params.not_after = day(now + SignedDuration::from_hours(24 * days));
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, OpenError> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "stead-ca");
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    valid(&mut params, now, CA_DAYS);
    Ok(params)
}

fn server_params(hosts: &[String]) -> Result<CertificateParams, OpenError> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "stead-apiserver");
    params
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ServerAuth);
    for host in hosts {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into().map_err(failed)?),
        };
        params.subject_alt_names.push(name);
    }
    Ok(params)
}

fn client_params(user: &User) -> Result<CertificateParams, OpenError> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, user.name.as_str());
    for group in user
        .groups
        .iter()
        .filter(|group| *group != "system:authenticated")
    {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group.as_str());
    }
    params
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ClientAuth);
    Ok(params)
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    mut params: CertificateParams,
    now: Timestamp,
) -> Result<Pair, OpenError> {
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid(&mut params, now, DAYS);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?.pem();
    Ok(Pair {
        certificate,
        key: key.serialize_pem(),
    })
}

impl Pki {
    /// The server's TLS: its certificate, client certificates of the CA welcome but not needed, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When a PEM is not what it should be.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, OpenError> {
        let wrong = |error: &dyn std::fmt::Display| OpenError::Pki(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(
                CertificateDer::from_pem_slice(self.ca.as_bytes())
                    .map_err(|error| wrong(&error))?,
            )
            .map_err(|error| wrong(&error))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong(&error))?;
        let chain = vec![
            CertificateDer::from_pem_slice(self.server.certificate.as_bytes())
                .map_err(|error| wrong(&error))?,
        ];
        let key = PrivateKeyDer::from_pem_slice(self.server.key.as_bytes())
            .map_err(|error| wrong(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The kubeconfig of the administrator for this server (`https://127.0.0.1:6443`).
    pub fn kubeconfig(&self, server: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stead", "preferences": {},
            "clusters": [{"name": "stead", "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(&self.ca)}}],
            "users": [{"name": "stead-admin", "user": {
                "client-certificate-data": STANDARD.encode(&self.admin.certificate),
                "client-key-data": STANDARD.encode(&self.admin.key),
            }}],
            "contexts": [{"name": "stead", "context": {"cluster": "stead", "user": "stead-admin", "namespace": "default"}}],
        })
    }

    /// Writes the kubeconfig (mode 0600, by rename) into the data folder and gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_kubeconfig(&self, data_dir: &Path, server: &str) -> Result<PathBuf, OpenError> {
        let path = data_dir.join("kubeconfig");
        let text = serde_saphyr::to_string(&self.kubeconfig(server))
            .map_err(|error| OpenError::Pki(error.to_string()))?;
        write_atomically(&path, text.as_bytes(), 0o600)?;
        Ok(path)
    }
}
