"""Looks at every pod in rendered manifests: restricted as Pod Security has it, and what this chart promises beyond.

    python3 pods.py FILE...

Prints what is wrong and ends with 1.
"""

import math
import sys

import yaml

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def pod_of(thing):
    """The pod's spec in an object, and its labels."""
    if thing["kind"] == "Pod":
        return thing["spec"], thing["metadata"].get("labels", {})
    template = thing.get("spec", {}).get("template")
    if template and "spec" in template:
        return template["spec"], template["metadata"].get("labels", {})
    return None, {}


def container_problems(pod, container):
    mine, outer = container.get("securityContext", {}), pod.get("securityContext", {})
    either = {**outer, **mine}
    if mine.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if mine.get("capabilities", {}).get("drop") != ["ALL"] or mine.get("capabilities", {}).get("add"):
        yield "keeps capabilities"
    if mine.get("readOnlyRootFilesystem") is not True:
        yield "can write to its root"
    if mine.get("privileged"):
        yield "is privileged"
    if either.get("runAsNonRoot") is not True or either.get("runAsUser") == 0:
        yield "may run as root"
    if either.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if not container.get("resources", {}).get("limits", {}).get("memory"):
        yield "has no limit of memory"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of its node"
    names = [variable["name"] for variable in container.get("env", [])]
    if len(names) != len(set(names)):
        yield f"has a variable twice: {sorted(names)}"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume"
    # A shell is not in the image, so nothing may need one.
    if "command" in container:
        yield "does not run the image's program"


def pod_problems(pod):
    if pod.get("automountServiceAccountToken") is not False:
        yield "is given a token"
    if pod.get("enableServiceLinks") is not False:
        yield "is given variables of services"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"has {key}"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"has a volume of {kinds}"
    for container in pod.get("initContainers", []) + pod["containers"]:
        for problem in container_problems(pod, container):
            yield f"container {container['name']} {problem}"


def grace_problems(pod):
    """The time a relay is given to end covers the time it takes to drain."""
    for container in pod["containers"]:
        drain = {v["name"]: v.get("value") for v in container.get("env", [])}.get("OUTBOX_DRAIN")
        if container.get("args") != ["run"] or not drain:
            continue
        number = drain.rstrip("smh")
        wanted = math.ceil(float(number) * UNITS[drain[len(number):]]) + 10
        if pod.get("terminationGracePeriodSeconds") != wanted:
            yield f"drains for {drain}, and is given {pod.get('terminationGracePeriodSeconds')} s"


def named(pod):
    """Secrets, ConfigMaps and the ServiceAccount that a pod needs."""
    yield "ServiceAccount", pod.get("serviceAccountName", "default")
    for volume in pod.get("volumes", []):
        for source in volume.get("projected", {}).get("sources", []):
            for key, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
                if key in source:
                    yield kind, source[key]["name"]
    for container in pod.get("initContainers", []) + pod["containers"]:
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield "Secret", reference["name"]


def hook(thing):
    notes = thing["metadata"].get("annotations", {})
    return notes.get("helm.sh/hook", ""), int(notes.get("helm.sh/hook-weight", 0))


def hook_problems(thing, pod, things):
    """A hook before the install finds only what is there before: nothing of the chart but earlier hooks."""
    events, weight = hook(thing)
    if "pre-install" not in events:
        return
    for kind, name in named(pod):
        for other in things:
            if (other["kind"], other["metadata"]["name"]) == (kind, name):
                its_events, its_weight = hook(other)
                if "pre-install" not in its_events or its_weight >= weight:
                    yield f"needs {kind} {name}, which is made after it"


def deployment_problems(thing, labels):
    spec = thing["spec"]
    selector = spec["selector"]["matchLabels"]
    if not selector.items() <= labels.items():
        yield "does not select its own pods"
    # What changes with a version must not be in there: a selector cannot be changed.
    if set(selector) != {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}:
        yield f"selects by {sorted(selector)}"
    if spec["replicas"] == 1 and spec["strategy"]["type"] == "RollingUpdate":
        if spec["strategy"]["rollingUpdate"]["maxSurge"] != 1:
            yield "is updated with a gap"
    if spec["replicas"] > 2:
        yield "has more than a relay and its standby"


def problems(things):
    deployments = [thing for thing in things if thing["kind"] == "Deployment"]
    for thing in things:
        pod, labels = pod_of(thing)
        if pod is None:
            continue
        found = [*pod_problems(pod), *grace_problems(pod), *hook_problems(thing, pod, things)]
        if thing["kind"] == "Deployment":
            found += deployment_problems(thing, labels)
        else:
            for deployment in deployments:
                if deployment["spec"]["selector"]["matchLabels"].items() <= labels.items():
                    found.append("is taken for one of the relay's pods")
        for problem in found:
            yield f"{thing['kind']} {thing['metadata']['name']}: {problem}"


def main():
    wrong = 0
    for file in sys.argv[1:]:
        with open(file) as text:
            things = [thing for thing in yaml.safe_load_all(text) if thing]
        if not any(pod_of(thing)[0] for thing in things):
            print(f"{file}: no pods, so nothing was looked at")
            wrong = 1
        for problem in problems(things):
            print(f"{file}: {problem}")
            wrong = 1
    sys.exit(wrong)


if __name__ == "__main__":
    main()
