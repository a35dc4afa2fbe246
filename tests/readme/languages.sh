#!/bin/sh
# Puts the packages that the examples in README.md use into a folder: languages.sh FOLDER
#
# It installs no language. A language that is missing, or whose packages cannot be had, is named on a
# line `SKIPPED name: why`, and the rest goes on. What is there already is not fetched again.
set -u

[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 64; }
mkdir -p "$1" && cd "$1" || exit 1

PYTHON="psycopg[binary]==3.3.9 SQLAlchemy==2.1.9 redis==8.1.0"
NODE="pg@8.23.1 sequelize@6.37.8 redis@6.3.1"
JAVA="libpostgresql-jdbc-java"
GO="golang-github-lib-pq-dev golang-github-gomodule-redigo-dev"

fetch_python() {
    python3 -m pip install --quiet --disable-pip-version-check --target python $PYTHON
}

fetch_node() {
    npm install --silent --no-audit --no-fund --no-package-lock --prefix node $NODE
}

# Debian's packages, unpacked here and not installed.
fetch_java() { debian java $JAVA; }
fetch_go() { debian go $GO; }
debian() {
    mkdir "$1" && (cd "$1" && shift &&
        { apt-get download -qq "$@" || { apt-get update -qq && apt-get download -qq "$@"; }; } &&
        for package in ./*.deb; do dpkg -x "$package" . || exit 1; done)
}

# get NAME PACKAGES PROGRAM…: skips NAME if a program is missing, and calls fetch_NAME unless
# its stamp says that these packages are there.
get() {
    name=$1 packages=$2
    shift 2
    for program; do
        command -v "$program" >/dev/null || { echo "SKIPPED $name: no $program"; return; }
    done
    [ "$(cat "$name/stamp" 2>/dev/null)" = "$packages" ] && return
    rm -rf "./$name"
    if "fetch_$name" >"$name.log" 2>&1; then
        echo "$packages" >"$name/stamp"
    else
        rm -rf "./$name"
        echo "SKIPPED $name: its packages cannot be had: $(tail -n 1 "$name.log")"
    fi
}

get python "$PYTHON" python3
get node "$NODE" node npm
get java "$JAVA" javac apt-get
get go "$GO" go apt-get
exit 0
