# make demo   set up, then run the shipped quickstart study and print where its report is
# make test   set up with development tools, then run the tests
# make check  lint, types, import layers
# make lock | audit | sbom   lock files, known vulnerabilities of what they lock, bill of materials (dist/sbom.cdx.json)
# make bench  the benchmarks (long)
# make torture        kills, faults, hostile input: all campaigns whole, with their figures (hours; docs/reliability.md)
# make torture-short  the same, each for a minute or so

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check setup setup-dev bench torture torture-short clean lock audit sbom

demo: setup
	$(BIN)/optaware run

test: setup-dev
	$(BIN)/pytest -n $(JOBS)

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-dev
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/rewrite_throughput.py

# Each line is one campaign; `make torture-short` runs the same list with smaller counts. An interrupted one goes on
# with the same command. `JOBS` has no part in it: campaigns measure, so they run one after another.
torture: setup-dev
	$(BIN)/python benchmarks/torture/kills.py --count 200
	$(BIN)/python benchmarks/torture/kills.py --count 40 --signal TERM --only in-process subprocess subprocess-cold
	$(BIN)/python benchmarks/torture/kills.py --count 40 --signal INT --only in-process subprocess subprocess-cold
	$(BIN)/python benchmarks/torture/disk.py --count 600
	$(BIN)/python benchmarks/torture/drivers.py --count 30
	$(BIN)/python benchmarks/torture/determinism.py
	$(BIN)/python benchmarks/torture/endpoint.py --count 100000
	$(BIN)/python benchmarks/torture/fuzz.py --count 1000000 --seed 1 --atheris-share 0.2
	$(BIN)/python benchmarks/injection.py --store .torture/injection

torture-short: setup-dev
	$(BIN)/python benchmarks/torture/kills.py --count 8 --only in-process --out .torture/kills.json
	$(BIN)/python benchmarks/torture/disk.py --count 20 --out .torture/disk.json
	$(BIN)/python benchmarks/torture/drivers.py --count 3 --out .torture/drivers.json
	$(BIN)/python benchmarks/torture/determinism.py --count 6 --models tiny --out .torture/determinism.json
	$(BIN)/python benchmarks/torture/endpoint.py --count 4000 --out .torture/endpoint.json
	$(BIN)/python benchmarks/torture/fuzz.py --count 20000 --out .torture/fuzz.json

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# PyTorch comes first and by version: asked for through a dependency, pip would bring the build with several GB of CUDA.
# On a machine with a GPU, install the PyTorch build that suits it into $(VENV) before the first `make`; it is kept.
$(VENV)/.torch:
	$(PYTHON) -c "import sys; sys.exit('optaware needs Python 3.11 or newer, this is ' + sys.version.split()[0]) if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "torch==2.13.0"
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.installed

# Supply chain: its tools have dependencies of their own, so they get an environment of their own.
SUPPLY := .venv-supply
lock: $(SUPPLY)/.installed
	PATH="$(CURDIR)/$(SUPPLY)/bin:$$PATH" $(SUPPLY)/bin/python scripts/lock.py

audit: $(SUPPLY)/.installed
	$(SUPPLY)/bin/python scripts/audit.py

sbom: $(SUPPLY)/.installed
	mkdir -p dist
	$(SUPPLY)/bin/cyclonedx-py requirements requirements/user.lock --pyproject pyproject.toml --output-format JSON --output-reproducible -o dist/sbom.cdx.json
	@echo dist/sbom.cdx.json

$(SUPPLY)/.installed:
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet "uv>=0.9" "pip-audit>=2.9" "cyclonedx-bom>=7.0"
	touch $@

clean:
	rm -rf $(VENV) $(SUPPLY) .mypy_cache .ruff_cache .pytest_cache
