"""Make a virtual environment from pinned versions, unless it is up to date.

    python3 demo/environment.py                               # the clone's own .venv
    python3 demo/environment.py DIR CONSTRAINTS WHAT...       # another one; WHAT is given to pip

An environment is up to date when its stamp holds the fingerprint of all that determines its content. Any other (an
interrupted install, another constraints file, a moved clone) is removed and made again: none is ever repaired.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLONE = (ROOT / ".venv", ROOT / "constraints" / "airflow-3.3.txt", ["-e", ".[sqlite,test,lint,bench]"])
# Installed without its dependencies: mysqlclient has no wheel and needs a compiler. Most tests use another client;
# .ci/run adds it for the others.
CLONE_ALONE = ["apache-airflow-providers-mysql"]
# In an activated environment, the interpreter that made it: it survives making that environment again.
PYTHON = getattr(sys, "_base_executable", sys.executable)
# The pip that comes with Python 3.11 needs twice as long for the same install.
PIP = "pip==26.3"


def fingerprint(target: Path, constraints: Path, requirements: list[str], alone: list[str]) -> str:
    project = ROOT / "pyproject.toml"
    facts = [
        sys.version,
        PYTHON,
        str(target),
        PIP,
        *requirements,
        *alone,
        constraints.read_text(),
        project.read_text(),
    ]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def make(target: Path, constraints: Path, requirements: list[str], alone: list[str]) -> None:
    """Install into an empty `target`, `alone` without dependencies. Its install.log holds pip's output."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    pip = [
        str(target / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--no-input",
    ]
    # Without compiling ahead it takes a third less time: Python compiles what it imports.
    pinned = ["--no-compile", "--constraint", str(constraints), "--build-constraint", str(constraints)]
    commands = [
        [PYTHON, "-m", "venv", str(target)],
        [*pip, PIP],
        [*pip, *pinned, *requirements],
    ]
    if alone:
        commands.append([*pip, *pinned, "--no-deps", *alone])
    with (target / "install.log").open("w") as log:
        for command in commands:
            subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def ensure(target: Path, constraints: Path, requirements: list[str], alone: list[str]) -> bool:
    """Make the environment unless it is up to date; return whether it was made."""
    expected, stamp = fingerprint(target, constraints, requirements, alone), target / "stamp"
    # Of two concurrent runs, the second waits and then has nothing to do. The lock ends with its process.
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == expected:
            return False
        print(f"installing into {target} (log: {target}/install.log)", flush=True)
        make(target, constraints, requirements, alone)
        stamp.write_text(expected)
    return True


def main() -> int:
    target, constraints, requirements = CLONE
    alone = CLONE_ALONE
    if len(sys.argv) > 1:
        if len(sys.argv) < 4:
            print(__doc__)
            return 2
        target, constraints, requirements = (
            Path(sys.argv[1]).absolute(),
            Path(sys.argv[2]).absolute(),
            sys.argv[3:],
        )
        alone = []
    try:
        ensure(target, constraints, requirements, alone)
    except subprocess.CalledProcessError as error:
        log = target / "install.log"
        # pip repeats its warnings for every package; the other lines have the error.
        lines = [line for line in log.read_text().splitlines() if not line.startswith("WARNING:")]
        print(*lines[-15:], sep="\n")
        print(f"installing failed (status {error.returncode}), log: {log}", flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
