"""The suite on each Airflow and Python that the package promises, run on its wheel: `make test-matrix`.

Each pair has an environment of its own in .nox, which is kept. The tests and what they read are copied to a folder
without the package's source, so that nothing but the wheel can be imported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).resolve().parent
# Airflow before 3.1 refuses Python 3.13.
PYTHONS = {
    "2.11": ["3.11", "3.12"],
    "3.0": ["3.11", "3.12"],
    "3.1": ["3.11", "3.12", "3.13"],
    "3.2": ["3.11", "3.12", "3.13"],
    "3.3": ["3.11", "3.12", "3.13"],
    "3.4": ["3.11", "3.12", "3.13"],
}
PAIRS = {
    f"{airflow}-{python}": (python, f"airflow-{airflow}")
    for airflow, pythons in PYTHONS.items()
    for python in pythons
}
# The lowest version of everything that pyproject.toml names.
PAIRS["lowest"] = ("3.11", "lowest")
NEEDED = [
    *("tests", "benchmarks", "dags_examples", "demo", "docs", "pyproject.toml"),
    *("README.md", "README.zh.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
]
# Thousands of killed tries, and a whole Airflow with all its processes, in a browser too: `make proof` runs them on
# one Airflow.
LEFT_OUT = ["tests/browser", "tests/chaos", "tests/real"]
# Printed where the tests run, by what they run on.
FACTS = """
import platform, sys
from importlib.metadata import version
import airflow_provider_lingyang
assert airflow_provider_lingyang.__file__.startswith(sys.prefix), "this is not the wheel that was installed"
print(version("apache-airflow"), platform.python_version())
"""

nox.options.sessions = ["suite", "table"]
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = True

# pyenv puts names on PATH that need not run; what it has is found all the same.
pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
os.environ["PATH"] = os.pathsep.join(
    [*map(str, sorted(pyenv.glob("versions/3.1?.*/bin"))), os.environ["PATH"]]
)

results: dict[str, list[str]] = {}


@nox.session
@nox.parametrize("python,pair", [nox.param(python, pair, id=pair) for pair, (python, _) in PAIRS.items()])
def suite(session: nox.Session, pair: str) -> None:
    """Run the tests on one pair; what follows -- goes to pytest."""
    _, name = PAIRS[pair]
    results[pair] = [pair, "not installed"]
    wheel = max((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    pinned = ["--no-compile", "--constraint", str(ROOT / "constraints" / f"{name}.txt")]
    session.install(*pinned, f"{wheel}[sqlite,test]")
    # Its own dependency, mysqlclient, has no wheel and needs a compiler. The tests use another client.
    session.install(*pinned, "--no-deps", "apache-airflow-providers-mysql")
    # pip takes a wheel of the same version for the same wheel.
    session.install("--no-compile", "--no-deps", "--force-reinstall", str(wheel))

    with tempfile.TemporaryDirectory(prefix="lingyang-matrix-") as folder, session.chdir(folder):
        for needed in NEEDED:
            source, target = ROOT / needed, Path(folder, needed)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        env = {
            "PYTHONPATH": None,
            "PYTHONDONTWRITEBYTECODE": None,
            "LINGYANG_SDKS": str(ROOT / ".venv-sdks"),
            # mysqlclient, which needs a compiler, is not there.
            "LINGYANG_REQUIRE_SERVERS": None,
        }
        facts = str(session.run("python", "-c", FACTS, silent=True, env=env)).split()
        results[pair] = [*facts[-2:], "no result"]
        report = Path(folder, "report.xml")
        options = ["-q", f"--junitxml={report}", *(f"--ignore={path}" for path in LEFT_OUT)]
        try:
            session.run("python", "-m", "pytest", *options, *session.posargs, env=env)
        finally:
            if report.exists():
                results[pair] = [*facts[-2:], *counts(report)]


def counts(report: Path) -> list[str]:
    """Return passed, failed, skipped and seconds of a JUnit report."""
    found = next(ElementTree.parse(report).iter("testsuite"))
    tests, failures, errors, skipped = (
        int(found.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return [str(tests - failed - skipped), str(failed), str(skipped), f"{float(found.get('time', 0)):.0f}"]


@nox.session(python=False)
def table(session: nox.Session) -> None:
    """Print what the suite of each pair that ran before ended with, as the README has it."""
    print("\n| Airflow | Python | passed | failed | skipped | seconds |\n|---|---|---|---|---|---|")
    for pair, cells in results.items():
        lowest = ["lowest: " + cells[0], *cells[1:]] if pair == "lowest" else cells
        print(f"| {' | '.join(lowest)} |")
