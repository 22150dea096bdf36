"""Starts the pods of one overlay as containers, without a cluster: what the manifests say, taken at their word.

start.py ALL IMAGE DIRECTORY: each pod gets the environment, arguments, files, user and restrictions that the manifests give it,
disks and secrets with the owner that a kubelet gives them, and the names of the headless service. Nodes have to become
ready, the admission to succeed, validators to be used, and everything to stop in order and to come back. Needs a Docker
engine, and root for the owners of files. DIRECTORY is empty.
"""

import json
import os
import re
import subprocess
import sys
import time

import yaml

RUN = f"seriatim-pods-{os.getpid()}"
FS_GROUP = 65532


def docker(*arguments, check=True):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done


def await_that(what, holds):
    for _ in range(120):
        if holds():
            return
        time.sleep(1)
    raise SystemExit(f"{what} did not happen in time")


class Pods:
    def __init__(self, objects, image, directory):
        self.objects, self.image, self.directory = {(it["kind"], it["metadata"]["name"]): it for it in objects}, image, directory
        subnet = f"10.213.{os.getpid() % 200 + 20}"
        docker("network", "create", "--subnet", f"{subnet}.0/24", RUN)
        self.addresses = (f"{subnet}.{last}" for last in range(10, 250))

    def data(self, kind, name):
        found = self.objects[kind, name]
        return {**found.get("data", {}), **found.get("stringData", {})}

    def environment(self, container, pod, address):
        fields = {"metadata.name": pod, "status.podIP": address}
        found = {}
        for source in container.get("envFrom", []):
            found.update(self.data("ConfigMap", source["configMapRef"]["name"]))
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                value = fields[source["fieldRef"]["fieldPath"]]
            elif "configMapKeyRef" in source:
                value = self.data("ConfigMap", source["configMapKeyRef"]["name"])[source["configMapKeyRef"]["key"]]
            else:
                value = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], variable["value"])
            found[variable["name"]] = value
        return found

    def mounts(self, spec, container, pod):
        volumes = {it["name"]: it for it in spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume, path = volumes.get(mount["name"], {}), mount["mountPath"]
            if "emptyDir" in volume:
                yield from ("--tmpfs", f"{path}:mode=1777")
                continue
            folder = os.path.join(self.directory, f"{pod}-{mount['name']}")
            if not os.path.exists(folder):
                os.mkdir(folder)
                self.fill(folder, volume)
            yield from ("--volume", f"{folder}:{path}{':ro' if mount.get('readOnly') else ''}")

    def fill(self, folder, volume):
        if "configMap" in volume:
            files, mode = self.data("ConfigMap", volume["configMap"]["name"]), 0o644
        elif "secret" in volume:
            import base64
            coded = self.data("Secret", volume["secret"]["secretName"])
            files, mode = {name: base64.b64decode(value).decode() for name, value in coded.items()}, volume["secret"]["defaultMode"]
        else:
            files, mode = {}, 0
        for name, text in files.items():
            path = os.path.join(folder, name)
            with open(path, "w") as file:
                file.write(text)
            os.chmod(path, mode)
            os.chown(path, 0, FS_GROUP)
        os.chown(folder, 0, FS_GROUP)
        os.chmod(folder, 0o2775)

    def run(self, spec, container, pod, names=(), wait=False):
        address = next(self.addresses)
        security, user = container["securityContext"], spec["securityContext"]
        options = ["--name", f"{RUN}-{pod}", "--network", RUN, "--ip", address]
        options += [option for name in names for option in ("--network-alias", name)]
        options += ["--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--security-opt", "no-new-privileges"]
        options += [f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]]
        options += ["--read-only"] if security["readOnlyRootFilesystem"] else []
        # of an engine that has fewer processors than a node of a cluster, limits are not asked for
        options += list(self.mounts(spec, container, pod))
        variables = self.environment(container, pod, address)
        options += [option for name, value in variables.items() for option in ("--env", f"{name}={value}")]
        arguments = [re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], it) for it in container["args"]]
        return docker("run", *(["--rm"] if wait else ["--detach"]), *options, self.image, *arguments, check=not wait)


