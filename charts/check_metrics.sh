#!/bin/sh
# Checks alerts, dashboard and metrics against a real Prometheus: check_metrics.sh FOLDER RELAY
#
# RELAY is the built program; what has to be fetched is kept in FOLDER, which lies outside of the repository.
# Servers are private ones in a temporary folder. What cannot be had is named on a line `SKIPPED what: why`.
# It ends badly if anything that ran found something wrong.
set -u

[ $# -eq 2 ] || { echo "usage: $0 FOLDER RELAY" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd) || exit 1
relay=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") || exit 1
[ -x "$relay" ] || { echo "$2 is no program; build it with cargo build --release" >&2; exit 64; }
mkdir -p "$1" && folder=$(cd "$1" && pwd) || exit 1
chart=$here/outbox-relay failed=

# The package of Debian 12, unpacked and not installed, where the system has none.
PROMETHEUS=2.42.0+ds-5+deb12u1
SCHEMA=12.2.0 TYPESCRIPT=5.9.2

check() { # NAME COMMAND…
    name=$1
    shift
    if output=$("$@" 2>&1); then echo "passed $name"; else
        echo "FAILED $name:" && echo "$output" | sed 's/^/    /' && failed=1
    fi
}

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
    if [ ! -e "$folder/prometheus-$PROMETHEUS" ]; then
        rm -rf "$folder/new" && mkdir "$folder/new"
        (cd "$folder/new" && apt-get download -q "prometheus=$PROMETHEUS" >/dev/null 2>&1 &&
            dpkg -x ./*.deb made && mv made "../prometheus-$PROMETHEUS")
    fi
    PATH=$folder/prometheus-$PROMETHEUS/usr/bin:$PATH
fi

if command -v promtool >/dev/null; then
    check "alerts are valid rules" promtool check rules "$chart/files/alerts.yaml"
    check "alerts fire when they should" promtool test rules "$chart/tests/alerts_test.yaml"
else
    echo "SKIPPED alerts: prometheus=$PROMETHEUS is neither installed nor to be had from apt-get"
fi

# Grafana's own types are the nearest thing to its schema that can be had without Grafana.
types=$folder/grafana-$SCHEMA-$TYPESCRIPT
if [ ! -e "$types" ] && command -v npm >/dev/null; then
    rm -rf "$folder/new" && mkdir "$folder/new"
    # Else npm would look for a package in the folders above.
    echo '{}' >"$folder/new/package.json"
    (cd "$folder/new" && npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps \
        "@grafana/schema@$SCHEMA" "typescript@$TYPESCRIPT" >/dev/null 2>&1 && mv "$folder/new" "$types")
fi
if [ -e "$types" ]; then
    check "the dashboard has Grafana's types" python3 "$here/check_metrics.py" types "$chart" "$types"
else
    echo "SKIPPED types of the dashboard: @grafana/schema@$SCHEMA cannot be had from npm"
fi

missing=
for program in prometheus promtool redis-server psql; do
    command -v $program >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ]; then
    echo "SKIPPED the live check: these cannot be had:$missing"
else
    python3 "$here/check_metrics.py" live "$chart" "$relay" || failed=1
fi

rm -rf "$folder/new"
[ -z "$failed" ]
