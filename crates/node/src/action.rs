//! What probes and hooks do: run a program in a container, ask an HTTP path, open a TCP connection, ask gRPC health.

mod web;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::runtime::{ContainerId, ExecRequest, Runtime};

/// upstream: as much of an answer as messages show.
const OUTPUT_MAX: usize = 10 * 1_024;

/// How an action went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Well.
    Success,
    /// Not well, and what there was to see of it.
    Failure(String),
    /// It could not be found out.
    Unknown(String),
}

/// Where an action is aimed.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) id: ContainerId,
    /// The pod's address.
    pub(crate) ip: IpAddr,
    /// Ports that the container names.
    pub(crate) ports: Vec<(String, u16)>,
}

/// The named ports of a container.
pub(crate) fn ports(container: &core::Container) -> Vec<(String, u16)> {
    let named = container.ports.iter().flatten();
    named
        .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
        .collect()
}

impl Target {
    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        match port {
            IntOrString::Int(number) => {
                u16::try_from(*number).map_err(|_| format!("invalid port number: {number}"))
            }
            IntOrString::String(name) => {
                let named = self
                    .ports
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, number)| *number);
                named
                    .or_else(|| name.parse().ok())
                    .ok_or_else(|| format!("couldn't find port: {name}"))
            }
        }
    }

    /// Runs a program in the container. Success is exit code 0.
    pub(crate) async fn exec(&self, argv: &[String], timeout: Duration) -> Answer {
        let request = ExecRequest {
            argv: argv.to_vec(),
            stdin: false,
            tty: false,
        };
        let run = async {
            let session = self
                .runtime
                .exec(&self.id, &request)
                .await
                .map_err(|error| error.to_string())?;
            let (out, err) = tokio::join!(read(Some(session.stdout)), read(session.stderr));
            let code = session.exit.await.map_err(|error| error.to_string())?;
            Ok::<_, String>((code, out + &err))
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(Ok((0, _))) => Answer::Success,
            Ok(Ok((_, output))) => Answer::Failure(output),
            Ok(Err(error)) => Answer::Unknown(error),
            Err(_) => Answer::Failure(format!(
                "command timed out: {argv:?} timed out after {}s",
                timeout.as_secs()
            )),
        }
    }

    /// Asks an HTTP path, as a probe does. Success is a status from 200 to 399.
    pub(crate) async fn http(&self, action: &core::HTTPGetAction, timeout: Duration) -> Answer {
        match self.fetch(action, timeout).await {
            Ok(code) if (200..400).contains(&code) => Answer::Success,
            Ok(code) => Answer::Failure(format!("HTTP probe failed with statuscode: {code}")),
            Err(answer) => answer,
        }
    }

    /// Asks an HTTP path, as a hook does. upstream: any answer is a success.
    pub(crate) async fn http_hook(&self, action: &core::HTTPGetAction, limit: Duration) -> Answer {
        match self.fetch(action, limit).await {
            Ok(_) => Answer::Success,
            Err(answer) => answer,
        }
    }

    /// The status that an HTTP path answers, redirects within the same host followed.
    async fn fetch(&self, action: &core::HTTPGetAction, timeout: Duration) -> Result<u16, Answer> {
        let port = self.port(&action.port).map_err(Answer::Unknown)?;
        let host = action
            .host
            .clone()
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| self.ip.to_string());
        let path = action.path.as_deref().unwrap_or_default();
        let first = web::Place {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host,
            port,
            path: format!("/{}", path.trim_start_matches('/')),
        };
        let url = first.to_string();
        match tokio::time::timeout(timeout, web::follow(first, action)).await {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(error)) => Err(Answer::Failure(format!("Get \"{url}\": {error}"))),
            Err(_) => Err(Answer::Failure(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ))),
        }
    }

    /// Opens a TCP connection.
    pub(crate) async fn tcp(&self, action: &core::TCPSocketAction, timeout: Duration) -> Answer {
        let port = match self.port(&action.port) {
            Ok(port) => port,
            Err(error) => return Answer::Unknown(error),
        };
        let host = action
            .host
            .clone()
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| self.ip.to_string());
        match tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(_)) => Answer::Success,
            Ok(Err(error)) => Answer::Failure(format!("dial tcp {host}:{port}: {error}")),
            Err(_) => Answer::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
        }
    }

    /// Asks the gRPC health service, version 1.
    pub(crate) async fn grpc(&self, action: &core::GRPCAction, timeout: Duration) -> Answer {
        let Ok(port) = u16::try_from(action.port) else {
            return Answer::Unknown(format!("invalid port number: {}", action.port));
        };
        let address = SocketAddr::new(self.ip, port);
        let service = action.service.clone().unwrap_or_default();
        match tokio::time::timeout(timeout, health(address, &service)).await {
            Ok(Ok(1)) => Answer::Success,
            Ok(Ok(status)) => Answer::Failure(format!(
                "service unhealthy (responded with \"{}\")",
                serving(status)
            )),
            Ok(Err(error)) => {
                Answer::Failure(format!("failed to connect service \"{address}\": {error}"))
            }
            Err(_) => Answer::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {}s",
                timeout.as_secs()
            )),
        }
    }
}

