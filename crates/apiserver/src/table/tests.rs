//! Rows as people see them.

use jiff::Timestamp;
use serde_json::Value;

use super::age::human;
use super::cells;

const NOW: &str = "2026-01-01T12:00:00Z";

/// The cells of a YAML object, joined with ` | `.
fn row(object: &str) -> String {
    let object: Value = serde_saphyr::from_str(object).expect("a test object is YAML");
    let (version, kind) = (
        object["apiVersion"].as_str().expect("apiVersion"),
        object["kind"].as_str().expect("kind"),
    );
    let kind = stead_schema::kind(version, kind).expect("a served kind");
    let now: Timestamp = NOW.parse().expect("a time");
    let cells = cells(kind, &object, now);
    assert_eq!(
        cells.len(),
        stead_schema::columns(kind.group, kind.version, kind.plural).len(),
        "one cell a column"
    );
    cells
        .iter()
        .map(|cell| {
            cell.as_str()
                .map_or_else(|| cell.to_string(), str::to_owned)
        })
        .collect::<Vec<_>>()
        .join(" | ")
}

fn pod(status: &str) -> String {
    let spec = "spec: {nodeName: n1, initContainers: [{name: i}, {name: s, restartPolicy: Always}], containers: [{name: a}, {name: b}]}";
    row(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, creationTimestamp: '2026-01-01T11:55:00Z'}}\n{spec}\nstatus:\n{status}"
    ))
}

#[test]
fn ages_have_two_units_and_get_coarser() {
    let table = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (10_860, "3h1m"),
        (28_800, "8h"),
        (172_800, "2d"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (252_288_000, "8y"),
    ];
    for (seconds, words) in table {
        assert_eq!(human(seconds), words, "{seconds} seconds");
    }
}

#[test]
fn a_pod_without_reports_shows_its_phase() {
    assert_eq!(
        pod("  phase: Pending"),
        "p | 0/3 | Pending | 0 | 5m | <none> | n1 | <none> | <none>"
    );
}

#[test]
fn a_pod_shows_how_far_its_init_containers_are() {
    assert!(
        pod("  phase: Pending\n  initContainerStatuses: [{name: i, state: {running: {}}}]")
            .contains("| Init:0/2 |")
    );
    assert!(pod("  phase: Pending\n  initContainerStatuses: [{name: i, state: {waiting: {reason: CrashLoopBackOff}}}]").contains("| Init:CrashLoopBackOff |"));
    assert!(pod("  phase: Pending\n  initContainerStatuses: [{name: i, state: {terminated: {exitCode: 3}}}]").contains("| Init:ExitCode:3 |"));
    assert!(pod("  phase: Pending\n  initContainerStatuses: [{name: i, state: {terminated: {signal: 9, exitCode: 137}}}]").contains("| Init:Signal:9 |"));
}

#[test]
fn sidecars_count_as_containers() {
    let ready = "  phase: Running\n  podIPs: [{ip: 10.0.0.5}]\n  initContainerStatuses:\n  - {name: i, state: {terminated: {exitCode: 0}}}\n  - {name: s, started: true, ready: true, restartCount: 1, state: {running: {}}}\n  containerStatuses:\n  - {name: a, ready: true, restartCount: 2, state: {running: {}}, lastState: {terminated: {finishedAt: '2026-01-01T11:55:00Z'}}}\n  - {name: b, ready: false, state: {running: {}}}";
    assert_eq!(
        pod(ready),
        "p | 2/3 | Running | 3 (5m ago) | 5m | 10.0.0.5 | n1 | <none> | <none>"
    );
}

#[test]
fn the_first_container_in_trouble_names_the_pod() {
    let done = "  - {name: i, state: {terminated: {exitCode: 0}}}\n  - {name: s, started: true, state: {running: {}}}";
    let with = |containers: &str| {
        pod(&format!(
            "  phase: Running\n  initContainerStatuses:\n{done}\n  containerStatuses: {containers}"
        ))
    };
    assert!(
        with("[{name: a, state: {waiting: {reason: ErrImagePull}}}]").contains("| ErrImagePull |")
    );
    assert!(with("[{name: a, state: {terminated: {exitCode: 2}}}]").contains("| ExitCode:2 |"));
    assert!(with("[{name: a, state: {terminated: {reason: Completed}}}, {name: b, ready: true, state: {running: {}}}]").contains("| NotReady |"));
}

#[test]
fn a_pod_on_its_way_out_is_terminating_unless_it_is_done() {
    let going = |phase: &str| {
        row(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, deletionTimestamp: '2026-01-01T12:00:00Z'}}\nspec: {{containers: [{{name: a}}]}}\nstatus: {{phase: {phase}}}"
        ))
    };
    assert!(going("Running").contains("| Terminating |"));
    assert!(going("Succeeded").contains("| Succeeded |"));
}

