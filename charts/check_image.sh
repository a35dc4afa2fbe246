#!/bin/sh
# Checks the image and the pod that runs it, without a registry and without a cluster:
#
#     sh charts/check_image.sh target/tmp/charts target/release/outbox-relay
#
# builds the image from the Dockerfile as it stands, looks at what is in it, and starts the rendered pod against a
# private Postgres and Redis. Both bases are made here: the one to build in holds a stand-in for cargo that hands out
# the program named above, the one to run in what that program needs of this system. So neither the real bases nor
# what the real cargo makes is seen here. Tools and Helm are those that check.sh fetched into the folder. What cannot
# be had is SKIPPED and says why; a check that fails ends this with 1. Containers and images are in a temporary
# folder of their own, which is removed at the end.
# shellcheck disable=SC2317 # functions are called by their names
set -u
umask 022
here=$(cd "$(dirname "$0")" && pwd) && root=$(cd "$here/.." && pwd) || exit 1
usage="usage: sh charts/check_image.sh FOLDER RELAY"
mkdir -p "${1:?$usage}" && tools=$(cd "$1" && pwd) || exit 1
[ -x "${2:?$usage}" ] || { echo "$2 is no program; build it with cargo build --release" >&2; exit 64; }
relay=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") || exit 1
failed=0 child=
PATH=$PATH:/usr/sbin:/sbin
# Else Python would write beside the sources.
export PATH PYTHONDONTWRITEBYTECODE=1

skipped() { echo "SKIPPED $1: $2"; }
end() { skipped "all checks of the image" "$1"; exit 0; }

# Signals are heard only while a child is waited for so.
attend() {
    "$@" &
    child=$!
    wait $child
    ended=$?
    child=
    return "$ended"
}

# Runs the rest as a check named by the first word; it is silent unless it fails.
check() {
    name=$1 && shift
    if attend "$@" >"$work/said" 2>&1; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        sed 's/^/        /' "$work/said"
        failed=1
    fi
}

[ "$(uname)" = Linux ] || end "images are built for Linux, on Linux"
[ "$(id -u)" = 0 ] || end "only root may build and run containers here"
missing=
for program in buildah podman conmon python3 ldd; do
    command -v $program >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || end "these are not installed:$missing"

# In mounts of its own, where the system's place of containers is hidden, so that nothing there is touched; what is
# mounted goes with this process.
if [ -z "${OUTBOX_OWN_MOUNTS:-}" ]; then
    unshare --mount true 2>/dev/null || end "nothing can be mounted here"
    OUTBOX_OWN_MOUNTS=1 exec unshare --mount --propagation private sh "$0" "$@"
fi

# A short path, for sockets are made in it.
work=$(mktemp -d /tmp/image.XXXXXX) || exit 1
group=outbox-relay-${work##*.}
system=/var/lib/containers made=

# Storage, locks and state of their own. More processes and files than these are not to be had everywhere.
settings() {
    cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_config_dir = "$work/network"
[engine]
runtime = "$1"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "$work/libpod"
END
}
export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf" TMPDIR="$work/tmp"
mkdir "$TMPDIR" && chmod 755 "$work" && settings runc &&
    printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/root" "$work/run" \
        >"$CONTAINERS_STORAGE_CONF" || exit 1

clean() {
    trap '' HUP INT TERM
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null
        wait "$child"
    fi
    # What that child has started and left, by what only it was told.
    left=$(grep -lsz "^CONTAINERS_CONF=$work/" /proc/[0-9]*/environ | cut -d/ -f3)
    for process in $left; do
        kill "$process" 2>/dev/null && timeout 10 tail --pid="$process" -f /dev/null
    done
    podman rm --all --force --time 0 >/dev/null 2>&1
    buildah rm --all >/dev/null 2>&1
    sed 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .*/\1/' /proc/self/mountinfo | grep "^$work/" | sort -r |
        while read -r place; do umount "$place"; done
    # What is still mounted is not reached into.
    rm -rf --one-file-system "$work"
    # Those who watched the containers may take a moment to be gone.
    for _ in $(seq 50); do
        find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + 2>/dev/null
        [ -n "$(find /sys/fs/cgroup -type d -path "*/$group*" 2>/dev/null)" ] || break
        sleep 0.2
    done
    if [ -n "$made" ]; then
        umount "$system" && rmdir "$system"
    fi
}
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ ! -e "$system" ]; then
    mkdir -p "$system" && made=1 || exit 1
fi
mount -t tmpfs none "$system" 2>/dev/null || end "nothing can be mounted at $system"

# take FOLDER PROGRAM PLACE: copies a program and the libraries it is linked with.
take() {
    mkdir -p "$1$(dirname "$3")" && cp -L "$2" "$1$3" || return 1
    for library in $(ldd "$2" | grep -o '/[^ ]*'); do
        mkdir -p "$1$(dirname "$library")" && cp -L "$library" "$1$library" || return 1
    done
}

