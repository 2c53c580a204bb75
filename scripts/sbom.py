"""A CycloneDX parts list of what a release installs. The same lock gives the same bytes."""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from ds2d import __version__
from scripts.supply_chain import LOCKS

SPEC = "1.5"


def parts(lock: str) -> list[dict[str, Any]]:
    """The components of a lock, each with the hashes of all its files."""
    found = []
    for name, version, rest in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)((?:.*\\\n)*.*)", lock, re.MULTILINE):
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
        hashes = [{"alg": "SHA-256", "content": digest} for digest in re.findall(r"sha256:([0-9a-f]{64})", rest)]
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": hashes})
    return found


def document(lock: str) -> dict[str, Any]:
    """The whole list."""
    own = f"pkg:pypi/ds2d@{__version__}"
    components = parts(lock)
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + lock)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": own, "name": "ds2d", "version": __version__, "purl": own}},
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [part["bom-ref"] for part in components]}],
    }


def main(path: Path) -> int:
    """Write it."""
    json.dump(document(path.read_text()), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else LOCKS / "run.txt"))
