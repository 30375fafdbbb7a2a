//! `stead port-forward`: ports of this machine that lead to ports of a pod, also to those on its own loopback only.

use std::net::SocketAddr;
use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncWrite, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::api::{Target, kind_named};
use crate::args::PortForward;
use crate::failure::Failure;
use crate::place::Place;

/// A port here, and the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    /// 0 for any that is free.
    local: u16,
    remote: u16,
}

/// Listens and forwards until it is ended.
pub(crate) async fn run(args: PortForward, place: &Place) -> Result<ExitCode, Failure> {
    let pairs: Vec<Pair> = args
        .ports
        .iter()
        .map(|text| pair(text))
        .collect::<Result<_, _>>()?;
    let api = place.connect().await?;
    let namespace = &args.namespace.namespace;
    let target = Target::all(kind_named("pod")?, Some(namespace)).named(&args.pod);
    if api.find(&target).await?.is_none() {
        return Err(Failure::failed(format!(
            "there is no pod {} in namespace {namespace}; `stead get pods` lists them",
            args.pod
        )));
    }
    let pods = kube::Api::<Pod>::namespaced(api.client, namespace);
    let mut tasks = JoinSet::new();
    for Pair { local, remote } in pairs {
        let address = SocketAddr::new(args.address, local);
        let what = || format!("listen on {address}; choose another port, or :{remote} for any");
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| Failure::system(&what(), source))?;
        let address = listener.local_addr();
        let address = address.map_err(|source| Failure::system(&what(), source))?;
        println!("Forwarding from {address} -> {remote}");
        tasks.spawn(accept(listener, pods.clone(), args.pod.clone(), remote));
    }
    // None of them ends by itself; the program is ended by Ctrl-C.
    while tasks.join_next().await.is_some() {}
    Ok(ExitCode::SUCCESS)
}

async fn accept(listener: TcpListener, pods: kube::Api<Pod>, pod: String, remote: u16) {
    let mut carried = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (pods, pod) = (pods.clone(), pod.clone());
                carried.spawn(async move {
                    if let Err(sentence) = carry(stream, &pods, &pod, remote).await {
                        eprintln!("error: {sentence}");
                    }
                });
                while carried.try_join_next().is_some() {}
            }
            Err(error) => eprintln!("error: a connection could not be taken: {error}"),
        }
    }
}

/// Carries one connection; the error is a sentence.
async fn carry(
    mut stream: TcpStream,
    pods: &kube::Api<Pod>,
    pod: &str,
    remote: u16,
) -> Result<(), String> {
    let forwarded = pods.portforward(pod, &[remote]).await;
    let mut forwarded = forwarded
        .map_err(|error| format!("could not forward to port {remote} of {pod}: {error}"))?;
    let said = forwarded.take_error(remote);
    if let Some(there) = forwarded.take_stream(remote) {
        both_ways(&mut stream, there).await;
    }
    // What went wrong was said before the end.
    let said = match said {
        Some(said) => {
            forwarded.abort();
            said.await
        }
        None => None,
    };
    said.map_or(Ok(()), Err)
}

/// Until the pod's side ends, or this one fails. This way of forwarding cannot close one direction: when the program
/// here has said all, what the pod still says is waited for.
async fn both_ways(here: &mut TcpStream, there: impl AsyncRead + AsyncWrite) {
    let (mut here_reader, mut here_writer) = here.split();
    let (mut there_reader, mut there_writer) = tokio::io::split(there);
    let sending = async {
        // An error: whoever was here is gone.
        if copy(&mut here_reader, &mut there_writer).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = sending => {}
        _ = copy(&mut there_reader, &mut here_writer) => {}
    }
}

/// Reads `LOCAL:REMOTE`, `:REMOTE` or `PORT`.
fn pair(text: &str) -> Result<Pair, Failure> {
    let refused = || {
        Failure::input(format!(
            "{text:?} names no ports; write LOCAL:REMOTE, REMOTE or :REMOTE"
        ))
    };
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let remote = remote.parse().map_err(|_| refused())?;
    let local = match local {
        "" => 0,
        local => local.parse().map_err(|_| refused())?,
    };
    match remote {
        0 => Err(refused()),
        remote => Ok(Pair { local, remote }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        let read = |text| pair(text).ok().map(|pair| (pair.local, pair.remote));
        assert_eq!(read("80"), Some((80, 80)));
        assert_eq!(read("8080:80"), Some((8080, 80)));
        assert_eq!(read(":80"), Some((0, 80)));
        for bad in ["", ":", "80:", "http", "80:0", "99999"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
