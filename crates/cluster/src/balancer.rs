//! Services of type LoadBalancer: they get the machine's own address once their ports are free there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::events::{EventType, Recorder};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, is_terminating, list, text, uid};

use crate::informer::{Cache, Change, Kit};
use crate::outcome;

/// Whether a port of an address of the machine is held by a program.
pub type IsHeld = Arc<dyn Fn(&str, u16) -> bool + Send + Sync>;

/// How long until it is looked again whether a program has let a port go.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// An address that nobody has: where a packet to the world would go tells which of its own the machine would send from.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The machine, as load balancers see it.
#[derive(Clone)]
pub struct Machine {
    /// The address that services get.
    pub address: IpAddr,
    /// By protocol (`TCP`, `UDP`) and number.
    pub is_held: IsHeld,
}

impl Machine {
    /// This machine, with the address that it speaks to the world from. `None` when it has no way to the world.
    pub fn this() -> Option<Machine> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // Connecting a UDP socket sends nothing.
        socket.connect(ELSEWHERE).ok()?;
        let address = socket.local_addr().ok()?.ip();
        let is_held = move |protocol: &str, port: u16| {
            let at = SocketAddr::new(address, port);
            match protocol {
                "UDP" => UdpSocket::bind(at).is_err(),
                _ => TcpListener::bind(at).is_err(),
            }
        };
        (!address.is_loopback() && !address.is_unspecified()).then(|| Machine {
            address,
            is_held: Arc::new(is_held),
        })
    }
}

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit, machine: Machine) {
    let queue: Queue<Key> = Queue::new();
    let services = kit.cache(Resource::SERVICES);
    kit.follow(
        Resource::SERVICES,
        on_service(queue.clone(), services.clone()),
    );
    let balancer = Arc::new(Balancer {
        client: kit.client("service-controller"),
        recorder: kit.recorder("service-controller"),
        services,
        machine,
    });
    // One at a time: two services that ask for one port must not both find it free.
    kit.work(queue, 1, move |key| {
        let balancer = Arc::clone(&balancer);
        async move { outcome::of("balancer", &key, balancer.sync(&key).await) }
    });
}

/// A service that goes, or changes, may free a port for which others wait.
fn on_service(queue: Queue<Key>, services: Cache) -> impl Fn(&Change<'_>) {
    move |change| {
        queue.add(change.key.clone());
        if change.old.is_some_and(|old| !addresses(old).is_empty()) {
            for other in services.all().iter().filter(|own| is_balanced(own)) {
                queue.add(Key::of(other));
            }
        }
    }
}

/// Whether this cluster's load balancer serves it: those with a class of their own are somebody else's.
fn is_balanced(service: &Value) -> bool {
    text(service, "/spec/type") == "LoadBalancer"
        && text(service, "/spec/loadBalancerClass").is_empty()
        && !is_terminating(service)
}

fn addresses(service: &Value) -> &[Value] {
    list(service, "/status/loadBalancer/ingress")
}

fn ports(service: &Value) -> BTreeSet<(String, u16)> {
    let own = |port: &Value| {
        let number = port.get("port")?.as_u64()?;
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        Some((protocol.to_owned(), u16::try_from(number).ok()?))
    };
    list(service, "/spec/ports")
        .iter()
        .filter_map(own)
        .collect()
}

struct Balancer {
    client: kube::Client,
    recorder: Recorder,
    services: Cache,
    machine: Machine,
}

/// Who holds a port.
#[derive(Debug, PartialEq)]
enum Holder {
    Service(Key),
    Program,
}

impl Balancer {
    async fn sync(&self, key: &Key) -> Result<Outcome, CallError> {
        let Some(service) = self.services.get(key) else {
            return Ok(Outcome::Done);
        };
        if !is_balanced(&service) {
            let ours = text(&service, "/spec/loadBalancerClass").is_empty();
            if ours && !addresses(&service).is_empty() {
                self.write(&service, &json!([])).await?;
            }
            return Ok(Outcome::Done);
        }
        let wanted = json!([{"ip": self.machine.address, "ipMode": "VIP"}]);
        if json!(addresses(&service)) == wanted {
            return Ok(Outcome::Done);
        }
        if let Some((protocol, port, holder)) = self.taken(&service) {
            return Ok(self.wait(&service, &protocol, port, &holder));
        }
        self.write(&service, &wanted).await?;
        self.recorder.about(
            &service,
            EventType::Normal,
            "EnsuredLoadBalancer",
            "Ensured load balancer",
        );
        Ok(Outcome::Done)
    }

    /// The first of the service's ports that is not free.
    fn taken(&self, service: &Value) -> Option<(String, u16, Holder)> {
        let services = self.services.all();
        let mut others = services.iter().filter(|other| {
            is_balanced(other) && uid(other) != uid(service) && !addresses(other).is_empty()
        });
        ports(service).into_iter().find_map(|(protocol, port)| {
            let own = (protocol, port);
            let holder = others
                .find(|other| ports(other).contains(&own))
                .map(|other| Holder::Service(Key::of(other)))
                .or_else(|| (self.machine.is_held)(&own.0, port).then_some(Holder::Program))?;
            Some((own.0, port, holder))
        })
    }

    fn wait(&self, service: &Value, protocol: &str, port: u16, holder: &Holder) -> Outcome {
        let address = self.machine.address;
        let (who, outcome) = match holder {
            Holder::Service(key) => (format!("the service {key}"), Outcome::Done),
            Holder::Program => (
                "a program of the machine".to_owned(),
                Outcome::Recheck(LOOK_AGAIN),
            ),
        };
        let message =
            format!("{protocol} port {port} of {address} is held by {who}: it is waited for");
        self.recorder.about(
            service,
            EventType::Warning,
            "SyncLoadBalancerFailed",
            message,
        );
        outcome
    }

    async fn write(&self, service: &Value, ingress: &Value) -> Result<(), CallError> {
        let metadata = json!({"uid": uid(service)});
        let patch = json!({"metadata": metadata, "status": {"loadBalancer": {"ingress": ingress}}});
        let key = Key::of(service);
        let request = Request::patch(Method::MergePatch, &Resource::SERVICES, &key, patch);
        call(&self.client, request.on("status")).await.map(drop)
    }
}
