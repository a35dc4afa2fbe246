"""Starts the rendered pod against a private Postgres and Redis, and sees that it does what it is for.

    python3 started.py FOLDER HELM REPOSITORY IMAGE CGROUP

Prints a line for each check and ends with 1 if one failed. Everything it starts but containers is ended with it;
containers are removed by check_image.sh.
"""

import base64
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse

import yaml

from check_metrics import eventually, free_port, postgres_folder
import node

# What a password may be: for Postgres all but ' and \, and in a URL with its odd signs written as %40.
PASSWORDS = {"shop": "shop", "relay": "p@ss/ w%2Frd?#", "owner": "o$(DATABASE_HOST)n=e r", "redis": "r:e@d/i%s"}
ROWS, READ, ACKNOWLEDGED = 100, 10, 4

failed = False


def report(what, problems):
    global failed
    if not problems:
        print(f"ok      pod: {what}", flush=True)
        return
    failed = True
    print(f"FAILED  pod: {what}", *problems, sep="\n        ", flush=True)


def program(*names):
    places = f"{os.environ['PATH']}:{postgres_folder()}"
    return next(filter(None, (shutil.which(name, path=places) for name in names)), None)


class Servers:
    """Postgres and Redis, each with passwords, ended with the block."""

    def __init__(self, folder, postgres, root, ends):
        self.folder, self.postgres, self.ends = folder, postgres, ends
        self.postgres_port, self.redis_port = free_port(), free_port()
        readme = pathlib.Path(root, "README.md").read_text(encoding="utf-8")
        # What the README says that the relay needs in Redis.
        self.acl = re.search(r"^ACL SETUSER relay on >password (.*)$", readme, re.M)[1]

    def start(self, name, command, ended_by, **options):
        with open(f"{self.folder}/{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        self.ends.callback(self.end, process, ended_by)
        return process

    @staticmethod
    def end(process, ended_by):
        if process.poll() is not None:
            return
        process.send_signal(ended_by)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_postgres(self):
        # Postgres does not run as root.
        account, data = {}, f"{self.folder}/data"
        os.mkdir(data, 0o700)
        if os.geteuid() == 0:
            users = [entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody")]
            user = max(users, key=lambda entry: entry.pw_name)
            account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
            os.chown(data, user.pw_uid, user.pw_gid)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".pw") as password:
            password.write("admin\n")
            password.flush()
            os.chmod(password.name, 0o644)
            make = f"{self.postgres}/initdb -D {data} -U admin -A scram-sha-256 -E UTF8 -N --pwfile {password.name}"
            subprocess.run(make.split(), check=True, stdout=subprocess.DEVNULL, **account)
        command = [f"{self.postgres}/postgres", "-D", data]
        settings = f"listen_addresses=127.0.0.1 port={self.postgres_port} unix_socket_directories="
        for setting in settings.split():
            command += ["-c", setting]
        # SIGTERM would wait for sessions.
        self.start("postgres", command, signal.SIGINT, **account)
        if not eventually(20, lambda: self.psql("admin", "select 1", database="postgres", strict=False) == "1"):
            raise SystemExit("Postgres does not start:\n" + pathlib.Path(self.folder, "postgres.log").read_text())
        for role in ("shop", "relay", "owner"):
            self.psql("admin", f"create role {role} login password '{PASSWORDS[role]}'", database="postgres")
        self.psql("admin", "create database shop owner owner", database="postgres")

    def psql(self, role, statement, database="shop", strict=True):
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.postgres_port), "PGDATABASE": database}
        who = {"PGUSER": role, "PGPASSWORD": PASSWORDS.get(role, role), "PGCONNECT_TIMEOUT": "5"}
        command = [program("psql"), "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", statement]
        ended = subprocess.run(command, env={**os.environ, **where, **who}, capture_output=True, text=True, check=False)
        if ended.returncode and strict:
            raise SystemExit(f"{role}: {statement}: {ended.stderr}")
        return ended.stdout.strip()

    def start_redis(self):
        """An empty one, with the relay's user as the README has it."""
        file = pathlib.Path(self.folder, "redis.conf")
        file.write_text(
            f'port {self.redis_port}\nbind 127.0.0.1\nsave ""\ndir {self.folder}\nrequirepass admin\n'
            "maxmemory 64mb\n"
            f"user relay on >{PASSWORDS['redis']} {self.acl}\n"
        )
        command = [program("redis-server", "valkey-server"), str(file)]
        self.redis_process = self.start("redis", command, signal.SIGTERM)
        if not eventually(10, lambda: self.redis("PING", strict=False) == ["PONG"]):
            raise SystemExit("Redis does not start:\n" + pathlib.Path(self.folder, "redis.log").read_text())

    def redis(self, *words, strict=True):
        """The lines that redis-cli prints of an answer."""
        command = [program("redis-cli", "valkey-cli"), "-e", "-p", str(self.redis_port), *words]
        env = {**os.environ, "REDISCLI_AUTH": "admin"}
        ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if ended.returncode and strict:
            raise SystemExit(f"{' '.join(words)}: {ended.stdout} {ended.stderr}")
        return ended.stdout.splitlines()

    # ---- what an application does ----

    def insert(self, rows):
        self.psql(
            "shop",
            "insert into outbox.entry (stream, key, type, payload) select 'orders', i::text, 'order.paid', "
            f"jsonb_build_object('order_id', i) from generate_series(1, {rows}) i",
        )

    def entries(self):
        """The stream, as lines, from which ids can be picked."""
        return self.redis("XRANGE", "orders", "-", "+", strict=False)


