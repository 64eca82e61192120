# The two commands a stranger needs are `make compare` and `make test`.
VENV   ?= .venv
PYTHON ?= python3
PY     := $(VENV)/bin/python
READY  := $(VENV)/.installed
# A comparison gets a folder of its own, so that no earlier one is overwritten.
ifndef SWEEP
SWEEP  := runs/compare-$(shell date +%Y%m%d-%H%M%S)
endif
export HF_HUB_OFFLINE ?= 1

.PHONY: install compare live test test-long check docs clean

install: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Train the zoo side by side under one budget, print the table, write report.html.
compare: $(READY)
	$(PY) -m harness.train experiment=compare hydra.sweep.dir=$(SWEEP)
	@cp $(SWEEP)/report.html report.html
	@echo "report.html written: open it in a browser"

# A page on this machine: runs as they train, side by side; trainings started and stopped.
live: $(READY)
	$(PY) -m harness.live --open

# Each test process gets one thread: two processes on two cores beat two threads in one.
test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m "not long"

test-long: $(READY)
	$(PY) -m pytest -m long

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The documentation as a website that needs no network: site/index.html.
docs: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(PY) -m mkdocs build --strict --quiet
	@echo "site/index.html written: open it in a browser (for the search: python -m http.server -d site)"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
