# The two commands a stranger needs are `make compare` and `make test`.
VENV   ?= .venv
PYTHON ?= python3
PY     := $(VENV)/bin/python
# What is installed is what was tested: constraints.txt pins every package.
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY  := $(VENV)/.installed
TOOLS  := $(VENV)/.installed-tools
# A comparison gets a folder of its own, so that no earlier one is overwritten.
ifndef SWEEP
SWEEP  := runs/compare-$(shell date +%Y%m%d-%H%M%S)
endif
export HF_HUB_OFFLINE ?= 1

# The steps of the course from a bigram to a transformer, each a recipe (conf/experiment/ladder_*).
STEPS := 1_bigram 2_positions 3_one_head 4_multi_head 5_feed_forward 6_residual 7_blocks 8_norm 9_dropout
comma := ,
empty :=
LADDER := $(subst $(empty) $(empty),$(comma),$(addprefix ladder_,$(STEPS)))

.PHONY: install compare compare-seeds ladder live test test-newest test-long check docs clean

# What training, comparing and the live page need.
install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

# What the tests and checks need on top of it.
$(TOOLS): $(READY)
	$(PIP) -e '.[dev]'
	@touch $@

# Train the zoo side by side under one budget, a job on each core of a CPU, and score every token of
# every run again; print the table, write report.html. The recurrent nets would take as long as all
# of these: make compare MODELS=model=lstm,gpt,ngram
MODELS := model=mlp,gpt,wavenet,megabyte,ngram,bigram
compare: $(READY)
	$(PY) -m harness.train experiment=compare $(MODELS) $(SEEDS) sweep.devices=cores hydra.sweep.dir=$(SWEEP)
	-$(PY) -m harness.verify $(SWEEP) --complete
	$(PY) -m harness.compare $(SWEEP) --complete --out report.html
	@echo "report.html written: open it in a browser"

# All models of the recipe with five seeds: what a claim needs.
compare-seeds:
	$(MAKE) compare MODELS= SEEDS=seed=0,1,2,3,4

# Nine steps from a bigram to a transformer, and what each gains: ladder.html. With more seeds:
# make ladder SEEDS=seed=0,1,2
ladder: SWEEP := $(subst compare,ladder,$(SWEEP))
ladder: $(READY)
	$(PY) -m harness.train -m experiment=$(LADDER) train.steps=2000 eval.every=500 optimizer.lr=3e-3 $(SEEDS) hydra.sweep.dir=$(SWEEP)
	$(PY) -m harness.compare $(SWEEP) --ladder --out ladder.html
	@echo "ladder.html written: open it in a browser"

# A page on this machine: runs as they train, side by side; trainings started and stopped.
live: $(READY)
	$(PY) -m harness.live --open

# Each test process gets one thread; three keep two cores busy. Each begins with a third of the files,
# so that what a file's tests share is made once.
test: $(TOOLS)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 --dist worksteal -m "not long"

# The newest release of everything but torch, without constraints and upper bounds. Failures say which
# bound to keep; a clean run, which to raise.
NEWEST := .venv-newest
test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python tests/requirements.py newest > $(NEWEST)/requirements.txt
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(NEWEST)/requirements.txt
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest -n 3 --dist worksteal -m "not long"

test-long: $(TOOLS)
	$(PY) -m pytest -m long

check: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The documentation as a website that needs no network: site/index.html.
docs: $(READY)
	$(PIP) -e '.[docs]'
	$(PY) -m mkdocs build --strict --quiet
	@echo "site/index.html written: open it in a browser (for the search: python -m http.server -d site)"

clean:
	rm -rf $(VENV) $(NEWEST) .pytest_cache .mypy_cache .ruff_cache
