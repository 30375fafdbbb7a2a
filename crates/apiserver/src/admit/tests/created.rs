//! What a new object must look like.

use serde_json::json;

use super::{check_created, claim, pod, service, set};

#[test]
fn metadata() {
    check_created(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        &[
            ("", "ok"),
            (r#"metadata.name="""#, "Required metadata.name"),
            (r#"metadata.name="Bad Name""#, "Invalid metadata.name"),
            (r#"metadata.name="a.b""#, "ok"),
            (
                r#"metadata.generateName="Bad-""#,
                "Invalid metadata.generateName",
            ),
            (r#"metadata.generateName="good-""#, "ok"),
            (
                r#"metadata.labels={"bad key!": "v"}"#,
                "Invalid metadata.labels",
            ),
            (r#"metadata.labels={"k": "-v"}"#, "Invalid metadata.labels"),
            (
                r#"metadata.annotations={"a/b/c": "v"}"#,
                "Invalid metadata.annotations",
            ),
            (r#"metadata.annotations={"UPPER/k": "v"}"#, "ok"),
            (
                r#"metadata.finalizers=["nodomain"]"#,
                "Invalid metadata.finalizers[0]",
            ),
            (r#"metadata.finalizers=["orphan", "e.com/x"]"#, "ok"),
            (
                r#"metadata.ownerReferences=[{"kind": "A"}]"#,
                "Invalid metadata.ownerReferences.apiVersion, Invalid metadata.ownerReferences.name, Invalid metadata.ownerReferences.uid",
            ),
            (
                r#"metadata.ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true}, {"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "2", "controller": true}]"#,
                "Invalid metadata.ownerReferences",
            ),
        ],
    );
}

#[test]
fn stateful_sets() {
    check_created(
        &set(),
        &[
            ("", "ok"),
            (r#"metadata.name="a.b""#, "Invalid metadata.name"),
            ("spec.replicas=-1", "Invalid spec.replicas"),
            (
                "spec.selector=-",
                "Invalid spec.template.metadata.labels, Required spec.selector",
            ),
            ("spec.selector={}", "Invalid spec.selector"),
            (
                r#"spec.selector={"matchLabels": {"app": "x"}}"#,
                "Invalid spec.template.metadata.labels",
            ),
            (
                r#"spec.selector={"matchExpressions": [{"key": "app", "operator": "Near"}]}"#,
                "Invalid spec.selector, Invalid spec.selector.matchExpressions[0].operator",
            ),
            (r#"spec.serviceName="Bad Name""#, "Invalid spec.serviceName"),
            (r#"spec.serviceName="""#, "ok"),
            (
                "spec.template=-",
                "Invalid spec.template.metadata.labels, Required spec.template.spec.containers",
            ),
            (
                r#"spec.podManagementPolicy="Chaos""#,
                "Invalid spec.podManagementPolicy",
            ),
            (
                r#"spec.updateStrategy={"type": "Bogus"}"#,
                "Invalid spec.updateStrategy",
            ),
            (
                r#"spec.updateStrategy={"type": "OnDelete", "rollingUpdate": {"partition": 1}}"#,
                "Invalid spec.updateStrategy.rollingUpdate",
            ),
            (
                r#"spec.updateStrategy={"rollingUpdate": {"partition": -1}}"#,
                "Invalid spec.updateStrategy.rollingUpdate.partition",
            ),
            (
                r#"spec.updateStrategy={"rollingUpdate": {"maxUnavailable": 0}}"#,
                "Invalid spec.updateStrategy.rollingUpdate.maxUnavailable",
            ),
            (
                r#"spec.updateStrategy={"rollingUpdate": {"maxUnavailable": "150%"}}"#,
                "Invalid spec.updateStrategy.rollingUpdate.maxUnavailable",
            ),
            (
                r#"spec.updateStrategy={"rollingUpdate": {"maxUnavailable": "x"}}"#,
                "Invalid spec.updateStrategy.rollingUpdate.maxUnavailable, Invalid spec.updateStrategy.rollingUpdate.maxUnavailable",
            ),
            (
                r#"spec.ordinals={"start": -1}"#,
                "Invalid spec.ordinals.start",
            ),
            ("spec.minReadySeconds=-1", "Invalid spec.minReadySeconds"),
            (
                r#"spec.persistentVolumeClaimRetentionPolicy={"whenScaled": "Burn"}"#,
                "NotSupported spec.persistentVolumeClaimRetentionPolicy.whenScaled",
            ),
            (
                "spec.volumeClaimTemplates.0.spec.accessModes=[]",
                "Required spec.volumeClaimTemplates[0].spec.accessModes",
            ),
            (
                "spec.volumeClaimTemplates.0.spec.resources=-",
                "Required spec.volumeClaimTemplates[0].spec.resources[storage]",
            ),
            (
                r#"spec.volumeClaimTemplates.0.spec.volumeMode="Odd""#,
                "NotSupported spec.volumeClaimTemplates[0].spec.volumeMode",
            ),
            (
                "spec.volumeClaimTemplates=[]",
                "NotFound spec.template.spec.containers[0].volumeMounts[0].name",
            ),
            (
                r#"spec.template.spec.restartPolicy="Never""#,
                "NotSupported spec.template.spec.restartPolicy",
            ),
            (
                r#"spec.template.spec.restartPolicy="Whenever""#,
                "NotSupported spec.template.spec.restartPolicy, NotSupported spec.template.spec.restartPolicy",
            ),
            (
                "spec.template.spec.activeDeadlineSeconds=5",
                "Forbidden spec.template.spec.activeDeadlineSeconds",
            ),
            (
                r#"spec.template.metadata.labels={"app": "db", "k": "bad value"}"#,
                "Invalid spec.template.labels, Invalid spec.template.labels",
            ),
            // The set gives its pods their host names, whatever the template says.
            (r#"spec.template.spec.hostname="UPPER""#, "ok"),
            ("spec.revisionHistoryLimit=-1", "ok"),
        ],
    );
}

#[test]
fn containers() {
    let main = |rest: &str| format!("spec.containers.0.{rest}");
    let table: Vec<(String, &str)> = [
        (r#"name="""#, "Required spec.containers[0].name"),
        (r#"name="Bad_""#, "Invalid spec.containers[0].name"),
        (r#"image="""#, "Required spec.containers[0].image"),
        (r#"image=" x""#, "Invalid spec.containers[0].image"),
        (r#"imagePullPolicy="Never""#, "ok"),
        (r#"imagePullPolicy="Sometimes""#, "NotSupported spec.containers[0].imagePullPolicy"),
        (r#"ports=[{"containerPort": 70000}]"#, "Invalid spec.containers[0].ports[0].containerPort"),
        (r#"ports=[{"name": "x"}]"#, "Required spec.containers[0].ports[0].containerPort"),
        (
            r#"ports=[{"containerPort": 1, "name": "Way-Too-Long-Name"}]"#,
            "Invalid spec.containers[0].ports[0].name, Invalid spec.containers[0].ports[0].name",
        ),
        (r#"ports=[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]"#, "Duplicate spec.containers[0].ports[1].name"),
        (r#"ports=[{"containerPort": 1, "protocol": "ICMP"}]"#, "NotSupported spec.containers[0].ports[0].protocol"),
        (r#"ports=[{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]"#, "Duplicate spec.containers[0].ports[1].hostPort"),
        (r#"env=[{"name": ""}]"#, "Required spec.containers[0].env[0].name"),
        (r#"env=[{"name": "a=b"}]"#, "Invalid spec.containers[0].env[0].name"),
        (r#"env=[{"name": "A", "valueFrom": {}}]"#, "Invalid spec.containers[0].env[0].valueFrom"),
        (
            r#"env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]"#,
            "Invalid spec.containers[0].env[0].valueFrom",
        ),
        (
            r#"env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.bogus"}}}]"#,
            "Invalid spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
        ),
        (
            r#"env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]"#,
            "NotSupported spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
        ),
        (r#"env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]"#, "ok"),
        (
            r#"env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "bad key"}}}]"#,
            "Invalid spec.containers[0].env[0].valueFrom.secretKeyRef.key",
        ),
        (
            r#"env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]"#,
            "NotSupported spec.containers[0].env[0].valueFrom.resourceFieldRef.resource",
        ),
        (r#"envFrom=[{"configMapRef": {"name": ""}}]"#, "Required spec.containers[0].envFrom[0].configMapRef.name"),
        (r#"envFrom=[{}]"#, "Invalid spec.containers[0].envFrom"),
        (r#"volumeMounts=[{"name": "nope", "mountPath": "/x"}]"#, "NotFound spec.containers[0].volumeMounts[0].name"),
        (
            r#"volumeMounts=[{}]"#,
            "NotFound spec.containers[0].volumeMounts[0].name, Required spec.containers[0].volumeMounts[0].mountPath, Required spec.containers[0].volumeMounts[0].name",
        ),
        (
            r#"resources={"requests": {"bogus": "1"}}"#,
            "Invalid spec.containers[0].resources.requests[bogus], Invalid spec.containers[0].resources.requests[bogus]",
        ),
        (r#"resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}"#, "Invalid spec.containers[0].resources.requests"),
        (r#"resources={"limits": {"memory": "-1"}, "requests": {"memory": "-1"}}"#,
            "Invalid spec.containers[0].resources.limits[memory], Invalid spec.containers[0].resources.requests[memory]"),
        (r#"resources={"requests": {"e.com/gpu": "1"}}"#, "Required spec.containers[0].resources.limits"),
        (r#"resources={"limits": {"hugepages-2Mi": "2Mi"}}"#, "Forbidden spec.containers[0].resources"),
        (r#"livenessProbe={"periodSeconds": 5}"#, "Required spec.containers[0].livenessProbe"),
        (r#"livenessProbe={"tcpSocket": {"port": 0}}"#, "Invalid spec.containers[0].livenessProbe.tcpSocket.port"),
        (
            r#"livenessProbe={"tcpSocket": {"port": 1}, "exec": {"command": ["x"]}}"#,
            "Forbidden spec.containers[0].livenessProbe.tcpSocket",
        ),
        (r#"livenessProbe={"exec": {"command": ["x"]}, "successThreshold": 2}"#, "Invalid spec.containers[0].livenessProbe.successThreshold"),
        (r#"readinessProbe={"exec": {"command": ["x"]}, "successThreshold": 2}"#, "ok"),
        (r#"readinessProbe={"exec": {}}"#, "Required spec.containers[0].readinessProbe.exec.command"),
        (r#"lifecycle={"preStop": {}}"#, "Required spec.containers[0].lifecycle.preStop"),
        (r#"securityContext={"runAsUser": -1}"#, "Invalid spec.containers[0].securityContext.runAsUser"),
        (r#"securityContext={"privileged": true, "allowPrivilegeEscalation": false}"#, "Invalid spec.containers[0].securityContext"),
        (r#"terminationMessagePolicy="Loud""#, "NotSupported spec.containers[0].terminationMessagePolicy"),
    ]
    .into_iter()
    .map(|(edit, expected)| (main(edit), expected))
    .collect();
    let table: Vec<(&str, &str)> = table
        .iter()
        .map(|(edit, expected)| (edit.as_str(), *expected))
        .collect();
    check_created(&pod(), &table);
}

#[test]
fn pods() {
    check_created(
        &pod(),
        &[
            ("", "ok"),
            ("spec.containers=[]", "Required spec.containers"),
            (
                r#"spec.containers=[{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]"#,
                "Duplicate spec.containers[1].name",
            ),
            (
                r#"spec.initContainers=[{"name": "c", "image": "i"}]"#,
                "Duplicate spec.initContainers[0].name",
            ),
            (
                r#"spec.initContainers=[{"name": "i", "image": "i", "readinessProbe": {"exec": {"command": ["x"]}}}]"#,
                "Forbidden spec.initContainers[0].readinessProbe",
            ),
            (
                r#"spec.initContainers=[{"name": "i", "image": "i", "restartPolicy": "Always", "readinessProbe": {"exec": {"command": ["x"]}}}]"#,
                "ok",
            ),
            (
                r#"spec.ephemeralContainers=[{"name": "e", "image": "i"}]"#,
                "Forbidden spec.ephemeralContainers",
            ),
            (
                r#"spec.restartPolicy="X""#,
                "NotSupported spec.restartPolicy",
            ),
            (r#"spec.dnsPolicy="Nope""#, "NotSupported spec.dnsPolicy"),
            (r#"spec.dnsPolicy="None""#, "Required spec.dnsConfig"),
            (r#"spec.nodeName="Bad Node""#, "Invalid spec.nodeName"),
            (r#"spec.hostname="UPPER""#, "Invalid spec.hostname"),
            (
                "spec.activeDeadlineSeconds=0",
                "Invalid spec.activeDeadlineSeconds",
            ),
            (
                r#"spec.nodeSelector={"a b": "c"}"#,
                "Invalid spec.nodeSelector",
            ),
        ],
    );
}

#[test]
fn volumes_and_places() {
    check_created(
        &pod(),
        &[
            (r#"spec.volumes=[{"name": "v"}]"#, "ok"),
            (
                r#"spec.volumes=[{"name": "V"}]"#,
                "Invalid spec.volumes[0].name",
            ),
            (
                r#"spec.volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]"#,
                "Forbidden spec.volumes[0].hostPath",
            ),
            (
                r#"spec.volumes=[{"name": "v"}, {"name": "v"}]"#,
                "Duplicate spec.volumes[1].name",
            ),
            (
                r#"spec.volumes=[{"name": "v", "configMap": {}}]"#,
                "Required spec.volumes[0].configMap.name",
            ),
            (
                r#"spec.volumes=[{"name": "v", "secret": {"secretName": "s", "defaultMode": 1000}}]"#,
                "Invalid spec.volumes[0].secret.defaultMode",
            ),
            (
                r#"spec.volumes=[{"name": "v", "hostPath": {"path": "/a/../b"}}]"#,
                "Invalid spec.volumes[0].hostPath.path",
            ),
            (
                r#"spec.volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": ""}}]"#,
                "Required spec.volumes[0].persistentVolumeClaim.claimName",
            ),
            (
                r#"spec.volumes=[{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]"#,
                "Invalid spec.volumes[0].configMap.items[0].path",
            ),
            (
                r#"spec.volumes=[{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}]"#,
                "Invalid spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds",
            ),
            (
                r#"spec.affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}"#,
                "Required spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            ),
            (
                r#"spec.affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}"#,
                "Required spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey",
            ),
            (
                r#"spec.tolerations=[{"operator": "Exists", "value": "x"}]"#,
                "Invalid spec.tolerations[0].operator",
            ),
            (
                r#"spec.tolerations=[{"value": "x"}]"#,
                "Invalid spec.tolerations[0].operator",
            ),
            (
                r#"spec.tolerations=[{"key": "k", "operator": "Exists", "effect": "Bad"}]"#,
                "NotSupported spec.tolerations[0].effect",
            ),
            (
                r#"spec.topologySpreadConstraints=[{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]"#,
                "Invalid spec.topologySpreadConstraints[0].maxSkew",
            ),
            (
                r#"spec.securityContext={"fsGroup": -1}"#,
                "Invalid spec.securityContext.fsGroup",
            ),
            (
                r#"spec.securityContext={"seccompProfile": {"type": "Localhost"}}"#,
                "Required spec.securityContext.seccompProfile.localhostProfile",
            ),
            (
                r#"spec.hostAliases=[{"ip": "1.2.3", "hostnames": ["a"]}]"#,
                "Invalid spec.hostAliases[0].ip",
            ),
            (
                r#"spec.priorityClassName="nope""#,
                "forbidden: no PriorityClass with name nope was found",
            ),
            (
                r#"spec.serviceAccountName="nope""#,
                "forbidden: error looking up service account ns/nope: serviceaccount \"nope\" not found",
            ),
        ],
    );
}

#[test]
fn services() {
    check_created(
        &service(),
        &[
            ("", "ok"),
            (r#"metadata.name="1s""#, "Invalid metadata.name"),
            ("spec.ports=[]", "Required spec.ports"),
            (r#"spec.ports=[]; spec.clusterIP="None""#, "ok"),
            (
                r#"spec.ports=[{"port": 1}, {"port": 2}]"#,
                "Required spec.ports[0].name, Required spec.ports[1].name",
            ),
            (
                r#"spec.ports=[{"port": 0}]"#,
                "Invalid spec.ports[0].port, Invalid spec.ports[0].targetPort",
            ),
            (
                r#"spec.ports=[{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]"#,
                "Duplicate spec.ports[1]",
            ),
            (
                r#"spec.ports=[{"port": 1, "nodePort": 30000}]"#,
                "Forbidden spec.ports[0].nodePort",
            ),
            (
                r#"spec.type="NodePort"; spec.ports=[{"port": 1, "nodePort": 1}]"#,
                "Invalid spec.ports[0].nodePort",
            ),
            (r#"spec.type="Odd""#, "NotSupported spec.type"),
            (r#"spec.clusterIP="1.2.3.4""#, "Invalid spec.clusterIPs"),
            (r#"spec.clusterIP="10.96.0.77""#, "ok"),
            (
                r#"spec.clusterIP="None"; spec.type="NodePort""#,
                "Invalid spec.clusterIPs[0]",
            ),
            (r#"spec.selector={"a": "b c"}"#, "Invalid spec.selector"),
            (
                r#"spec.sessionAffinity="Sticky""#,
                "NotSupported spec.sessionAffinity",
            ),
            (
                r#"spec={"type": "ExternalName"}"#,
                "Required spec.externalName",
            ),
            (
                r#"spec={"type": "ExternalName", "externalName": "example.com"}"#,
                "ok",
            ),
            (r#"spec.ipFamilies=["IPv6"]"#, "Invalid spec.ipFamilies[0]"),
        ],
    );
}

#[test]
fn configuration_and_storage() {
    check_created(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}),
        &[
            (r#"data={"bad key": "v"}"#, "Invalid data[bad key]"),
            (r#"data={"..": "v"}"#, "Invalid data[..]"),
            (r#"binaryData={"k": "aGk="}"#, "Invalid data[k]"),
        ],
    );
    check_created(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}),
        &[
            (
                r#"type="kubernetes.io/tls""#,
                "Required data[tls.crt], Required data[tls.key]",
            ),
            (
                r#"type="kubernetes.io/tls"; stringData={"tls.crt": "a", "tls.key": "b"}"#,
                "ok",
            ),
            (
                r#"type="kubernetes.io/basic-auth""#,
                "Required data[password], Required data[username]",
            ),
            (
                r#"type="kubernetes.io/dockerconfigjson"; stringData={".dockerconfigjson": "no"}"#,
                "Invalid data[.dockerconfigjson]",
            ),
            (
                r#"type="kubernetes.io/service-account-token""#,
                "Required metadata.annotations[kubernetes.io/service-account.name]",
            ),
        ],
    );
    check_created(
        &claim(),
        &[
            (
                r#"spec.accessModes=["Sometimes"]"#,
                "NotSupported spec.accessModes",
            ),
            ("spec.resources=-", "Required spec.resources[storage]"),
            (
                r#"spec.resources.requests.storage="0""#,
                "Invalid spec.resources[storage]",
            ),
            (
                r#"spec.storageClassName="Bad Name""#,
                "Invalid spec.storageClassName",
            ),
        ],
    );
    check_created(
        &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}}}),
        &[
            ("", "ok"),
            ("spec.hostPath=-", "Required spec"),
            (
                r#"spec.nfs={"server": "s", "path": "/"}"#,
                "Forbidden spec.nfs",
            ),
            (
                r#"spec.persistentVolumeReclaimPolicy="Burn""#,
                "NotSupported spec.persistentVolumeReclaimPolicy",
            ),
        ],
    );
    check_created(
        &json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"}, "provisioner": "x/y"}),
        &[
            ("", "ok"),
            ("provisioner=-", "Required provisioner"),
            (r#"reclaimPolicy="Recycle""#, "NotSupported reclaimPolicy"),
        ],
    );
}

#[test]
fn policies_and_the_rest() {
    check_created(
        &json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {"minAvailable": 1}}),
        &[
            ("", "ok"),
            (r#"spec.minAvailable="x""#, "Invalid spec.minAvailable"),
            (r#"spec.minAvailable="101%""#, "Invalid spec.minAvailable"),
            ("spec.maxUnavailable=1", "Invalid spec"),
        ],
    );
    check_created(
        &json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}),
        &[
            ("", "ok"),
            (
                "spec.leaseDurationSeconds=0",
                "Invalid spec.leaseDurationSeconds",
            ),
            ("spec.leaseTransitions=-1", "Invalid spec.leaseTransitions"),
        ],
    );
    check_created(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}),
        &[
            ("", "ok"),
            (r#"metadata.name="Bad.Name""#, "Invalid metadata.name"),
        ],
    );
    check_created(
        &json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "data": {"a": 1}, "revision": 1}),
        &[
            ("", "ok"),
            ("data=-", "Required data"),
            ("data=[1]", "Required data"),
            ("revision=-1", "Invalid revision"),
        ],
    );
}

#[test]
fn jobs_access_and_network() {
    check_created(
        &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "b"}]}}}}),
        &[
            ("", "ok"),
            (
                "spec.template.spec.restartPolicy=-",
                "Required spec.template.spec.restartPolicy",
            ),
            ("spec.completions=-1", "Invalid spec.completions"),
        ],
    );
    check_created(
        &json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"schedule": "*/5 1-3 * jan mon", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "b"}]}}}}}}),
        &[
            ("", "ok"),
            (r#"spec.schedule="often""#, "Invalid spec.schedule"),
            (r#"spec.schedule="61 * * * *""#, "Invalid spec.schedule"),
            (
                r#"spec.concurrencyPolicy="X""#,
                "NotSupported spec.concurrencyPolicy",
            ),
        ],
    );
    check_created(
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "system:r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        &[
            ("", "ok"),
            ("rules.0.verbs=[]", "Required rules[0].verbs"),
            ("rules.0.resources=[]", "Required rules[0].resources"),
        ],
    );
    check_created(
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}, "subjects": []}),
        &[
            ("", "ok"),
            (r#"roleRef.kind="Rule""#, "NotSupported roleRef.kind"),
            (
                r#"subjects=[{"kind": "Robot", "name": "x"}]"#,
                "NotSupported subjects[0].kind",
            ),
        ],
    );
    check_created(
        &json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}]}),
        &[
            ("", "ok"),
            (r#"endpoints.0.addresses=["127.0.0.5"]"#, "ok"),
            (
                r#"endpoints.0.addresses=["::1"]"#,
                "Invalid endpoints[0].addresses[0]",
            ),
            (
                "endpoints.0.addresses=[]",
                "Required endpoints[0].addresses",
            ),
            ("addressType=-", "Required addressType"),
        ],
    );
    check_created(
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
        &[
            ("", "ok"),
            ("spec={}", "Invalid spec"),
            (
                r#"spec.rules.0.host="1.2.3.4""#,
                "Invalid spec.rules[0].host",
            ),
            (
                r#"spec.rules.0.http.paths.0.path="x""#,
                "Invalid spec.rules[0].http.paths[0].path",
            ),
            (
                "spec.rules.0.http.paths.0.pathType=-",
                "Required spec.rules[0].http.paths[0].pathType",
            ),
        ],
    );
}
