"""What check_metrics.sh cannot do in a shell: types of the dashboard, and the live check.

check_metrics.py types CHART FOLDER   the dashboard against @grafana/schema, which is installed in FOLDER
check_metrics.py live CHART RELAY     metrics, alerts and dashboard against a real Prometheus that scrapes a
                                      leader and a standby under load; then with things that go wrong
"""

import contextlib
import glob
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

# Panels that show nothing while all is well.
EMPTY_WHEN_WELL = {"What is stuck? Streams that do not flow", "What fails?"}
# A selector of one of our metrics. Every series is there from the start, so each selects something.
SELECTOR = re.compile(r"outbox_relay_\w+(?:\{[^}]*\})?")
JOB = "shop/outbox-relay"
# Begins the names of alerts that fire sooner.
SOON = "Soon"
# Entries that a stream holds at most.
LIMIT = 30_000

failed = False


def report(what, problems):
    global failed
    if not problems:
        print(f"passed {what}", flush=True)
        return
    failed = True
    print(f"FAILED {what}:", *problems, sep="\n    ", flush=True)


def eventually(bound, ready):
    """The first answer that is true, or else the last one when time is up."""
    end = time.monotonic() + bound
    while True:
        answer = ready()
        if answer or time.monotonic() > end:
            return answer
        time.sleep(0.5)


# ---- the dashboard ----


def dashboard(chart):
    with open(f"{chart}/files/dashboard.json", encoding="utf-8") as file:
        return json.load(file)


def expressions(board):
    """(panel, expression) with what Grafana would put in for its variables, but wider."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            expr = target["expr"]
            for variable, text in (
                ("$__rate_interval", "15s"),
                ("$__range", "5m"),
                ("$job", ".*"),
                ("$instance", ".*"),
            ):
                expr = expr.replace(variable, text)
            yield panel["title"], expr


def types(chart, folder):
    """Writes the dashboard as TypeScript, each part with the type that Grafana has for it."""
    schema = f"{folder}/node_modules/@grafana/schema/dist/types"
    board = dashboard(chart)
    panels = board.pop("panels")
    lines = [
        f'import * as core from "{schema}/index";',
        # Grafana's enums, as the texts that stand in JSON.
        "type Plain<T> = T extends string ? `${T}` : T extends object ? "
        "{ [K in keyof T]: Plain<T[K]> } : T;",
        f"export const board: Plain<core.Dashboard> = {json.dumps(board)};",
    ]
    for kind in sorted({panel["type"] for panel in panels}):
        (file,) = glob.glob(f"{schema}/raw/composable/{kind}/panelcfg/x/*_types.gen.d.ts")
        lines.append(f'import * as {kind} from "{file.removesuffix(".d.ts")}";')
    for panel in panels:
        name, kind = f"panel{panel['id']}", panel["type"]
        options = panel.pop("options")
        custom = panel["fieldConfig"]["defaults"].pop("custom", None)
        lines += [
            f"export const {name}: Plain<core.Panel> = {json.dumps(panel)};",
            f"export const {name}Options: Plain<{kind}.Options> = {json.dumps(options)};",
        ]
        if custom is not None:
            lines.append(
                f"export const {name}Custom: Plain<{kind}.FieldConfig> = {json.dumps(custom)};"
            )
    with tempfile.TemporaryDirectory() as temporary:
        file = f"{temporary}/dashboard.ts"
        with open(file, "w", encoding="utf-8") as out:
            out.write("\n".join(lines))
        compiler = f"{folder}/node_modules/typescript/bin/tsc"
        flags = "--noEmit --strict --skipLibCheck --target es2022 --module esnext --moduleResolution bundler"
        sys.exit(subprocess.run(["node", compiler, *flags.split(), file], check=False).returncode)


# ---- servers ----


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_folder():
    """As the relay's own tests find it."""
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
    for place in [os.environ.get("OUTBOX_PG_BIN"), *os.environ["PATH"].split(":"), *reversed(places)]:
        if place and os.path.exists(f"{place}/postgres") and os.path.exists(f"{place}/initdb"):
            return place
    return None