#[test]
fn services_show_where_they_can_be_reached() {
    let service = |spec: &str| {
        row(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, creationTimestamp: '2026-01-01T10:00:00Z'}}\nspec: {spec}"
        ))
    };
    assert_eq!(
        service(
            "{type: NodePort, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ports: [{port: 80, nodePort: 30001, protocol: TCP}, {port: 53, protocol: UDP}], selector: {a: b, c: d}}"
        ),
        "s | NodePort | 10.96.0.9 | <none> | 80:30001/TCP,53/UDP | 120m | a=b,c=d"
    );
    assert_eq!(
        service("{type: LoadBalancer, clusterIP: 10.96.0.9}"),
        "s | LoadBalancer | 10.96.0.9 | <pending> | <none> | 120m | <none>"
    );
    assert_eq!(
        service("{type: ExternalName, externalName: example.com}"),
        "s | ExternalName | <none> | example.com | <none> | 120m | <none>"
    );
}

#[test]
fn claims_show_a_size_only_once_they_are_bound() {
    let claim = |rest: &str| {
        row(&format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: c, creationTimestamp: '2026-01-01T11:59:30Z'}}\n{rest}"
        ))
    };
    assert_eq!(
        claim(
            "spec: {storageClassName: standard, volumeMode: Filesystem}\nstatus: {phase: Pending}"
        ),
        "c | Pending |  |  |  | standard | <unset> | 30s | Filesystem"
    );
    assert_eq!(
        claim(
            "spec: {volumeName: pvc-1, storageClassName: standard}\nstatus: {phase: Bound, accessModes: [ReadWriteMany, ReadWriteOnce], capacity: {storage: 1Gi}}"
        ),
        "c | Bound | pvc-1 | 1Gi | RWO,RWX | standard | <unset> | 30s | <unset>"
    );
}

#[test]
fn nodes_show_their_condition_and_roles() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1, labels: {node-role.kubernetes.io/control-plane: '', kubernetes.io/role: worker}}\nspec: {unschedulable: true}\nstatus:\n  conditions: [{type: Ready, status: 'True'}]\n  addresses: [{type: InternalIP, address: 10.0.0.1}]\n  nodeInfo: {kubeletVersion: v1, osImage: Linux}";
    assert_eq!(
        row(node),
        "node-1 | Ready,SchedulingDisabled | control-plane,worker | <unknown> | v1 | 10.0.0.1 | <none> | Linux | <unknown> | <unknown>"
    );
}

#[test]
fn events_of_both_groups_make_the_same_row() {
    let old = "apiVersion: v1\nkind: Event\nmetadata: {name: e}\ntype: Warning\nreason: R\nmessage: 'm '\ninvolvedObject: {kind: Pod, name: p, fieldPath: f}\nsource: {component: c, host: h}\nfirstTimestamp: '2026-01-01T11:00:00Z'\nlastTimestamp: '2026-01-01T11:59:00Z'\ncount: 4";
    assert_eq!(
        row(old),
        "60s | Warning | R | pod/p | f | c, h | m | 60m | 4 | e"
    );
    let new = "apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {name: e}\ntype: Normal\nreason: R\nnote: m\nregarding: {kind: Pod, name: p}\nreportingController: c\nreportingInstance: i\neventTime: '2026-01-01T11:59:00.000000Z'";
    assert_eq!(
        row(new),
        "60s | Normal | R | pod/p |  | c, i | m | 60s | 1 | e"
    );
}

#[test]
fn other_rows() {
    let table = [
        (
            "apiVersion: apps/v1\nkind: ControllerRevision\nmetadata: {name: r, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, controller: true}]}\nrevision: 3",
            "r | statefulset.apps/web | 3 | <unknown>",
        ),
        (
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: b}\nspec: {minAvailable: 2}\nstatus: {disruptionsAllowed: 1}",
            "b | 2 | N/A | 1 | <unknown>",
        ),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [1.1.1.1]}, {addresses: [1.1.1.2]}, {addresses: [1.1.1.3]}, {addresses: [1.1.1.4]}]",
            "e | IPv4 | 80 | 1.1.1.1,1.1.1.2,1.1.1.3 + 1 more... | <unknown>",
        ),
        (
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: s, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}\nprovisioner: x/y\nreclaimPolicy: Delete\nvolumeBindingMode: Immediate",
            "s (default) | x/y | Delete | Immediate | false | <unknown>",
        ),
        (
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {completions: 2, selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: i}]}}}\nstatus: {succeeded: 1, startTime: '2026-01-01T11:59:00Z'}",
            "j | Running | 1/2 | 60s | <unknown> | c | i | a=b",
        ),
        (
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {schedule: '@daily', suspend: false, jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}}",
            "c | @daily | <none> | False | 0 | <none> | <unknown> | c | i | <none>",
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}",
            "a | <unknown>",
        ),
        (
            "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l, creationTimestamp: '2026-01-01T00:00:00Z'}",
            "l | 2026-01-01T00:00:00Z",
        ),
    ];
    for (object, expected) in table {
        assert_eq!(row(object), expected);
    }
}