# Of what is said only errors are kept.
bud() { buildah bud --quiet --isolation chroot --pull-never "$@" >/dev/null; }

# As gcr.io/distroless/cc-debian12:nonroot has them: glibc, libgcc, the authorities that TLS trusts, a user.
run_base() {
    base=$work/run-base
    take "$base" "$relay" /none && rm "$base/none" && mkdir -p "$base/etc/ssl/certs" "$base/tmp" || return 1
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
        cp -L /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/" || return 1
    fi
    echo "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin" >"$base/etc/passwd"
    printf 'FROM scratch\nCOPY . /\nUSER 65532\nWORKDIR /home/nonroot\n' >"$work/run-base.Dockerfile"
    bud -f "$work/run-base.Dockerfile" -t localhost/run-base:1 "$base"
}

# What RUN needs, and a stand-in for cargo that is as strict about how it is called as it can be.
build_base() {
    base=$work/build-base
    for program in sh cp mkdir; do
        take "$base" "$(command -v $program)" /bin/$program || return 1
    done
    mkdir -p "$base/usr/local/bin" "$base/tmp" && cp "$relay" "$base/program" || return 1
    cat >"$base/usr/local/bin/cargo" <<'END'
#!/bin/sh
set -eu
for wanted in build --release --locked; do
    case " $* " in *" $wanted "*) ;; *) echo "cargo $* is called without $wanted" >&2; exit 1 ;; esac
done
[ "$SOURCE_DATE_EPOCH" = 0 ] || { echo "times get into the program" >&2; exit 1; }
case $RUSTFLAGS in *"--remap-path-prefix=$PWD="*) ;; *) echo "$PWD gets into the program" >&2; exit 1 ;; esac
[ -d /usr/local/cargo/registry ] || { echo "sources of packages are not kept between builds" >&2; exit 1; }
mkdir -p target/release
cp /program target/release/outbox-relay
END
    chmod 755 "$base/usr/local/bin/cargo"
    printf 'FROM scratch\nCOPY . /\n' >"$work/build-base.Dockerfile"
    bud -f "$work/build-base.Dockerfile" -t localhost/build-base:1 "$base"
}

# The last line of what was said, or else that.
last() { tr -d '\000' <"$work/log" | grep -a . | tail -n 1 | grep -a . || echo "$1"; }

# A container that has nothing of this repository in it says whether containers can be had here at all.
works() {
    settings "$1" && run_base &&
        podman run --rm --pull never --network host --cgroup-parent "/$group" --memory 64m --entrypoint '' \
            localhost/run-base:1 "$(ldd "$relay" | grep -o '/[^ ]*ld-linux[^ ]*')" --version
}
why="neither runc nor crun is installed"
runtime=
for program in runc crun; do
    command -v $program >/dev/null || continue
    attend works $program >"$work/log" 2>&1 && runtime=$program && break
    why=$(last "$program cannot be used")
done
[ -n "$runtime" ] || end "$why"
settings "$runtime"
build_base >"$work/log" 2>&1 || end "no base to build in can be made: $(last "no reason is given")"

REVISION=0123456789abcdef0123456789abcdef01234567
image() {
    bud --no-cache --timestamp 0 --build-arg BUILD_BASE=localhost/build-base:1 \
        --build-arg RUN_BASE=localhost/run-base:1 --build-arg REVISION="$REVISION" "$@" "$root"
}
# look IMAGE: mounts it at $seen.
look() {
    buildah from --pull-never --name "look-$2" "$1" >/dev/null && seen=$(buildah mount "look-$2")
}

