//! Connecting to a port of a pod from the machine: also to what listens on the pod's own loopback only.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Connects to an address that the machine reaches.
pub(super) async fn to(ip: IpAddr, port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(SocketAddr::new(ip, port)).await
}

/// Connects to localhost inside the network namespace of this file: first by IPv4, then by IPv6.
///
/// A socket belongs for ever to the namespace that its thread was in when it was made, so only that needs a thread
/// inside; connecting is everybody's.
pub(super) async fn inside(namespace: &Path, port: u16) -> io::Result<TcpStream> {
    let (four, six) = sockets(namespace.to_owned()).await?;
    match connect(four, IpAddr::V4(Ipv4Addr::LOCALHOST), port).await {
        Ok(stream) => Ok(stream),
        // What IPv4 says is what people look for; IPv6 may be off altogether.
        Err(error) => match six {
            Some(six) => connect(six, IpAddr::V6(Ipv6Addr::LOCALHOST), port)
                .await
                .map_err(|_| error),
            None => Err(error),
        },
    }
}

async fn connect(socket: OwnedFd, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(SocketAddr::new(ip, port)).await
}

type Sockets = (OwnedFd, Option<OwnedFd>);

async fn sockets(namespace: PathBuf) -> io::Result<Sockets> {
    let (told, answer) = oneshot::channel();
    // A thread of its own, which ends inside: one of Tokio's would come back to other work in there.
    std::thread::Builder::new()
        .name("pod-dial".to_owned())
        .spawn(move || {
            // Whoever asked may be gone.
            let _ = told.send(make(&namespace));
        })?;
    answer.await.map_err(io::Error::other)?
}

fn make(namespace: &Path) -> io::Result<Sockets> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let four = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // A kernel without IPv6 has none to offer.
    let six = socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None).ok();
    Ok((four, six))
}
