//! The small controllers together, over whatever API the clients speak to.

use futures::FutureExt as _;

use crate::balancer::Machine;
use crate::informer::{Clients, Kit, Shutdown};
use crate::metadata::{Served, discover};
use crate::{
    balancer, bind, claims, collect, disruption, endpoints, evict, namespaces, node_taints, quotas,
};

/// Which controllers run, and what they must know.
#[derive(Clone)]
pub struct Controllers {
    /// Gives each controller a client of its own name.
    pub clients: Clients,
    /// The API's own certificate as PEM, for pods; empty where there is none.
    pub certificate: String,
    /// `false`: nothing but claims and volumes are cared for, and no claim counts as used.
    pub workloads: bool,
    /// Whose address services of type LoadBalancer get; `None` where nothing would answer there.
    pub balancer: Option<Machine>,
}

impl Controllers {
    /// Runs them until the shutdown; what is under way then is finished first.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let shutdown: Shutdown = shutdown.boxed().shared();
        let client = (self.clients)("controllers");
        let Some(served) = served(&client, &shutdown).await else {
            return;
        };
        let mut kit = Kit::new(self.clients, served, shutdown);
        claims::register(&mut kit, self.workloads);
        if self.workloads {
            bind::register(&mut kit);
            evict::register(&mut kit);
            node_taints::register(&mut kit);
            quotas::register(&mut kit);
            endpoints::register(&mut kit);
            if let Some(machine) = self.balancer {
                balancer::register(&mut kit, machine);
            }
            disruption::register(&mut kit);
            namespaces::register(&mut kit, self.certificate);
            collect::register(&mut kit);
        }
        kit.run(client).await;
    }
}

/// What the API serves; asked again until it answers. `None` at the shutdown.
async fn served(client: &kube::Client, shutdown: &Shutdown) -> Option<Vec<Served>> {
    let mut delay = std::time::Duration::from_millis(5);
    loop {
        match discover(client).await {
            Ok(served) => return Some(served),
            Err(error) => {
                tracing::warn!(%error, "the API does not say what it serves; asking again")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => delay = (delay * 2).min(std::time::Duration::from_secs(5)),
            () = shutdown.clone() => return None,
        }
    }
}