class Servers:
    """Postgres, Redis, two relays and Prometheus, all private, all ended with the block."""

    def __init__(self, folder, relay, ends):
        self.folder, self.relay, self.ends = folder, relay, ends
        self.postgres_port, self.redis_port = free_port(), free_port()
        self.database = f"postgres://outbox@127.0.0.1:{self.postgres_port}/postgres"
        self.relays = {}

    def start(self, name, command, ended_by=signal.SIGTERM, **options):
        with open(f"{self.folder}/{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        self.ends.callback(self.end, process, ended_by)
        return process

    @staticmethod
    def end(process, ended_by=signal.SIGTERM):
        process.send_signal(ended_by)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_postgres(self, programs):
        # Postgres does not run as root.
        account = {}
        data = f"{self.folder}/data"
        os.mkdir(data, 0o700)
        if os.geteuid() == 0:
            names = [entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody")]
            user = max(names, key=lambda entry: entry.pw_name)
            account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
            os.chmod(self.folder, 0o755)
            os.chown(data, user.pw_uid, user.pw_gid)
        make = [f"{programs}/initdb", "-D", data, "-U", "outbox", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, **account)
        settings = f"listen_addresses=127.0.0.1 port={self.postgres_port} unix_socket_directories= fsync=off"
        command = [f"{programs}/postgres", "-D", data]
        for setting in settings.split():
            command += ["-c", setting]
        # SIGTERM would wait for sessions.
        self.start("postgres", command, signal.SIGINT, **account)
        migrate = [self.relay, "migrate", "--database-url", self.database]
        if not eventually(20, lambda: subprocess.run(migrate, capture_output=True).returncode == 0):
            raise SystemExit(f"cannot migrate:\n{subprocess.run(migrate, capture_output=True).stderr}")

    def start_redis(self):
        command = f"redis-server --port {self.redis_port} --bind 127.0.0.1 --save  --dir {self.folder}"
        return self.start("redis", command.split(" "))

    def start_relay(self, name):
        port = free_port()
        environment = {
            "DATABASE_URL": self.database,
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}",
            "OUTBOX_HTTP": f"127.0.0.1:{port}",
            # So that it soon looks whether something can be purged, and a standby soon takes over.
            "OUTBOX_RETENTION": "10s",
            "OUTBOX_LEASE": "2s",
            "OUTBOX_STREAM_LIMIT": str(LIMIT),
        }
        self.relays[name] = f"127.0.0.1:{port}"
        return self.start(name, [self.relay, "run"], env={**os.environ, **environment})

    def start_prometheus(self, rules):
        port = free_port()
        targets = json.dumps(list(self.relays.values()))
        with open(f"{self.folder}/prometheus.yml", "w", encoding="utf-8") as out:
            out.write(
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: {json.dumps(rules)}\n"
                f"scrape_configs: [{{job_name: {JOB}, static_configs: [{{targets: {targets}}}]}}]\n"
            )
        self.start(
            "prometheus",
            [
                "prometheus",
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/prometheus",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
        )
        self.prometheus = f"http://127.0.0.1:{port}/api/v1"

    def redis(self, *words):
        command = b"*%d\r\n" % len(words)
        for word in words:
            command += b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())
        with socket.create_connection(("127.0.0.1", self.redis_port), 5) as connection:
            connection.sendall(command)
            return connection.recv(1 << 16)

    def psql(self, *statements):
        command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", self.database]
        for statement in statements:
            command += ["-c", statement]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def ask(self, path, **query):
        url = f"{self.prometheus}/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it starts
                return None
            raise SystemExit(f"{query}: {error.read().decode()}") from error
        except (urllib.error.URLError, OSError):
            return None

    def query(self, expr):
        """What an expression selects now: [(labels, value)]."""
        answer = self.ask("query", query=expr)
        return [(each["metric"], float(each["value"][1])) for each in (answer or {"result": []})["result"]]

    def leads(self, name):
        try:
            return "outbox_relay_leader 1\n" in self.scrape(name)
        except OSError:
            return False

    def scrape(self, name):
        with urllib.request.urlopen(f"http://{self.relays[name]}/metrics", timeout=5) as answer:
            return answer.read().decode()


def load(servers, stop):
    """About 500 rows per second in three streams; the group of one of them acknowledges."""
    rows = (
        "insert into outbox.entry (stream, key, type, payload) "
        "select (array['orders', 'payments', 'stock'])[1 + i % 3], i::text, 'made', '{\"order_id\": 42}' "
        "from generate_series(1, 50) i;\n"
    )
    command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", servers.database]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as writer:
        while not stop.wait(0.05):
            writer.stdin.write(rows)
            writer.stdin.flush()
            # So that the group is behind now and then, and now and then is not.
            stop.wait(0.05)
            read = "XREADGROUP GROUP mail worker-1 COUNT 1000 NOACK STREAMS orders >"
            with contextlib.suppress(OSError):
                servers.redis(*read.split())


# ---- the live check ----


def check_scrape(name, text):
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    problems = (found.stdout + found.stderr).splitlines()
    report(f"promtool finds nothing in the metrics of the {name}", problems or [""] * (found.returncode != 0))


def rules_of(servers):
    answer = servers.ask("rules") or {"groups": []}
    return [rule for group in answer["groups"] for rule in group["rules"]]


def alerts_of(servers):
    """The alerts, without those that are sooner."""
    rules = [rule for rule in rules_of(servers) if rule["type"] == "alerting"]
    return [rule for rule in rules if not rule["name"].startswith(SOON)]


def recording_rules(board):
    """The dashboard's queries as recording rules, and the text of a file with them."""
    rules = []
    for number, (panel, expr) in enumerate(expressions(board)):
        rules.append({"record": f"dashboard:{number}", "expr": expr, "labels": {"panel": panel}})
    # JSON is YAML.
    return rules, json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})


