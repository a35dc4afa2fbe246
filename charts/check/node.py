"""A node with one pod: does with podman what a kubelet does with the parts of a pod that this chart uses.

What it does not know is refused, so that nothing in a pod is passed over. `podman kube play` of Debian 12 knows no
projected volumes, and no ports on the machine's network, which is why each container is started by itself. The
pod's address is not 127.0.0.1, as in a cluster: who listens there only is not reached.
"""

import base64
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request

ADDRESS = "127.0.0.2"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# What only a cluster does is no matter here, and pods.py looks at it.
POD = {
    "automountServiceAccountToken", "enableServiceLinks", "serviceAccountName", "restartPolicy", "securityContext",
    "terminationGracePeriodSeconds", "initContainers", "containers", "volumes",
}
POD_SECURITY = {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"}
CONTAINER = {
    "name", "image", "imagePullPolicy", "args", "env", "securityContext", "resources", "volumeMounts", "ports",
    "livenessProbe", "readinessProbe",
}
SECURITY = {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "runAsNonRoot", "capabilities"}
PROBE = {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}


def known(what, thing, keys):
    if not set(thing) <= keys:
        raise SystemExit(f"{what} has {sorted(set(thing) - keys)}: teach check/node.py what a node does with it")


class Probe(threading.Thread):
    """Asks a container again and again, as its manifest says, until `stop`."""

    def __init__(self, rendered, ports):
        super().__init__(daemon=True)
        known("a probe", rendered, PROBE)
        known("httpGet", rendered["httpGet"], {"path", "port"})
        get = rendered["httpGet"]
        self.url = f"http://{ADDRESS}:{ports.get(get['port'], get['port'])}{get['path']}"
        self.period, self.timeout = rendered["periodSeconds"], rendered["timeoutSeconds"]
        self.threshold = rendered["failureThreshold"]
        # How often it was asked, how often in a row it failed, and how often that was once too often.
        self.asked, self.failures, self.given_up = 0, 0, 0
        # Whether all is well, as the node sees it; None before it was asked.
        self.well, self.answer = None, None
        self.over = threading.Event()

    def ask(self):
        try:
            with urllib.request.urlopen(self.url, timeout=self.timeout) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError as error:
            return str(error)

    def run(self):
        while not self.over.wait(self.period):
            self.answer = self.ask()
            if isinstance(self.answer, int) and 200 <= self.answer < 400:
                self.failures, self.well = 0, True
            else:
                self.failures += 1
                if self.failures >= self.threshold:
                    self.well = False
                    self.given_up += self.failures == self.threshold
            self.asked += 1

    def stop(self):
        self.over.set()
        self.join()


class Pod:
    """A pod with the Secrets it names: {name: {key: text}}."""

    def __init__(self, name, spec, secrets, folder, cgroup):
        known("the pod", spec, POD)
        known("the pod's security", spec["securityContext"], POD_SECURITY)
        self.name, self.spec, self.secrets, self.cgroup = name, spec, secrets, cgroup
        self.folder = pathlib.Path(folder, name)
        self.probes = {}
        for volume in spec.get("volumes", []):
            self.mount(volume)

    # ---- volumes ----

    def mount(self, volume):
        """Writes a volume. Files are links that change at once, as a kubelet has them; so it may be called again."""
        known("a volume", volume, {"name", "projected"})
        known("a projected volume", volume["projected"], {"defaultMode", "sources"})
        place = self.folder / volume["name"]
        new = place / f"..{time.monotonic_ns()}"
        new.mkdir(parents=True)
        for source in volume["projected"]["sources"]:
            known("a source", source, {"secret"})
            known("a secret", source["secret"], {"name", "items"})
            for item in source["secret"]["items"]:
                known("an item", item, {"key", "path"})
                file = new / item["path"]
                file.write_text(self.secrets[source["secret"]["name"]][item["key"]])
                file.chmod(volume["projected"]["defaultMode"])
                group = self.spec["securityContext"].get("fsGroup")
                if group is not None:
                    os.chown(file, 0, group)
                    file.chmod(file.stat().st_mode | 0o440)
                if not (place / item["path"]).is_symlink():
                    (place / item["path"]).symlink_to(f"..data/{item['path']}")
        (place / "..next").symlink_to(new.name)
        (place / "..next").rename(place / "..data")

    def rotate(self, secrets):
        self.secrets = secrets
        for volume in self.spec["volumes"]:
            self.mount(volume)

    # ---- a container ----

    def variables(self, container):
        env = {}
        for variable in container.get("env", []):
            if "value" in variable:
                # Only those that come before are known, and what they hold is not looked at again.
                text = re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), variable["value"])
            else:
                known("valueFrom", variable["valueFrom"], {"secretKeyRef"})
                reference = variable["valueFrom"]["secretKeyRef"]
                text = self.secrets[reference["name"]][reference["key"]]
            env[variable["name"]] = text
        return env

    def security(self, container):
        pod, own = self.spec["securityContext"], container["securityContext"]
        known("a container's security", own, SECURITY)
        user, group = pod.get("runAsUser"), pod.get("runAsGroup")
        if user is not None:
            yield f"--user={user}" if group is None else f"--user={user}:{group}"
        if pod.get("fsGroup") is not None:
            yield f"--group-add={pod['fsGroup']}"
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "--security-opt=seccomp=unconfined"
        if own.get("allowPrivilegeEscalation") is False:
            yield "--security-opt=no-new-privileges"
        if own.get("readOnlyRootFilesystem"):
            yield from ("--read-only", "--read-only-tmpfs=false")
        known("capabilities", own.get("capabilities", {}), {"drop"})
        for dropped in own.get("capabilities", {}).get("drop", []):
            yield f"--cap-drop={dropped}"

    def flags(self, container):
        known("a container", container, CONTAINER)
        yield from (f"--name={self.name}-{container['name']}", "--pull=never", "--network=host")
        yield from (f"--cgroup-parent={self.cgroup}", "--no-hosts", "--no-healthcheck")
        yield from self.security(container)
        for name, text in self.variables(container).items():
            yield f"--env={name}={text}"
        for mount in container.get("volumeMounts", []):
            known("a mount", mount, {"name", "mountPath", "readOnly"})
            way = "ro" if mount.get("readOnly") else "rw"
            yield f"--volume={self.folder / mount['name']}:{mount['mountPath']}:{way}"
        memory = container.get("resources", {}).get("limits", {}).get("memory")
        if memory:
            yield f"--memory={int(memory[:-2]) * UNITS[memory[-2:]]}"
        yield container["image"]
        yield from container.get("args", [])

    def run(self, container):
        """Runs it to its end: (exit code, what it said)."""
        command = ["podman", "run", "--rm", *self.flags(container)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return ended.returncode, ended.stdout + ended.stderr

    def execute(self, *words):
        """Runs a program in its container, as `kubectl exec` does: (exit code, what it said)."""
        command = ["podman", "exec", self.main, *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return ended.returncode, ended.stdout + ended.stderr

    def init(self):
        """Runs the containers that come first: what went wrong."""
        for container in self.spec.get("initContainers", []):
            code, said = self.run(container)
            if code:
                return [f"{container['name']} ended with {code}:", *said.splitlines()]
        return []

    def start(self):
        """Starts its container, and asks it from then on."""
        (container,) = self.spec["containers"]
        self.main = f"{self.name}-{container['name']}"
        self.podman("run", "--detach", *self.flags(container))
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for kind in ("livenessProbe", "readinessProbe"):
            self.probes[kind] = Probe(container[kind], ports)
            self.probes[kind].start()

    def stop(self):
        """Ends it as a node does: (exit code, seconds it took, seconds it is given)."""
        for probe in self.probes.values():
            probe.stop()
        begin, grace = time.monotonic(), self.spec["terminationGracePeriodSeconds"]
        self.podman("stop", f"--time={grace}", self.main)
        return int(self.state("ExitCode")), time.monotonic() - begin, grace

    def state(self, key):
        return self.podman("inspect", f"--format={{{{.State.{key}}}}}", self.main).strip()

    def said(self):
        return self.podman("logs", self.main).splitlines()

    @staticmethod
    def podman(*words):
        ended = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=120, check=False)
        if ended.returncode:
            raise SystemExit(f"podman {words[0]} ended with {ended.returncode}: {ended.stderr}")
        return ended.stdout + ended.stderr


def secret(manifest):
    """The texts of a Secret."""
    texts = {key: base64.b64decode(value).decode() for key, value in manifest.get("data", {}).items()}
    return {**texts, **manifest.get("stringData", {})}
