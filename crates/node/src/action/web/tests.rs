//! Probes against servers on the loopback.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn place(path: &str) -> Place {
    Place {
        tls: false,
        host: "10.0.0.1".to_owned(),
        port: 8080,
        path: path.to_owned(),
    }
}

#[test]
fn a_redirect_is_followed_on_its_own_host_only() {
    for (location, want) in [
        ("/b", Some("http://10.0.0.1:8080/b")),
        ("c?d", Some("http://10.0.0.1:8080/x/c?d")),
        ("http://10.0.0.1:9/e", Some("http://10.0.0.1:9/e")),
        ("https://10.0.0.1", Some("https://10.0.0.1:443/")),
        ("//10.0.0.1:8080/f", Some("http://10.0.0.1:8080/f")),
        ("http://elsewhere:8080/g", None),
        ("http://10.0.0.1:no/h", None),
    ] {
        let got = place("/x/a")
            .redirected(location)
            .map(|place| place.to_string());
        assert_eq!(got.as_deref(), want, "{location}");
    }
}

/// Answers each request with the next of these; the port, and what it was asked.
async fn server(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let told = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().await.expect("a connection");
            asked.push(answer_one(stream, &answer).await);
        }
        asked
    });
    (port, told)
}

async fn answer_one(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("a request"));
    }
    let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("it listens");
    // The other end may be gone by now.
    let _ = stream.shutdown().await;
    String::from_utf8(request).expect("text")
}

fn action() -> core::HTTPGetAction {
    let header = |name: &str, value: &str| core::HTTPHeader {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    core::HTTPGetAction {
        http_headers: Some(vec![header("Host", "db"), header("X-A", "b")]),
        ..core::HTTPGetAction::default()
    }
}

fn at(port: u16, tls: bool) -> Place {
    Place {
        tls,
        host: "127.0.0.1".to_owned(),
        port,
        path: "/ready?now".to_owned(),
    }
}

#[tokio::test]
async fn headers_are_the_pods_and_redirects_count() {
    let answers = ["302 Found\r\nlocation: /login", "503 No"]
        .map(str::to_owned)
        .to_vec();
    let (port, asked) = server(answers).await;
    assert_eq!(follow(at(port, false), &action()).await, Ok(503));
    let asked = asked.await.expect("it was asked");
    assert!(
        asked[0].starts_with("GET /ready?now HTTP/1.1\r\n"),
        "{asked:?}"
    );
    assert!(asked[1].starts_with("GET /login HTTP/1.1\r\n"), "{asked:?}");
    for line in [
        "host: db\r\n",
        "x-a: b\r\n",
        "user-agent: kube-probe/1.36\r\n",
    ] {
        assert!(asked[0].to_lowercase().contains(line), "{asked:?}");
    }
    let round = vec!["301 Moved\r\nlocation: /again".to_owned(); 11];
    let (port, _asked) = server(round).await;
    let answer = follow(at(port, false), &action()).await;
    assert_eq!(answer, Err("stopped after 10 redirects".to_owned()));
}

#[tokio::test]
async fn a_certificate_of_nobody_is_as_good() {
    let own = rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()])
        .expect("a certificate");
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let stream = acceptor.accept(stream).await.expect("a handshake");
        answer_one(stream, "204 Fine").await
    });
    assert_eq!(follow(at(port, true), &action()).await, Ok(204));
    assert!(served.await.expect("served").starts_with("GET /ready?now"));
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // Whoever asks may be gone before all of it is sent.
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    });
    let asked =
        tokio::time::timeout(Duration::from_secs(60), follow(at(port, true), &action())).await;
    let error = asked.expect("an answer").expect_err("no HTTP");
    assert!(error.starts_with("tls: "), "{error}");
}
