//! HTTP and HTTPS as the kubelet's probes speak them: no certificate is checked, redirects stay on their host.
//!
//! Upstream: `pkg/probe/http`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// upstream: how many redirects are followed.
const REDIRECTS: usize = 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, from the first slash.
    pub(super) path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tls,
            host,
            port,
            path,
        } = self;
        let scheme = if *tls { "https" } else { "http" };
        write!(f, "{scheme}://{host}:{port}{path}")
    }
}

impl Place {
    /// Where an answer sends its reader; `None` when that is another host, which a probe does not ask.
    fn redirected(&self, location: &str) -> Option<Self> {
        if let Some(path) = location
            .strip_prefix('/')
            .filter(|rest| !rest.starts_with('/'))
        {
            return Some(Self {
                path: format!("/{path}"),
                ..self.clone()
            });
        }
        let (tls, rest) = match location.split_once("//") {
            Some(("https:", rest)) => (true, rest),
            Some(("http:", rest)) => (false, rest),
            Some(("", rest)) => (self.tls, rest),
            // Beside what was asked for.
            Some(_) | None => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                return Some(Self {
                    path: format!("{folder}/{location}"),
                    ..self.clone()
                });
            }
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let default = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, default),
        };
        (host == self.host).then(|| Self {
            tls,
            host: host.to_owned(),
            port,
            path: format!("/{}", path.trim_start_matches('/')),
        })
    }
}

/// Asks, and follows redirects within the host: the last status, or what went wrong.
pub(super) async fn follow(first: Place, action: &core::HTTPGetAction) -> Result<u16, String> {
    let mut place = first;
    for _ in 0..=REDIRECTS {
        let (code, location) = ask(&place, action).await?;
        let next = location
            .filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308))
            .and_then(|location| place.redirected(&location));
        match next {
            Some(next) => place = next,
            None => return Ok(code),
        }
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

/// One request: the status, and where it sends to.
async fn ask(place: &Place, action: &core::HTTPGetAction) -> Result<(u16, Option<String>), String> {
    let Place {
        tls, host, port, ..
    } = place;
    let stream = TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: connect: {error}"))?;
    if !tls {
        return exchange(stream, place, action).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(unchecked()?)
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: {error}"))?;
    exchange(stream, place, action).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    place: &Place,
    action: &core::HTTPGetAction,
) -> Result<(u16, Option<String>), String> {
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(told)?;
    let driver = tokio::spawn(connection);
    let request = request(place, action)?;
    let answer = sender.send_request(request).await.map_err(told);
    driver.abort();
    let answer = answer?;
    let location = answer.headers().get(http::header::LOCATION);
    Ok((
        answer.status().as_u16(),
        location.and_then(|text| Some(text.to_str().ok()?.to_owned())),
    ))
}

fn request(
    place: &Place,
    action: &core::HTTPGetAction,
) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut request = http::Request::get(&place.path).header(http::header::CONNECTION, "close");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let own = [
        ("host", format!("{}:{}", place.host, place.port)),
        ("user-agent", "kube-probe/1.36".to_owned()),
        ("accept", "*/*".to_owned()),
    ];
    for (name, value) in own {
        if !headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(name))
        {
            request = request.header(name, value);
        }
    }
    request
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

/// TLS that takes any certificate. upstream: probes ask whether something answers, not who.
fn unchecked() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_no_client_auth();
            Ok(Arc::new(config))
        })
        .clone()
}

/// Takes every certificate for good.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
