"""What check_image.sh cannot read in a shell: how buildah and rustc describe what they made.

    python3 image.py described IMAGE.json REPOSITORY REVISION   user, program, port and labels of the image
    python3 image.py same IMAGE.json OTHER.json                 two builds have the same layers and settings
    python3 image.py sources PROGRAM.d FOLDER                   all that the program was built from is in the folder

Prints what is wrong and ends with 1.
"""

import json
import os
import pathlib
import re
import sys


def settings(file):
    return json.loads(pathlib.Path(file).read_text())["OCIv1"]


def first(pattern, file):
    """What the first line that begins so goes on with."""
    return re.search(pattern, pathlib.Path(file).read_text(), re.M)[1]


def labels(root, revision):
    manifest, chart = f"{root}/Cargo.toml", f"{root}/charts/outbox-relay/Chart.yaml"
    version = first(r'^version = "(.*)"', manifest)
    if first(r'^appVersion: "?([^"\n]*)', chart) != version:
        yield f"Chart.yaml has another appVersion than {version}, so it names an image that is not built", None
    yield "title", first(r'^name = "(.*)"', manifest)
    yield "description", first(r'^description = "(.*)"', manifest)
    yield "licenses", first(r'^license = "(.*)"', manifest)
    yield "version", version
    yield "revision", revision


def described(image, root, revision):
    config = settings(image)["config"]
    values = pathlib.Path(root, "charts/outbox-relay/values.yaml").read_text()
    port = re.search(r"^http:\n(?:  .*\n)*?  port: (\d+)", values, re.M)[1]
    run_as = re.search(r"^runAs:\n  user: (\d+)\n  group: (\d+)", values, re.M)
    wanted = {
        # By number, or a node cannot see that it is not root; and the one that the chart has.
        "User": f"{run_as[1]}:{run_as[2]}",
        "Entrypoint": ["/usr/local/bin/outbox-relay"],
        "Cmd": ["run"],
        "ExposedPorts": {f"{port}/tcp": {}},
        # For `kubectl exec … -- outbox-relay doctor`, and so that others reach it.
        "Env": ["OUTBOX_HTTP=0.0.0.0:" + port, "PATH=/usr/local/bin"],
        "Volumes": None,
    }
    for key, value in wanted.items():
        found = config.get(key)
        found = sorted(found) if key == "Env" and found else found
        if found != value:
            yield f"{key} is {found}, and {value} is wanted"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", config.get("User", "")):
        yield f"User is {config.get('User')!r}: a node that wants no root accepts only numbers other than 0"
    for key, value in labels(root, revision):
        if value is None:
            yield key
            continue
        found = config.get("Labels", {}).get(f"org.opencontainers.image.{key}")
        if found != value:
            yield f"label {key} is {found!r}, and {value!r} is wanted"


def same(one, other):
    one, other = settings(one), settings(other)
    if not one["rootfs"]["diff_ids"]:
        yield "there are no layers"
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            yield f"{key} differs: {one.get(key)} and {other.get(key)}"


def sources(listing, folder):
    text = pathlib.Path(listing).read_text()
    paths = [path.replace("\\ ", " ") for path in re.findall(r"(?:\\ |\S)+", text.split(": ", 1)[1].splitlines()[0])]
    root = os.path.commonpath(paths)
    if len(paths) < 2:
        yield f"{listing} names {len(paths)} files: it is not understood"
    for path in paths:
        inside = os.path.relpath(path, root)
        if not os.path.exists(os.path.join(folder, inside)):
            yield f"{inside} is not copied, and the program is built from it"


def main():
    wrong = list({"described": described, "same": same, "sources": sources}[sys.argv[1]](*sys.argv[2:]))
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