def firing(servers, soon=False):
    """Alerts whose expression holds, whether or not for long enough; with `soon` also those that fire soon."""
    names = {rule["name"] for rule in rules_of(servers) if rule.get("alerts")}
    late = {name for name in names if not name.startswith(SOON)}
    return late | {name.removeprefix(SOON) for name in names} if soon else late


def sooner(text):
    """The same alerts where a minute is a second and nobody is patient, to see them fire on a real relay."""
    text = text.replace("- name: outbox-relay", "- name: soon").replace("- alert: ", f"- alert: {SOON}")
    text = re.sub(r"for: \d+m", "for: 2s", text)
    text = re.sub(r"(\[|offset )(\d+)m", r"\1\2s", text).replace("[1h]", "[1m]")
    seconds = {"60": "5", "300": "8", "3600": "12"}
    return re.sub(r"> (60|300|3600)$", lambda found: f"> {seconds[found[1]]}", text, flags=re.M)


def check_alerts_files(chart, alerts):
    pages = {name.removesuffix(".md") for name in os.listdir(f"{chart}/docs/runbooks")}
    problems = []
    with open(f"{chart}/tests/alerts_test.yaml", encoding="utf-8") as file:
        tests = re.findall(r"alertname: (\w+)", file.read())
    with open(f"{chart}/docs/alerts.md", encoding="utf-8") as file:
        table = file.read()
    for alert in alerts:
        name = alert["name"]
        page = f"docs/runbooks/{name}.md"
        if not alert["annotations"].get("runbook_url", "").endswith(f"outbox-relay/{page}"):
            problems.append(f"{name}: runbook_url does not lead to {page}")
        if name not in pages:
            problems.append(f"{name}: there is no {page}")
        else:
            with open(f"{chart}/{page}", encoding="utf-8") as file:
                parts = re.findall(r"^## (\w+)", file.read(), re.M)
            if parts != ["Meaning", "Impact", "Diagnosis", "Mitigation"]:
                problems.append(f"{page} has the parts {parts}")
        if f"runbooks/{name}.md" not in table:
            problems.append(f"docs/alerts.md does not name {name}")
        if tests.count(name) < 3:
            problems.append(f"{name} is tested {tests.count(name)} times: it fires, just below, empty outbox")
    for name in sorted(pages - {alert["name"] for alert in alerts}):
        problems.append(f"docs/runbooks/{name}.md is of no alert")
    report("each alert has a runbook, tests and its line in the table", problems)


def live(chart, relay):
    chart, programs = os.path.abspath(chart), postgres_folder()
    if not programs:
        print("SKIPPED the live check: no PostgreSQL server found; install it or set OUTBOX_PG_BIN")
        return
    with contextlib.ExitStack() as ends:
        folder = tempfile.mkdtemp(prefix="outbox-metrics-")
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = Servers(folder, relay, ends)
        redis = servers.start_redis()
        servers.start_postgres(programs)
        servers.redis(*"XGROUP CREATE orders mail 0 MKSTREAM".split())
        relays = [servers.start_relay("leader")]
        eventually(20, lambda: servers.leads("leader"))
        relays.append(servers.start_relay("standby"))
        board = dashboard(chart)
        rules, text = recording_rules(board)
        files = [f"{chart}/files/alerts.yaml", f"{folder}/soon.yaml", f"{folder}/dashboard.json"]
        with open(files[0], encoding="utf-8") as alerts, open(files[1], "w", encoding="utf-8") as out:
            out.write(sooner(alerts.read()))
        with open(files[2], "w", encoding="utf-8") as out:
            out.write(text)
        found = subprocess.run(["promtool", "check", "rules", *files], capture_output=True, text=True, check=False)
        problems = found.stderr.splitlines() if found.returncode else []
        report("alerts and the dashboard's queries are valid rules", problems)
        if problems:
            return
        servers.start_prometheus(files)
        stop = threading.Event()
        writer = threading.Thread(target=load, args=(servers, stop))
        ends.callback(writer.join)
        ends.callback(stop.set)
        writer.start()
        quiet = check_well(servers, chart, board, rules)
        check_ill(servers, rules, redis, relays, quiet)


