//! The worlds that are explored.

use crate::object::Retention;
use crate::world::{Propagation, Settings, Strategy, World};

/// OrderedReady, RollingUpdate, claims kept.
const ORDERED: Settings = Settings {
    parallel: false,
    strategy: Strategy::Rolling(1),
    claims: false,
    delete_with_set: false,
    delete_with_pod: false,
    min_ready: false,
    history: 1,
};

const PLAIN: World = World {
    name: "plain",
    settings: ORDERED,
    replicas: 2,
    partition: 0,
    templates: &[],
    scales: &[],
    starts: &[],
    delete: None,
    recreate: false,
    broken: &[],
    pod_deletes: 0,
    fails: 0,
    unready: 0,
    tampers: 0,
    claim_deletes: 0,
    retentions: &[],
    strangers: 0,
    crashes: 0,
    lost_replies: 0,
    conflicts: 0,
    refusals: 0,
    failovers: 0,
    lag: [0; 4],
    rewind: 0,
    settled: false,
};

const PARALLEL: Settings = Settings {
    parallel: true,
    ..ORDERED
};
const CLAIMS: Settings = Settings {
    claims: true,
    ..ORDERED
};
const CLAIMS_GO: Settings = Settings {
    delete_with_set: true,
    delete_with_pod: true,
    ..CLAIMS
};
const RETAIN: Retention = Retention {
    delete_with_set: false,
    delete_with_pod: false,
};
const DELETE: Retention = Retention {
    delete_with_set: true,
    delete_with_pod: true,
};
/// Every cache may be one event behind.
const STALE: [u8; 4] = [1; 4];

/// The worlds of every run.
pub fn matrix() -> Vec<World> {
    MATRIX.to_vec()
}

