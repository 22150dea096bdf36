"""What no schema tells: that the objects of one overlay fit together, and keep what the product asks of them.

check.py ALL ALERTS BUILT_IN: reads the objects, holds the alert rules against the one copy of them, and writes the
objects of kinds that Kubernetes itself defines.
"""

import re
import sys

import yaml

BUILT_IN = {"v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1", "scheduling.k8s.io/v1"}
# What a node takes from SIGTERM to its end: answers 2 s, handing over 5 s, calls under way 5 s, disks 30 s.
DRAIN_SECONDS = 42
# Handing over the lead.
TRANSFER_SECONDS = 5

faults = []


def require(holds, words):
    if not holds:
        faults.append(words)


def matches(selector, labels):
    wanted = selector.get("matchLabels", {})
    within = all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))
    return within and all(labels.get(key) == value for key, value in wanted.items())


def references(pod):
    """Names of the ConfigMaps and Secrets that a pod needs, and the keys it takes of them."""
    for container in pod.get("initContainers", []) + pod["containers"]:
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"], None
        for variable in container.get("env", []):
            taken = variable.get("valueFrom", {}).get("configMapKeyRef")
            if taken:
                yield "ConfigMap", taken["name"], taken["key"]
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"], None
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], None


def main(all_path, alerts_path, built_in_path):
    objects = [it for it in yaml.safe_load_all(open(all_path)) if it]
    built_in = [it for it in objects if it["apiVersion"] in BUILT_IN]
    others = sorted({it["kind"] for it in objects if it["apiVersion"] not in BUILT_IN})
    yaml.safe_dump_all(built_in, open(built_in_path, "w"))

    named = {(it["kind"], it["metadata"]["name"]): it for it in objects}
    require(len(named) == len(objects), "two objects of one kind share a name")
    of_kind = lambda kind: [it for it in objects if it["kind"] == kind]
    workloads = [it for it in objects if it["kind"] in ("StatefulSet", "Deployment", "Job")]
    pods = {it["metadata"]["name"]: it["spec"]["template"] for it in workloads}
    namespaces = {it["metadata"].get("namespace") for it in objects if it["kind"] not in ("Namespace", "PriorityClass")}
    require(len(namespaces) == 1 and None not in namespaces, f"more than one namespace: {namespaces}")
    secrets_here = bool(of_kind("Secret"))

    for workload in workloads:
        name, template = workload["metadata"]["name"], workload["spec"]["template"]
        pod, labels = template["spec"], template["metadata"]["labels"]
        require("selector" not in workload["spec"] or matches(workload["spec"]["selector"], labels), f"{name}: selector")
        for kind, needed, key in references(pod):
            found = named.get((kind, needed))
            if kind == "Secret" and not secrets_here:
                continue  # made outside of git
            require(found, f"{name} needs {kind} {needed}, which is not there")
            require(not found or key is None or key in found["data"], f"{name} takes {key} of {needed}, which has none")
        mounted = {volume["name"] for volume in pod.get("volumes", [])}
        mounted |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        for container in pod.get("initContainers", []) + pod["containers"]:
            security = container["securityContext"]
            require(security["readOnlyRootFilesystem"], f"{name}: a root that can be written to")
            require(security["capabilities"]["drop"] == ["ALL"], f"{name}: capabilities")
            require(not security["allowPrivilegeEscalation"], f"{name}: privileges")
            require({m["name"] for m in container.get("volumeMounts", [])} <= mounted, f"{name}: a mount of no volume")
        require(pod["securityContext"]["runAsNonRoot"], f"{name}: root")
        holds_files = any("secret" in v or "persistentVolumeClaim" in v for v in pod.get("volumes", []))
        require(not holds_files or "fsGroup" in pod["securityContext"], f"{name}: files without fsGroup")

    nodes = named["StatefulSet", "seriatim-node"]
    spec, pod = nodes["spec"], nodes["spec"]["template"]["spec"]
    node = pod["containers"][0]
    service = named["Service", spec["serviceName"]]["spec"]
    require(service["clusterIP"] == "None" and service["publishNotReadyAddresses"], "nodes find one another before they are ready")
    require(spec["podManagementPolicy"] == "Parallel", "nodes start together")
    paths = {kind: node[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    require(paths["livenessProbe"] == "/health/live", "live must not depend on a quorum")
    require(paths["readinessProbe"] == "/health/ready" and paths["startupProbe"] == "/health/startup", "probes")
    pause = node["lifecycle"]["preStop"]["sleep"]["seconds"]
    require(pause > TRANSFER_SECONDS, "preStop is shorter than handing over the lead")
    require(pod["terminationGracePeriodSeconds"] >= pause + DRAIN_SECONDS, "a node is killed while it drains")

    # numbers, first members and pods are the same nodes
    first = spec["ordinals"]["start"]
    names = [f"{nodes['metadata']['name']}-{first + index}" for index in range(spec["replicas"])]
    variables = {it["name"]: it for it in node["env"]}
    maps = variables["SERIATIM_MEMBERS"]["valueFrom"]["configMapKeyRef"]["name"]
    lists = named["ConfigMap", maps]["data"]
    numbers = named["ConfigMap", "numbers"]["data"]
    address = lambda name: f"{name}.{spec['serviceName']}:7400"
    require(lists["NODES"] == ",".join(map(address, names)), "NODES are not the pods")
    numbered = {name: re.fullmatch(r"id = (\d+)", numbers.get(f"{name}.toml", "").strip()) for name in names}
    require(all(numbered.values()), "a pod without a number")
    members = dict(pair.split("=") for pair in lists["MEMBERS"].split(","))
    own = {found[1]: address(name) for name, found in numbered.items() if found}
    require(members.items() <= own.items(), "MEMBERS are not pods with their numbers")
    require(len(set(members.values())) == len(members), "two members at one address")

    # secured, or not: never a part of it
    serving = [("StatefulSet", "seriatim-node"), ("Deployment", "seriatim-validator"), ("Deployment", "seriatim-prover")]
    secured = set()
    for found in [named[it]["spec"]["template"]["spec"] for it in serving]:
        container = found["containers"][0]
        variables = {it["name"] for it in container["env"]}
        secured.add(variables >= {f"SERIATIM_TLS_{it}" for it in ("CA", "CERTIFICATE", "KEY")})
        probes = ("startupProbe", "livenessProbe", "readinessProbe")
        secured.update(container[it]["httpGet"].get("scheme") == "HTTPS" for it in probes)
    monitors = of_kind("PodMonitor") + of_kind("ServiceMonitor")
    for monitor in monitors:
        found = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
        secured.update(it.get("scheme") == "https" and "ca" in it["tlsConfig"] for it in found)
    job = named["Job", "seriatim-admission"]["spec"]["template"]["spec"]
    for container in job["initContainers"] + job["containers"]:
        secured.add("SERIATIM_TLS_CERTIFICATE" in {it["name"] for it in container["env"]})
    require(len(secured) == 1, "some connections are secured, and others are not")

    for policy in of_kind("PodDisruptionBudget") + of_kind("Service"):
        selector = policy["spec"]["selector"]
        selector = selector if "matchLabels" in selector else {"matchLabels": selector}
        chosen = [name for name, it in pods.items() if matches(selector, it["metadata"]["labels"])]
        require(len(chosen) == 1, f"{policy['metadata']['name']} chooses {chosen}")
    budget = named["PodDisruptionBudget", "seriatim-nodes"]["spec"]
    require(budget["maxUnavailable"] * 2 < spec["replicas"], "a disruption may take the majority")
    for policy in of_kind("NetworkPolicy"):
        chosen = [name for name, it in pods.items() if matches(policy["spec"]["podSelector"], it["metadata"]["labels"])]
        require(chosen, f"{policy['metadata']['name']} chooses no pod")
    default = named["NetworkPolicy", "seriatim-default"]["spec"]
    require(default["podSelector"] == {} and set(default["policyTypes"]) == {"Ingress", "Egress"}, "not closed by default")
    target = named["HorizontalPodAutoscaler", "seriatim-validator"]["spec"]["scaleTargetRef"]
    scaled = named[target["kind"], target["name"]]
    require("replicas" not in scaled["spec"], "the autoscaler and the manifest both say how many")

    alerts = yaml.safe_load(open(alerts_path))
    require(named["PrometheusRule", "seriatim"]["spec"] == alerts, "the PrometheusRule is not deploy/observability/alerts.yml")

    for fault in faults:
        print(f"  {fault}")
    if faults:
        sys.exit(1)
    print(f"  {len(objects)} objects; without a schema here: {', '.join(others) or 'none'}")


main(*sys.argv[1:])
