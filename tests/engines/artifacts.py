"""Flink and Beam's runner for it, fetched by Maven once per machine and compared with the checksums that are written down.

``python -m tests.engines.artifacts`` fetches them; ``--write`` writes the checksums down anew, after a change of the versions.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

_DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "flink"
POM, SUMS = _DEPLOY / "pom.xml", _DEPLOY / "SHA256SUMS"


def directory() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "worldclip-tests" / "flink"


def sums_of(found: pathlib.Path) -> str:
    """The checksums of a directory's jars, as ``sha256sum`` writes them."""
    return "".join(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in sorted(found.glob("*.jar")))


def fetch(target: pathlib.Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    command = ["mvn", "--batch-mode", "--quiet", f"--file={POM}", "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@functools.cache
def jars() -> pathlib.Path:
    """The directory of all jars, fetched if need be. Raises RuntimeError when they are not those that are written down."""
    found = directory()
    if sums_of(found) != SUMS.read_text():
        fetch(found)
        if sums_of(found) != SUMS.read_text():
            raise RuntimeError(f"the jars in {found} are not those of {SUMS}")
    return found


if __name__ == "__main__":
    if "--write" in sys.argv:
        fetch(directory())
        SUMS.write_text(sums_of(directory()))
    print(jars())
