#!/bin/sh
# Install ds2d from this folder, without a network:   ./install.sh [FOLDER]      (default: /opt/ds2d)
# Every file is checked against SHA256SUMS, every package against its hash. Running it again upgrades.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-/opt/ds2d}
python=${DS2D_PYTHON:-python3}
wanted=$(basename "$here" | sed -n 's/.*-py\(3\.[0-9]*\)-.*/\1/p')
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$found" != "$wanted" ]; then
    echo "error: this bundle is for Python $wanted, and $python is $found; another one: DS2D_PYTHON=/usr/bin/python$wanted $0" >&2
    exit 1
fi
(cd "$here" && sha256sum --quiet --check SHA256SUMS)
"$python" -m venv "$place"
"$place/bin/python" -m pip install --quiet --no-index --no-deps --require-hashes --find-links "$here/wheels" -r "$here/requirements.txt"
cp -r "$here/share" "$place/"
echo "installed in $place; to begin:"
echo "  $place/bin/ds2d init && $place/bin/ds2d serve"
echo "As a service: ln -s $place/bin/ds2d /usr/local/bin/ds2d, then systemd/ in this folder and $place/share/doc/ds2d/html/service.html"