const MATRIX: &[World] = &[
    World {
        name: "ordered-create",
        replicas: 3,
        ..PLAIN
    },
    World {
        name: "ordered-roll",
        replicas: 2,
        templates: &[1],
        pod_deletes: 1,
        fails: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-roll-scale",
        replicas: 3,
        templates: &[1],
        scales: &[1],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-scale",
        replicas: 3,
        scales: &[1, 2],
        fails: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-max-2",
        replicas: 3,
        settings: Settings {
            strategy: Strategy::Rolling(2),
            ..ORDERED
        },
        templates: &[1],
        pod_deletes: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-min-ready",
        settings: Settings {
            min_ready: true,
            ..ORDERED
        },
        templates: &[1],
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-partition",
        replicas: 3,
        partition: 1,
        templates: &[1],
        pod_deletes: 1,
        settled: true,
        ..PLAIN
    },
    World {
        name: "ordered-rollback",
        templates: &[1, 0],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-three-templates",
        settings: Settings {
            history: 0,
            ..ORDERED
        },
        templates: &[1, 2],
        ..PLAIN
    },
    World {
        name: "ordered-broken",
        templates: &[1, 2],
        broken: &[1],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-null",
        settings: Settings {
            strategy: Strategy::RollingNull,
            ..ORDERED
        },
        templates: &[1],
        pod_deletes: 1,
        fails: 1,
        ..PLAIN
    },
    World {
        name: "ordered-on-delete",
        settings: Settings {
            strategy: Strategy::OnDelete,
            ..ORDERED
        },
        templates: &[1],
        pod_deletes: 2,
        ..PLAIN
    },
    World {
        name: "ordered-start",
        starts: &[1],
        pod_deletes: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-start-partition",
        partition: 1,
        starts: &[1],
        templates: &[1],
        ..PLAIN
    },
    World {
        name: "ordered-tamper",
        tampers: 1,
        templates: &[1],
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-claims-kept",
        settings: CLAIMS,
        scales: &[1, 2],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-claims-scale",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-claims-lost",
        settings: CLAIMS,
        claim_deletes: 1,
        pod_deletes: 1,
        templates: &[1],
        ..PLAIN
    },
    World {
        name: "ordered-claims-roll",
        settings: CLAIMS_GO,
        templates: &[1],
        scales: &[1],
        ..PLAIN
    },
    World {
        name: "parallel-roll",
        settings: PARALLEL,
        replicas: 3,
        templates: &[1],
        pod_deletes: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "parallel-max-2",
        settings: Settings {
            strategy: Strategy::Rolling(2),
            ..PARALLEL
        },
        replicas: 3,
        templates: &[1],
        unready: 1,
        ..PLAIN
    },
    World {
        name: "parallel-scale",
        settings: PARALLEL,
        replicas: 3,
        scales: &[1, 3],
        fails: 1,
        ..PLAIN
    },
    World {
        name: "parallel-partition",
        settings: PARALLEL,
        replicas: 3,
        partition: 2,
        templates: &[1],
        pod_deletes: 1,
        settled: true,
        ..PLAIN
    },
    World {
        name: "parallel-broken",
        settings: PARALLEL,
        templates: &[1, 2],
        broken: &[1],
        unready: 1,
        ..PLAIN
    },
    World {
        name: "parallel-claims-scale",
        settings: Settings {
            parallel: true,
            ..CLAIMS_GO
        },
        scales: &[1, 2],
        ..PLAIN
    },
    World {
        name: "recreate",
        settings: Settings {
            strategy: Strategy::Recreate,
            ..ORDERED
        },
        templates: &[1],
        pod_deletes: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "delete-background",
        settings: CLAIMS_GO,
        delete: Some(Propagation::Background),
        recreate: true,
        ..PLAIN
    },
    World {
        name: "delete-foreground",
        settings: CLAIMS_GO,
        delete: Some(Propagation::Foreground),
        scales: &[1],
        ..PLAIN
    },
    World {
        name: "delete-orphan",
        settings: CLAIMS,
        delete: Some(Propagation::Orphan),
        recreate: true,
        ..PLAIN
    },
    World {
        name: "stale-roll",
        templates: &[1],
        pod_deletes: 1,
        fails: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "stale-scale",
        scales: &[1],
        unready: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "stale-claims",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "stale-null",
        settings: Settings {
            strategy: Strategy::RollingNull,
            ..ORDERED
        },
        templates: &[1],
        pod_deletes: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "stale-delete",
        delete: Some(Propagation::Background),
        recreate: true,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "two-controllers",
        templates: &[1],
        pod_deletes: 1,
        failovers: 1,
        settled: true,
        ..PLAIN
    },
    World {
        name: "crashes-roll",
        templates: &[1],
        pod_deletes: 1,
        crashes: 2,
        ..PLAIN
    },
    World {
        name: "crashes-claims-scale",
        settings: CLAIMS_GO,
        scales: &[1],
        crashes: 1,
        settled: true,
        ..PLAIN
    },
    World {
        name: "lost-replies-roll",
        templates: &[1],
        lost_replies: 2,
        lag: [0, 1, 0, 1],
        ..PLAIN
    },
    World {
        name: "lost-replies-claims",
        settings: CLAIMS_GO,
        scales: &[1],
        lost_replies: 1,
        lag: [0, 1, 1, 0],
        ..PLAIN
    },
    World {
        name: "conflicts-claims",
        settings: CLAIMS_GO,
        scales: &[1],
        conflicts: 2,
        ..PLAIN
    },
    World {
        name: "refusals-roll",
        templates: &[1],
        refusals: 2,
        ..PLAIN
    },
    World {
        name: "refusals-claims",
        settings: CLAIMS,
        refusals: 2,
        scales: &[1],
        ..PLAIN
    },
    World {
        name: "refusals-claims-scale",
        settings: CLAIMS_GO,
        refusals: 1,
        scales: &[1],
        settled: true,
        ..PLAIN
    },
    World {
        name: "every-fault",
        templates: &[1],
        crashes: 1,
        lost_replies: 1,
        conflicts: 1,
        refusals: 1,
        failovers: 1,
        lag: [0, 1, 0, 0],
        settled: true,
        ..PLAIN
    },
    World {
        name: "ordered-broken-scale",
        replicas: 3,
        templates: &[1],
        scales: &[1],
        broken: &[1],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-claims-lent",
        settings: Settings {
            delete_with_pod: true,
            ..CLAIMS
        },
        scales: &[1, 2],
        fails: 1,
        ..PLAIN
    },
    World {
        name: "ordered-claims-tied",
        settings: Settings {
            delete_with_set: true,
            ..CLAIMS
        },
        scales: &[1],
        delete: Some(Propagation::Background),
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "parallel-on-delete",
        settings: Settings {
            strategy: Strategy::OnDelete,
            ..PARALLEL
        },
        templates: &[1],
        pod_deletes: 2,
        ..PLAIN
    },
    World {
        name: "parallel-null",
        settings: Settings {
            strategy: Strategy::RollingNull,
            ..PARALLEL
        },
        replicas: 3,
        templates: &[1],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "parallel-min-ready",
        settings: Settings {
            min_ready: true,
            ..PARALLEL
        },
        templates: &[1],
        unready: 1,
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "parallel-start",
        settings: PARALLEL,
        starts: &[1],
        templates: &[1],
        unready: 1,
        ..PLAIN
    },
    World {
        name: "recreate-broken",
        settings: Settings {
            strategy: Strategy::Recreate,
            ..ORDERED
        },
        templates: &[1, 2],
        broken: &[1],
        unready: 1,
        ..PLAIN
    },
    World {
        name: "stale-parallel",
        settings: PARALLEL,
        templates: &[1],
        scales: &[1],
        pod_deletes: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "stale-claims-roll",
        settings: CLAIMS_GO,
        templates: &[1],
        scales: &[1],
        fails: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "stale-3",
        replicas: 3,
        templates: &[1],
        scales: &[1],
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "set-back",
        templates: &[1],
        fails: 1,
        crashes: 1,
        rewind: 2,
        ..PLAIN
    },
    World {
        name: "set-back-claims",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        fails: 1,
        crashes: 1,
        rewind: 2,
        ..PLAIN
    },
    World {
        name: "two-parallel",
        settings: PARALLEL,
        templates: &[1],
        scales: &[1],
        failovers: 1,
        settled: true,
        ..PLAIN
    },
    World {
        name: "two-claims",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        failovers: 1,
        settled: true,
        ..PLAIN
    },
    World {
        name: "ordered-claims-stranger",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        strangers: 2,
        ..PLAIN
    },
    World {
        name: "parallel-claims-stranger",
        settings: Settings {
            parallel: true,
            delete_with_pod: true,
            ..CLAIMS
        },
        templates: &[1],
        scales: &[1],
        strangers: 2,
        ..PLAIN
    },
    World {
        name: "stale-claims-stranger",
        settings: Settings {
            delete_with_pod: true,
            ..CLAIMS
        },
        scales: &[1, 2],
        strangers: 2,
        lag: [0, 0, 1, 0],
        ..PLAIN
    },
    World {
        name: "ordered-claims-spared",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        retentions: &[RETAIN],
        ..PLAIN
    },
    World {
        name: "ordered-claims-given-up",
        settings: CLAIMS,
        scales: &[1, 2],
        retentions: &[DELETE, RETAIN],
        ..PLAIN
    },
    World {
        name: "parallel-claims-spared",
        settings: Settings {
            parallel: true,
            ..CLAIMS_GO
        },
        scales: &[1, 2],
        pod_deletes: 1,
        retentions: &[RETAIN],
        ..PLAIN
    },
    World {
        name: "deleted-claims-spared",
        settings: CLAIMS_GO,
        delete: Some(Propagation::Background),
        recreate: true,
        retentions: &[RETAIN],
        ..PLAIN
    },
];

