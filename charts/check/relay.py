"""Starts the program as rendered pods would, and sees that it understands what it is told.

    python3 relay.py RELAY FILE...

Variables are put together as a cluster does, files are mounted in a temporary folder, and Postgres is where nobody
answers. So each ends with 1, for it cannot connect; another code says that the chart made something that is wrong.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

# What Secrets hold. A password may be anything but ' and \ for Postgres, and a part of a URL for Redis.
KEYS = {"host": "127.0.0.1", "port": "1", "dbname": "shop", "username": "relay", "password": "p@ss: w%2Frd"}
SERVERS = {"database": "postgres://relay@127.0.0.1:1/shop", "redis": "redis://127.0.0.1:1/0"}


def certificates(folder):
    """A certificate and its key, for every file of TLS."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=relay"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run(command + files, check=True, capture_output=True)
    shutil.copy(folder / "tls.crt", folder / "ca.crt")


def variables(container, root):
    env = {}
    for variable in container["env"]:
        name, value = variable["name"], variable.get("value")
        if value is not None:
            # Only those that come before are known, and what they hold is not looked at again.
            value = re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), value)
            env[name] = f"{root}{value}" if value.startswith("/etc/outbox-relay/") else value
        elif "secretKeyRef" in variable["valueFrom"]:
            env[name] = KEYS[variable["valueFrom"]["secretKeyRef"]["key"]]
    if "OUTBOX_HTTP" in env:
        env["OUTBOX_HTTP"] = "127.0.0.1:0"
    return {**env, "OUTBOX_START": "0s"}


def mount(pod, container, root, tls, maps):
    places = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
    for volume in pod.get("volumes", []):
        place = places.get(volume["name"])
        if not place or "projected" not in volume:
            continue
        folder = root / place.lstrip("/")
        folder.mkdir(parents=True)
        paths = [item["path"] for source in volume["projected"]["sources"] for part in source.values()
                 for item in part["items"]]
        for path in paths:
            if path == "url":
                url = SERVERS[folder.name]
                # A program that is given files for TLS wants a URL that speaks it.
                url = url.replace("redis://", "rediss://") if len(paths) > 1 else url
                (folder / path).write_text(url)
            elif path == "rules.toml":
                (folder / path).write_text(maps["rules.toml"])
            else:
                shutil.copy(tls / path, folder / path)


def main():
    relay, files, wrong, seen = sys.argv[1], sys.argv[2:], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        tls = pathlib.Path(folder, "tls")
        tls.mkdir()
        certificates(tls)
        for file in files:
            things = [thing for thing in yaml.safe_load_all(pathlib.Path(file).read_text()) if thing]
            pods = [thing["spec"]["template"]["spec"] for thing in things if thing["kind"] in ("Deployment", "Job")]
            maps = {}
            for thing in things:
                maps.update(thing["data"] if thing["kind"] == "ConfigMap" else {})
            for pod in pods:
                for container in pod.get("initContainers", []) + pod["containers"]:
                    seen += 1
                    root = pathlib.Path(folder, str(seen))
                    mount(pod, container, root, tls, maps)
                    env = variables(container, root)
                    ended = subprocess.run([relay, *container["args"]], env=env, capture_output=True, text=True)
                    if ended.returncode != 1 or "cannot connect to Postgres" not in ended.stderr:
                        print(f"{file}: {container['name']} ended with {ended.returncode}: {ended.stderr}")
                        wrong = 1
    if not seen:
        print("no container was found")
    sys.exit(wrong or not seen)


if __name__ == "__main__":
    main()
