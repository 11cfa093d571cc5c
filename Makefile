# Works on a fresh clone with nothing but make and Python 3.11 or later.
# PYTHON=/path/to/python chooses another interpreter.

VENV := .venv
# Where it is set, as some containers do, every process of Airflow compiles everything anew, which takes seconds each.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter that really runs (the names a version manager puts on PATH need not), is new enough
# and can make virtual environments.
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
FIND_PYTHON = for py in $(PYTHONS); do \
	  "$$py" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break; py=; \
	done; \
	if [ -z "$$py" ]; then \
	  echo "No Python 3.11 or later with its venv module found. Tried: $(PYTHONS)." >&2; \
	  echo "Name one: make PYTHON=/path/to/python3.12 $@    (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; \
	fi

# How tests are shared out is in tests/conftest.py, which wants them in their order.
WORKERS := -n logical --maxprocesses 4 --no-loadscope-reorder
# They need a whole machine: thousands of killed tries, a real Airflow with all its processes, a browser.
HEAVY := tests/browser tests/chaos tests/real
PYTEST := $(VENV)/bin/python -m pytest

.PHONY: help environment demo test proof test-matrix chaos fleet bench screenshots lint format wheel sdks clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo:  ## Run a campaign of 1,200 customers from a SQL table through the sandbox, and check it
	@$(FIND_PYTHON); exec "$$py" demo/run.py

test: environment  ## Run the tests that need nothing but Python (ARGS="-k name" for some of them)
	@$(VENV)/bin/python $(if $(COVERAGE),-m coverage run) -m pytest $(WORKERS) -m "not proof" $(ARGS)

# First what may share the machine, then what wants it alone.
proof: environment sdks  ## Run all others: servers, Airflow's processes, kills, a model at length, a browser (TESTS=tests/real: this)
ifdef TESTS
	@LINGYANG_PROOF=1 $(PYTEST) -m "proof or at_length" $(TESTS) $(ARGS)
else
	@$(PYTEST) $(WORKERS) -m proof $(HEAVY:%=--ignore=%) $(ARGS)
	@LINGYANG_PROOF=1 $(PYTEST) -m "proof or at_length" tests/model $(HEAVY) $(ARGS)
endif

test-matrix: environment sdks wheel  ## Run the tests on the wheel with each Airflow and Python (PAIRS="2.11-3.12 lowest": these)
	@$(VENV)/bin/nox -s $(if $(PAIRS),$(foreach pair,$(PAIRS),"suite($(pair))"),suite) table -- $(WORKERS) $(ARGS)

chaos: environment  ## Run N campaigns (default 1000) through everything that can go wrong (SEED=7: this one)
	@$(VENV)/bin/python tests/chaos/run.py --seeds $(or $(SEED),1000-$(shell expr 999 + $(or $(N),1000)))

fleet:  ## Disturb a real fleet while it sends, and compare what it leaves (N=2000: sooner; needs PostgreSQL and Redis)
	@$(FIND_PYTHON); "$$py" demo/environment.py $(VENV)-fleet constraints/airflow-3.3.txt \
	  -e . apache-airflow-providers-celery apache-airflow-providers-postgres
	@exec $(VENV)-fleet/bin/python tests/fleet/run.py --recipients $(or $(N),20000)

bench: environment sdks  ## Measure everything that the README has figures of (ARGS=--quick: sooner; ARGS=lookups: one)
	@$(VENV)/bin/python benchmarks/run.py $(ARGS)

screenshots: environment  ## Make the pictures in docs/ again, with a real browser (needs Chromium and PostgreSQL)
	@LINGYANG_SCREENSHOTS=docs $(VENV)/bin/python -m pytest tests/browser

lint: environment  ## Check style, layering and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: environment  ## Repair what the style check can repair by itself
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

wheel: environment  ## Build the wheel into dist/
	@PIP_BUILD_CONSTRAINT=constraints/airflow-3.3.txt $(VENV)/bin/python -m build --wheel --outdir dist . > $(VENV)/build.log 2>&1 \
	  || { cat $(VENV)/build.log; exit 1; }
	@ls dist/*.whl

environment:  ## Make .venv: Airflow 3.3, this package (editable), what tests and linters need
	@$(FIND_PYTHON); "$$py" demo/environment.py

sdks:  ## Make .venv-sdks: other people's clients, for the tests that need them
	@$(FIND_PYTHON); "$$py" demo/environment.py $(VENV)-sdks constraints/sdks.txt \
	  taobaopy taobaopyx topsdk 'legacy-cgi; python_version >= "3.13"'

clean:  ## Remove everything that the other targets made
	rm -rf $(VENV) $(VENV).lock $(VENV)-sdks $(VENV)-sdks.lock $(VENV)-fleet $(VENV)-fleet.lock .nox .demo .fleet .fleet.lock dist .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