/// The worlds of the large run: three and four replicas, several troubles at once.
pub fn large() -> Vec<World> {
    LARGE.to_vec()
}

const LARGE: &[World] = &[
    World {
        name: "ordered-4-refused",
        replicas: 4,
        templates: &[1],
        scales: &[2],
        pod_deletes: 1,
        fails: 1,
        unready: 1,
        refusals: 1,
        ..PLAIN
    },
    World {
        name: "ordered-3-stale-4",
        replicas: 3,
        templates: &[1],
        scales: &[1],
        pod_deletes: 1,
        fails: 1,
        unready: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "claims-3-stale-3",
        settings: CLAIMS_GO,
        replicas: 3,
        templates: &[1],
        scales: &[1, 3],
        pod_deletes: 1,
        crashes: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "every-fault-stale",
        templates: &[1],
        crashes: 1,
        lost_replies: 1,
        conflicts: 1,
        refusals: 1,
        failovers: 1,
        lag: STALE,
        settled: true,
        ..PLAIN
    },
    World {
        name: "two-claims-stale",
        settings: CLAIMS_GO,
        replicas: 2,
        scales: &[1],
        pod_deletes: 1,
        failovers: 1,
        lag: [0, 1, 1, 0],
        ..PLAIN
    },
    World {
        name: "parallel-4-deleted",
        settings: PARALLEL,
        replicas: 4,
        templates: &[1],
        pod_deletes: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "parallel-3-stale-3",
        settings: PARALLEL,
        replicas: 3,
        templates: &[1],
        scales: &[1],
        pod_deletes: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "every-fault-claims",
        settings: CLAIMS_GO,
        scales: &[1, 2],
        crashes: 1,
        lost_replies: 1,
        conflicts: 1,
        refusals: 1,
        pod_deletes: 1,
        lag: [0, 1, 1, 0],
        ..PLAIN
    },
    World {
        name: "delete-stale-again",
        settings: CLAIMS_GO,
        delete: Some(Propagation::Background),
        recreate: true,
        pod_deletes: 1,
        lag: STALE,
        ..PLAIN
    },
    World {
        name: "parallel-3-scale-2",
        settings: Settings {
            strategy: Strategy::Rolling(2),
            ..PARALLEL
        },
        replicas: 3,
        templates: &[1],
        scales: &[1, 3],
        pod_deletes: 1,
        ..PLAIN
    },
    World {
        name: "ordered-4-max-2",
        replicas: 4,
        settings: Settings {
            strategy: Strategy::Rolling(2),
            ..ORDERED
        },
        templates: &[1],
        scales: &[2],
        pod_deletes: 1,
        unready: 1,
        ..PLAIN
    },
    World {
        name: "ordered-3-two-behind",
        replicas: 3,
        templates: &[1],
        scales: &[1],
        unready: 1,
        lag: [2; 4],
        ..PLAIN
    },
];