def ready(pod):
    return docker("exec", f"{RUN}-{pod}", "/usr/bin/seriatim", "health", "ready", check=False).returncode == 0


def status(pod):
    asked = docker("exec", f"{RUN}-{pod}", "/usr/bin/seriatim", "admin", "status", "--json", check=False)
    return json.loads(asked.stdout) if asked.returncode == 0 else {"nodes": [], "validators": {"known": []}}


def main(all_path, image, directory):
    pods = Pods([it for it in yaml.safe_load_all(open(all_path)) if it], image, directory)
    nodes = pods.objects["StatefulSet", "seriatim-node"]["spec"]
    spec = nodes["template"]["spec"]
    members = [f"seriatim-node-{nodes['ordinals']['start'] + index}" for index in range(nodes["replicas"])]
    for pod in members:
        pods.run(spec, spec["containers"][0], pod, names=[f"{pod}.{nodes['serviceName']}"])
    for pod in members:
        await_that(f"{pod} ready", lambda: ready(pod))

    job = pods.objects["Job", "seriatim-admission"]["spec"]["template"]["spec"]
    for attempt in range(2):  # the second changes nothing
        for container in job["initContainers"] + job["containers"]:
            done = pods.run(job, container, f"admission-{container['name']}", wait=True)
            if done.returncode != 0:
                raise SystemExit(f"admission of {container['name']}: {done.stdout}{done.stderr}")

    validators = pods.objects["HorizontalPodAutoscaler", "seriatim-validator"]["spec"]["minReplicas"]
    spec = pods.objects["Deployment", "seriatim-validator"]["spec"]["template"]["spec"]
    for index in range(validators):
        pods.run(spec, spec["containers"][0], f"seriatim-validator-{index}")
    spec = pods.objects["Deployment", "seriatim-prover"]["spec"]["template"]["spec"]
    pods.run(spec, spec["containers"][0], "seriatim-prover-0")
    await_that("the prover ready", lambda: ready("seriatim-prover-0"))
    healthy = lambda: sum(it["state"] == "healthy" for it in status(members[0])["validators"]["known"]) == validators
    await_that(f"{validators} healthy validators", healthy)

    grace = str(nodes["template"]["spec"]["terminationGracePeriodSeconds"])
    for pod in members:
        docker("stop", "-t", grace, f"{RUN}-{pod}")
        code = docker("inspect", "--format", "{{.State.ExitCode}}", f"{RUN}-{pod}").stdout.strip()
        if code != "0":
            raise SystemExit(f"{pod} ended with {code} instead of in order")
    for pod in members:
        docker("start", f"{RUN}-{pod}")
    for pod in members:
        await_that(f"{pod} ready again", lambda: ready(pod))
    await_that(f"{validators} healthy validators again", healthy)
    found = status(members[0])["nodes"]
    if len(found) != len(members) or any(it["health"] != "ready" for it in found):
        raise SystemExit(f"the cluster is {found}")
    print(f"  started {len(members)} nodes, {validators} validators and a prover as containers, stopped the nodes, started them again")


try:
    main(*sys.argv[1:])
except SystemExit as fault:
    if fault.code:
        listed = docker("ps", "--all", "--quiet", "--filter", f"name={RUN}-").stdout.split()
        for container in listed:
            ended = docker("logs", "--tail", "5", container)
            print(docker("inspect", "--format", "{{.Name}} {{.State.Status}}", container).stdout, ended.stdout, ended.stderr, sep="")
    raise
finally:
    for container in docker("ps", "--all", "--quiet", "--filter", f"name={RUN}-").stdout.split():
        docker("rm", "--force", "--volumes", container)
    docker("network", "rm", RUN, check=False)