async fn read(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut all = Vec::new();
    let mut piece = [0; 4_096];
    // Read to the end, so that the program never waits for us, but keep only as much as is shown.
    while let Ok(count) = stream.read(&mut piece).await {
        if count == 0 {
            break;
        }
        let room = OUTPUT_MAX.saturating_sub(all.len()).min(count);
        all.extend_from_slice(&piece[..room]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// One `grpc.health.v1.Health/Check`: the number of the serving status.
async fn health(address: SocketAddr, service: &str) -> Result<u8, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .header(http::header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(health_request(service)))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let body = Limited::new(response.into_body(), OUTPUT_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok(health_answer(&body.to_bytes()))
    }
    .await;
    driver.abort();
    answer
}

/// A gRPC frame (flag, length) with one protobuf field: `service = 1`.
fn health_request(service: &str) -> Bytes {
    let service = service.as_bytes();
    let name = &service[..service.len().min(127)];
    let mut message = Vec::new();
    if !name.is_empty() {
        message.extend([0x0a, u8::try_from(name.len()).unwrap_or(0)]);
        message.extend(name);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    Bytes::from(frame)
}

/// `status = 1` of the answer; 0 (unknown) where there is none.
fn health_answer(frame: &[u8]) -> u8 {
    match frame {
        [0, _, _, _, _, 0x08, status, ..] => *status,
        _ => 0,
    }
}

fn serving(status: u8) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::net::TcpListener;

    use super::*;

    /// A health service that serves, but not `db`, and knows no `nobody`.
    async fn serve() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(answer);
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        address
    }

    async fn answer(
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request
            .into_body()
            .collect()
            .await
            .expect("a request")
            .to_bytes();
        let mut response = http::Response::builder().header("content-type", "application/grpc");
        let frame: &[u8] = match asked.get(7..).unwrap_or_default() {
            b"" => &[0, 0, 0, 0, 2, 8, 1],
            b"db" => &[0, 0, 0, 0, 2, 8, 2],
            _ => {
                response = response.header("grpc-status", "5");
                &[]
            }
        };
        Ok(response
            .body(Full::new(Bytes::copy_from_slice(frame)))
            .expect("a response"))
    }

    #[tokio::test]
    async fn grpc_health_is_asked_by_service() {
        let address = serve().await;
        for (service, want) in [
            ("", "SERVING"),
            ("db", "NOT_SERVING"),
            ("nobody", "UNKNOWN"),
        ] {
            assert_eq!(
                health(address, service).await.map(serving),
                Ok(want),
                "{service}"
            );
        }
    }
}