def secrets(servers):
    """Those that the values name, as a cluster keeps them."""
    quoted = {name: urllib.parse.quote(password, safe="") for name, password in PASSWORDS.items()}
    texts = {
        "relay-postgres": {"url": f"postgres://relay:{quoted['relay']}@127.0.0.1:{servers.postgres_port}/shop"},
        "relay-redis": {"url": f"redis://relay:{quoted['redis']}@127.0.0.1:{servers.redis_port}"},
        "owner-postgres": {
            "host": "127.0.0.1",
            "port": str(servers.postgres_port),
            "dbname": "shop",
            "username": "owner",
            "password": PASSWORDS["owner"],
        },
    }
    manifests = {}
    for name, keys in texts.items():
        data = {key: base64.b64encode(text.encode()).decode() for key, text in keys.items()}
        manifests[name] = node.secret({"apiVersion": "v1", "kind": "Secret", "data": data})
    return manifests


def render(helm, root, image, port):
    """The specs of the relay's pod, and of the one that `helm test` starts."""
    repository = image.rsplit(":", 1)[0]
    values = f"{root}/charts/check/pod-values.yaml"
    command = [helm, "template", "relay", f"{root}/charts/outbox-relay", "-n", "shop", "-f", values]
    command += ["--kube-version", "1.33.0", "--set", f"image.repository={repository},http.port={port}"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    if rendered.returncode:
        raise SystemExit(f"helm template: {rendered.stderr}")
    things = [thing for thing in yaml.safe_load_all(rendered.stdout) if thing]
    (relay,) = [thing["spec"]["template"]["spec"] for thing in things if thing["kind"] == "Deployment"]
    (test,) = [thing["spec"] for thing in things if thing["kind"] == "Pod"]
    for container in relay["initContainers"] + relay["containers"] + test["containers"]:
        if container["image"] != image:
            raise SystemExit(f"{container['name']} runs {container['image']}, and {image} was built")
    return relay, test


# ---- checks ----


def status_of(process):
    """What the kernel says of a process: {key: text}."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return dict(re.split(r":\s*", line, maxsplit=1) for line in lines)


def limit_of(process):
    """Bytes that its group may have, in the first or second version of control groups."""
    for line in pathlib.Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for file in (f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes", f"/sys/fs/cgroup{path}/memory.max"):
            if controllers in ("memory", "") and os.path.exists(file):
                return int(pathlib.Path(file).read_text())
    return None


def check_confined(pod):
    """It is as confined as the restricted profile of Pod Security wants it, as the kernel sees it."""
    process = pod.state("Pid")
    status = status_of(process)
    wanted = {"Uid": "\t".join(["65532"] * 4), "Gid": "\t".join(["65532"] * 4), "NoNewPrivs": "1", "Seccomp": "2"}
    wanted |= {f"Cap{kind}": "0" * 16 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    problems = [f"{key} is {status[key]!r}, not {value!r}" for key, value in wanted.items() if status[key] != value]
    mounts = pathlib.Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    for place in ("/", "/etc/outbox-relay/database", "/etc/outbox-relay/redis"):
        options = [line.split()[5].split(",") for line in mounts if line.split()[4] == place]
        if not options or "ro" not in options[-1]:
            problems.append(f"{place} is mounted {options}, not read-only")
    if limit_of(process) != 256 * 2**20:
        problems.append(f"its memory is limited to {limit_of(process)} bytes, not 256Mi")
    report("it is confined as its manifest says", problems)


def said_unless_0(ended):
    code, said = ended
    return [f"it ended with {code}", *said.splitlines()] if code else []


def check_start(pod):
    report("the schema is made before the relay starts", pod.init())
    pod.start()
    ready = pod.probes["readinessProbe"]
    well = eventually(60, lambda: ready.well or pod.state("Running") != "true") and ready.well
    report("it becomes ready", [] if well else [f"readiness: {ready.answer}", *pod.said()])
    if not well:
        raise SystemExit(1)


def carries(servers, rows, before=0):
    servers.insert(rows)
    there = eventually(30, lambda: servers.redis("XLEN", "orders") == [str(before + rows)])
    return [] if there else [f"the stream has {servers.redis('XLEN', 'orders')} entries of {before + rows}"]


def read(servers, count):
    """What the group is given, as lines."""
    return servers.redis("XREADGROUP", "GROUP", "mail", "worker", "COUNT", str(count), "STREAMS", "orders", ">")


def ids(lines):
    return [line for line in lines if re.fullmatch(r"\d+-\d+", line)]


def check_losses(servers):
    """Redis is emptied while a group has read some entries and acknowledged fewer."""
    servers.redis("XGROUP", "CREATE", "orders", "mail", "0")
    given = ids(read(servers, READ))
    servers.redis("XACK", "orders", "mail", *given[:ACKNOWLEDGED])
    acked = f"select count(*) from outbox.stream_status where stream = 'orders' and acked = {ACKNOWLEDGED}"
    if not eventually(30, lambda: servers.psql("admin", acked) == "1"):
        report("an emptied Redis gets back what it had", ["acknowledgements are not remembered"])
        return
    before = servers.entries()
    servers.redis("FLUSHALL")
    check_back(servers, before, given[ACKNOWLEDGED], "an emptied Redis gets back what it had")
    # Read and not acknowledged, or not read: the group has each of them to do, and no other.
    left = ids(servers.redis("XPENDING", "orders", "mail", "-", "+", str(ROWS))) + ids(read(servers, ROWS))
    wanted = ids(before)[ids(before).index(given[ACKNOWLEDGED]):]
    problems = [] if sorted(left) == sorted(wanted) else [f"wanted {wanted}", f"found {left}"]
    report("the group goes on where it was", problems)


def check_back(servers, before, oldest, what):
    """The stream goes from its oldest entry that was not acknowledged to where it went, and the group with it."""
    kept = before[before.index(oldest):]
    back = eventually(30, lambda: servers.entries()[-len(kept):] == kept)
    problems = [] if back else [f"wanted {ids(kept)}", f"found {ids(servers.entries())}"]
    groups = servers.redis("XINFO", "GROUPS", "orders", strict=False)
    if "mail" not in groups:
        problems.append(f"the group is not back: {groups}")
    report(what, problems)


def check_outage(servers, pod):
    """Redis is away for longer than the node's patience with a pod that does not live."""
    live, ready = pod.probes["livenessProbe"], pod.probes["readinessProbe"]
    before = servers.entries()
    servers.end(servers.redis_process, signal.SIGTERM)
    asked = live.asked
    unready = eventually(30, lambda: ready.well is False)
    report("without Redis it is not ready", [] if unready and ready.answer == 503 else [f"readiness: {ready.answer}"])
    long = eventually(60, lambda: live.asked > asked + live.threshold or live.given_up)
    well = long and live.well and not live.given_up and live.answer == 200
    report("without Redis it lives", [] if well else [f"liveness: {live.answer}, {live.failures} times in a row"])
    servers.start_redis()
    again = eventually(30, lambda: ready.well)
    report("with Redis it is ready again", [] if again else [f"readiness: {ready.answer}", *pod.said()[-5:]])
    check_back(servers, before, ids(before)[0], "a Redis that came back empty gets back what it had")


def check_rotation(servers, pod):
    """Passwords are changed in servers and Secrets, and connections that had the old ones are closed."""
    PASSWORDS["relay"], PASSWORDS["redis"] = "n:e@w/ one", "n/e:w@one"
    servers.psql("admin", f"alter role relay password '{PASSWORDS['relay']}'")
    servers.redis("ACL", "SETUSER", "relay", "resetpass", f">{PASSWORDS['redis']}")
    pod.rotate(secrets(servers))
    servers.psql("admin", "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relay'")
    servers.redis("CLIENT", "KILL", "USER", "relay")
    problems = carries(servers, 1, before=int(servers.redis("XLEN", "orders")[0]))
    report("rotated Secrets are used without a restart", problems and [*problems, *pod.said()[-5:]])


def check_end(servers, pod, process):
    restarted = [] if pod.state("Pid") == process else ["its process is another one"]
    live = pod.probes["livenessProbe"]
    if live.given_up:
        restarted.append(f"a node would have restarted it {live.given_up} times")
    report("all the time it was never restarted", restarted)
    code, seconds, grace = pod.stop()
    problems = [f"it ended with {code}"] * (code != 0) + [f"it took {seconds:.1f} s of {grace}"] * (seconds >= grace)
    until = "to_timestamp(pg_sequence_last_value('outbox.lease_until') / 1000.0)"
    if servers.psql("admin", f"select {until} > clock_timestamp()") != "f":
        problems.append("its lease is still held")
    report("it ends in time, with 0", problems and [*problems, *pod.said()[-5:]])


def main(folder, helm, root, image, cgroup):
    tools = {"Postgres": postgres_folder(), "psql": program("psql")}
    tools |= {"Redis": program("redis-server", "valkey-server"), "redis-cli": program("redis-cli", "valkey-cli")}
    missing = [name for name, path in tools.items() if not path]
    if missing:
        print(f"SKIPPED the pod: these are not installed: {' '.join(missing)}")
        return
    os.chmod(folder, 0o755)
    with contextlib.ExitStack() as ends:
        servers = Servers(folder, tools["Postgres"], root, ends)
        servers.start_postgres()
        servers.start_redis()
        relay, test = render(helm, root, image, free_port())
        pod = node.Pod("relay", relay, secrets(servers), folder, cgroup)
        check_start(pod)
        process = pod.state("Pid")
        check_confined(pod)
        report("a row that the application inserts arrives", carries(servers, ROWS))
        tested = node.Pod("test", test, secrets(servers), folder, cgroup)
        report("the pod of helm test ends with 0", said_unless_0(tested.run(test["containers"][0])))
        doctor = pod.execute("outbox-relay", "doctor")
        report("the doctor, called in there, finds nothing wrong", said_unless_0(doctor))
        check_losses(servers)
        check_outage(servers, pod)
        check_rotation(servers, pod)
        check_end(servers, pod, process)


if __name__ == "__main__":
    # Else servers would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main(*sys.argv[1:])
    except (Exception, SystemExit) as error:
        if not (isinstance(error, SystemExit) and isinstance(error.code, int)):
            report("all checks could be made", str(error).splitlines())
        failed = True
    sys.exit(failed)
