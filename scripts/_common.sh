# Sourced by the scripts beside it: messages, a Python that is new enough, and the virtual environment.
#
# Rule: a second run costs nothing. An environment is stamped with a hash of the locks it was made from, after
# everything went well; a run that was cut short leaves no stamp and is taken up again.
# Surprise: the environment is used as `.venv/bin/python -m TOOL`, never `.venv/bin/TOOL`, because the shebangs in
# there are absolute and break when the clone is moved.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; else bold='' red='' plain=''; fi

say() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }

die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Prints the Python to use: $DS2D_PYTHON, or the first on the PATH that is 3.11 or newer.
find_python() {
    local candidate
    for candidate in ${DS2D_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    [ -z "${DS2D_PYTHON:-}" ] || die "DS2D_PYTHON=$DS2D_PYTHON is no Python 3.11 or newer"
    die "no Python 3.11 or newer found (python3 is: $(python3 --version 2>&1 || true))" \
        "install one (Debian, Ubuntu: apt install python3.11 python3.11-venv)," \
        "or say where it is: DS2D_PYTHON=/path/to/python3 $0"
}

make_venv() {
    local base
    base=$(find_python)
    say "making .venv with $("$base" --version)"
    rm -rf "$VENV"
    if ! "$base" -m venv "$VENV"; then
        rm -rf "$VENV"
        die "this Python cannot make virtual environments" "Debian, Ubuntu: apt install python3-venv, then run this again"
    fi
}

# What an environment was made from; changes when a lock, the package's metadata or its place does.
fingerprint() {
    (cd "$ROOT" && echo "$ROOT" && cat "$@" requirements/build.txt setup.cfg pyproject.toml) | sha256sum
}

# is_current STAMP LOCK: true if .venv holds what LOCK asks for.
is_current() { [ -f "$VENV/$1" ] && [ "$(cat "$VENV/$1")" = "$(fingerprint "$2")" ]; }

# show_progress TOTAL: pip's many words on standard input, one short line a package on standard output.
show_progress() {
    local count=0 line name
    while read -r line; do
        case $line in
            "Collecting "* | "Processing "* | "Requirement already satisfied: "*)
                count=$((count + 1))
                name=${line#Requirement already satisfied: }
                name=${name#* }
                name=${name%% *} name=${name%%-py[0-9]*} name=${name%%-cp[0-9]*}
                if [ -t 1 ]; then printf '\r  %d/%d  %s\e[K' "$count" "$1" "${name##*/}"; else echo "  $count/$1  ${name##*/}"; fi
                ;;
            "Installing collected packages"*)
                if [ -t 1 ]; then printf '\r  unpacking\e[K\n'; else echo "  unpacking"; fi
                ;;
        esac
    done
}

# pip_install LOCK...: exactly the locked files, nothing else, and no install script of anybody's. A lock is whole, so pip
# has nothing to resolve: it would take up a newer release for an extra that a package asks of another, and refuse its hash.
pip_install() {
    local lock arguments=()
    for lock in "$@"; do arguments+=(-r "$lock"); done
    "$PYTHON" -m pip install --no-deps --require-hashes --only-binary :all: "${arguments[@]}" 2>&1 |
        tee "$VENV/pip.log" | show_progress "$(cat "$@" | grep -c ==)"
}

# prepare_venv run|dev: .venv with the locked packages and ds2d itself. `dev` holds all of `run` and serves for both.
prepare_venv() {
    local lock="requirements/$1.txt"
    new_enough "$PYTHON" || make_venv
    if is_current .made-from-dev requirements/dev.txt || is_current ".made-from-$1" "$lock"; then return; fi
    say "installing the locked packages of $lock (about half a minute the first time)"
    if ! (cd "$ROOT" && pip_install requirements/build.txt "$lock" &&
        "$PYTHON" -m pip install --quiet --no-deps --no-build-isolation --editable . >>"$VENV/pip.log" 2>&1); then
        tail -15 "$VENV/pip.log" >&2
        die "the packages could not be installed; the end of .venv/pip.log stands above" \
            "no network? pip needs PyPI or a mirror of it (PIP_INDEX_URL); behind a proxy it reads HTTPS_PROXY" \
            "a hash that differs means that the index gave another file than the locked one: do not go on" \
            "what was installed so far is kept: run this again to go on"
    fi
    fingerprint "$lock" >"$VENV/.made-from-$1"
}
