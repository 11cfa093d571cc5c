"""Make a virtual environment from pinned versions, or do nothing when it is already the right one.

    python3 demo/environment.py                               # the clone's own .venv
    python3 demo/environment.py DIR CONSTRAINTS WHAT...       # another one; WHAT is given to pip

An environment counts as made when its stamp holds the fingerprint of everything that decided what is in
it. Anything else (an interrupted install, another constraints file, a moved clone) is thrown away and
made again, so there is no half-made state to repair.
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
# Installed without what it depends on: mysqlclient has no wheel and needs a compiler. Most tests use another client;
# .ci/run adds it for the others.
CLONE_ALONE = ["apache-airflow-providers-mysql"]
# Inside an activated environment this is the interpreter it was made from: it survives remaking that environment.
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
    """Install into an empty `target`, `alone` without dependencies; what pip says goes to its install.log."""
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
    # Not compiling everything ahead saves a third of the time: Python compiles what it imports.
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
    """Whether the environment had to be made."""
    wanted, stamp = fingerprint(target, constraints, requirements, alone), target / "stamp"
    # Two runs at once: the second waits for the first, then finds the work done. The lock ends with its process.
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return False
        print(f"installing into {target} (log: {target}/install.log)", flush=True)
        make(target, constraints, requirements, alone)
        stamp.write_text(wanted)
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
        # pip repeats its warnings for every package; what went wrong is in the other lines.
        lines = [line for line in log.read_text().splitlines() if not line.startswith("WARNING:")]
        print(*lines[-15:], sep="\n")
        print(f"installing failed (status {error.returncode}), log: {log}", flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