def check_well(servers, chart, board, rules):
    """Returns the alerts that were quiet, also when they fire soon."""
    alive = eventually(20, lambda: [up for _, up in servers.query("up")] == [1.0, 1.0])
    report("Prometheus scrapes leader and standby", [] if alive else [servers.query("up")])
    for name in servers.relays:
        check_scrape(name, servers.scrape(name))

    quiet = set()

    def well():
        now = {alert["name"] for alert in alerts_of(servers)} - firing(servers, soon=True)
        quiet.update(now)
        # Rates want two scrapes, and what is measured seldom its turn.
        return not firing(servers) and not wrong_panels(servers, rules) and len(quiet) == len(alerts_of(servers))

    report("no alert under load", [] if eventually(60, well) else sorted(firing(servers)))
    report(f"the dashboard's {len(rules)} queries find what they should", wrong_panels(servers, rules))
    alerts = alerts_of(servers)
    check_alerts_files(chart, alerts)
    ill = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules_of(servers) if rule["health"] != "ok"]
    report("each rule can be evaluated", ill)

    texts = [expr for _, expr in expressions(board)] + [alert["query"] for alert in alerts]
    selectors = {selector for text in texts for selector in SELECTOR.findall(text)}
    problems = [selector for selector in sorted(selectors) if not servers.query(selector)]
    report(f"each of {len(selectors)} selectors selects something", problems)

    problems = []
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = variable["query"]["query"].replace("$job", ".*")
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", asked).groups()
            if not any(label in labels for labels, _ in servers.query(selector)):
                problems.append(asked)
    report("the dashboard's variables have values", problems)
    return quiet


def wrong_panels(servers, rules):
    """Queries that find nothing, or something although there should be nothing."""
    problems = []
    for rule in rules:
        panel, found = rule["labels"]["panel"], servers.query(rule["record"])
        numbers = [value for _, value in found if value == value]
        if bool(numbers) == (panel in EMPTY_WHEN_WELL):
            problems.append(f"{panel}: {found} from {rule['expr']}")
    return problems


def check_ill(servers, rules, redis, relays, quiet):
    """What can go wrong does, and each alert is seen that was quiet before."""
    wanted, seen, shown = {alert["name"] for alert in alerts_of(servers)}, set(), set()

    def see(alerts, panels=frozenset()):
        def look():
            seen.update(firing(servers, soon=True))
            shown.update(rule["labels"]["panel"] for rule in rules if servers.query(rule["record"]))
            return seen >= alerts and shown >= panels

        eventually(40, look)

    idle = ["psql", "-qX", servers.database]
    with subprocess.Popen(idle, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as transaction:
        transaction.stdin.write("begin; select txid_current();\n")
        transaction.stdin.flush()
        servers.redis("FLUSHALL")
        servers.psql(
            "insert into outbox.dead_letter (consumer_group, event_id, stream, entry_id, payload, created_at, "
            "deliveries, error) values ('mail', gen_random_uuid(), 'orders', '1-1', '{}', now(), 8, 'no such address')"
        )
        servers.redis(*"SET invoices in-the-way".split())
        servers.redis(*"XGROUP CREATE payments forgotten 0 MKSTREAM".split())
        payments = "insert into outbox.entry (stream, payload) select 'payments', '{}' from generate_series(1, %d)"
        servers.psql("insert into outbox.entry (stream, payload) values ('invoices', '{}')", payments % LIMIT)
        eventually(20, lambda: servers.query('outbox_relay_stream_state{stream="payments", state="full"} == 1'))
        servers.redis(*"XTRIM payments MAXLEN 20000".split())
        names = (
            "RedisLoss StreamHalted GroupAbandoned StreamFull StreamFilling EntriesIrregular TransactionOld "
            "DeadLetters"
        )
        see({f"OutboxRelay{name}" for name in names.split()}, EMPTY_WHEN_WELL)
        report("the panels that were empty show it", sorted(EMPTY_WHEN_WELL - shown))
        transaction.stdin.close()
    redis.kill()
    see(wanted - {"OutboxRelayDown"})
    for relay in relays:
        servers.end(relay)
    see(wanted)
    problems = [f"{name} is not seen" for name in sorted(wanted - seen)]
    problems += [f"{name} is seen also while all is well" for name in sorted(wanted - quiet)]
    report(f"each of {len(wanted)} alerts is seen when it goes wrong", problems or [""] * (not wanted))


if __name__ == "__main__":
    # Else servers would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    {"types": types, "live": live}[sys.argv[1]](*sys.argv[2:])
    sys.exit(failed)