# The Dockerfile's own first stage, whose COPY sees only what .dockerignore lets through.
stages() { image --target build -t localhost/built:1; }
context() {
    printf 'FROM scratch\nCOPY . /\n' >"$work/context.Dockerfile"
    bud -f "$work/context.Dockerfile" -t localhost/context:1 "$root" && look localhost/context:1 context || return 1
    (cd "$seen" && find . -type f | sort) >"$work/context"
    look localhost/built:1 built || return 1
    (cd "$seen/build" && find . -path ./target -prune -o -type f -print | sort) >"$work/copied"
    diff "$work/context" "$work/copied" || { echo "^ of the context, and copied"; return 1; }
    (cd "$root" && find ./Cargo.toml ./Cargo.lock ./sql ./src -type f | sort) >"$work/wanted"
    diff "$work/wanted" "$work/copied" || { echo "^ sources, and what is copied"; return 1; }
}
# rustc says what it read to make the program.
sources() {
    look localhost/built:1 sources && python3 "$here/check/image.py" sources "$relay.d" "$seen/build"
}
# Cargo reads all of a manifest, also what is said there of tests that are not copied.
manifest() {
    look localhost/built:1 manifest && cp -r "$seen/build" "$work/manifest" &&
        "$cargo" metadata --quiet --locked --offline --format-version 1 --manifest-path "$work/manifest/Cargo.toml" \
            --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" >"$work/metadata"
}
same_twice() {
    image -t localhost/outbox-relay:again || return 1
    for tag in "$version" again; do
        buildah inspect --type image "localhost/outbox-relay:$tag" >"$work/$tag.json" || return 1
    done
    python3 "$here/check/image.py" same "$work/$version.json" "$work/again.json"
}
described() {
    buildah inspect --type image "$reference" >"$work/image.json" &&
        python3 "$here/check/image.py" described "$work/image.json" "$root" "$REVISION"
}
# Beside its base it holds the program, and so neither a shell nor sources.
contents() {
    look localhost/run-base:1 base && (cd "$seen" && find . | sort) >"$work/before" || return 1
    look "$reference" image && (cd "$seen" && find . | sort) >"$work/after" || return 1
    added=$(comm -3 "$work/before" "$work/after" | tr -d '\t' | tr '\n' ' ')
    [ "$added" = "./usr ./usr/local ./usr/local/bin ./usr/local/bin/outbox-relay " ] ||
        { echo "beside the base there are: $added"; return 1; }
    cmp "$relay" "$seen/usr/local/bin/outbox-relay" || return 1
    stat=$(stat -c '%a %u:%g' "$seen/usr/local/bin/outbox-relay")
    [ "$stat" = "755 0:0" ] || { echo "the program is $stat, and 755 0:0 is wanted"; return 1; }
    risen=$(find "$seen" -perm /6000)
    [ -z "$risen" ] || { echo "setuid or setgid: $risen"; return 1; }
}
# Whatever else the program is linked with is not in the image's real base.
linked() {
    ldd "$relay" | awk '{ print $1 }' | grep -vE '^(linux-vdso|libc|libm|libgcc_s|libpthread|libdl|librt)\.so' |
        grep -v '/ld-linux' | grep . && { echo "^ not of glibc or libgcc"; return 1; }
    return 0
}
# As bare as the chart would have it, and more: nothing can be written, and there is no network.
bare() {
    podman run --rm --pull never --network none --read-only --read-only-tmpfs=false --cap-drop ALL \
        --security-opt no-new-privileges --cgroup-parent "/$group" "$reference" "$@" >"$work/printed" 2>&1
    ended=$?
    cat "$work/printed"
    return "$ended"
}
says_version() { bare --version && grep -x "outbox-relay $version" "$work/printed"; }
says_help() { bare run --help && grep -- --database-url-file "$work/printed"; }
# Its command is to run, and what that misses is said before anything is connected to.
says_what_is_missing() {
    bare
    [ $? = 64 ] && grep DATABASE_URL "$work/printed" && grep REDIS_URL "$work/printed"
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
reference=localhost/outbox-relay:$version
skipped "the image's real bases, and what cargo makes in there" "they come from a registry; stand-ins take their place"
check "image: the first stage is built, with all that it copies" stages
if ! podman image exists localhost/built:1; then
    skipped "everything else of the image, and the pod" "the first stage is not there"
    exit 1
fi
check "image: the context holds what is copied, and nothing else" context
if [ -e "$relay.d" ]; then
    check "image: all that the program was built from is copied" sources
else
    skipped "image: all that the program was built from is copied" "$relay.d, where rustc says it, is not there"
fi
cargo=${CARGO:-cargo}
if command -v "$cargo" >/dev/null && command -v rustc >/dev/null; then
    check "image: cargo can read what is copied, and the lock file fits" manifest
else
    skipped "image: cargo can read what is copied" "cargo is not there"
fi
check "image: it is built" image -t "$reference"
if ! podman image exists "$reference"; then
    skipped "everything else of the image, and the pod" "the image is not there"
    exit 1
fi
check "image: built twice, it has the same bytes" same_twice
check "image: user, program, port and labels" described
check "image: nothing but the program was added, and nothing is setuid" contents
check "image: the program needs nothing but glibc and libgcc" linked
check "image: --version, with nothing to write to and no capabilities" says_version
check "image: run --help, likewise" says_help
check "image: without settings it says which are missing" says_what_is_missing

helm=
for each in "$tools"/helm4/helm/helm "$tools"/helm3/helm/helm "$(command -v helm)"; do
    [ -x "$each" ] && helm=$each && break
done
python=$tools/python/bin/python
if [ -z "$helm" ]; then
    skipped "the pod" "check.sh has fetched no Helm, and none is installed"
elif ! "$python" -c 'import yaml' 2>/dev/null; then
    skipped "the pod" "check.sh has made no Python that reads YAML"
else
    export PYTHONPATH="$here"
    mkdir "$work/pod"
    attend "$python" "$here/check/started.py" "$work/pod" "$helm" "$root" "$reference" "/$group" || failed=1
fi
exit $failed
