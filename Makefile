define help
Lineage-Regularized Matrix Factorization: the paper's results, regenerated.

  make reproduce    run all notebooks in order: every figure and table (offline once installed)
  make test         lint, unit tests, and the committed notebooks re-executed and compared
  make coverage     unit tests alone; fails if they leave more than 5% of lrmf/ out

  make setup        create .venv from requirements.lock
  make lab          open the notebooks in JupyterLab
  make notebooks    refresh the outputs committed with the notebooks
  make crawl        collect a snapshot of the live Hub into data/hub
  make bench        measure the solver against its peers (BENCH=quick: in about a minute)
  make paper        typeset the paper from the generated figures and tables
  make site         notebooks, figures, tables and documents as web pages in build/site
  make clean        remove build/ and caches; make distclean also .venv and simulated data

Variables of make reproduce:
  RUN=simulated     simulated Hub at paper scale (the default); figures go to figures/simulated
      full          the same data, every predictor tuned, every fold and control: half an hour
      smoke         the same in seconds, on a small simulated Hub
      hub           the snapshot that make crawl collected
      snapshot      any snapshot: RUN=snapshot SNAPSHOT=dir; figures go to figures/<name of dir>
  SEED=1            another seed than the one in params/$$(RUN).yaml
  DASK=tcp://...    run the folds on the Dask cluster of this scheduler
Variables of every target:
  PYTHON=python     use the environment of this interpreter (conda: environment.yml), not .venv
endef

RUN ?= simulated
SNAPSHOT ?=
SEED ?=
DASK ?=
PYTHON ?=
BENCH ?=

export LRMF_DASK := $(DASK)

NOTEBOOKS := 01_crawl 02_lineage 03_fit 04_baselines 05_cold_start 06_figures
committed := $(wildcard $(NOTEBOOKS:%=notebooks/%.ipynb))

.PHONY: help setup reproduce test coverage lab notebooks crawl bench paper site clean distclean environment FORCE
.DELETE_ON_ERROR:
help:
	@: $(info $(help))

# ---- environment

new_enough := import sys; sys.exit(sys.version_info < (3, 11))
tested := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

ifeq ($(PYTHON),)
python := .venv/bin/python
installed := .venv/.installed
else
python := $(PYTHON)
installed := environment
endif

setup: $(installed)
	@echo "Ready: $(python) is $$($(python) --version)."

.venv/.installed: requirements.lock pyproject.toml
	@.venv/bin/python -c '$(new_enough)' 2>/dev/null || { \
	    for p in python3 python3.13 python3.12 python3.11 ""; do \
	        $${p:-false} -c '$(tested)' 2>/dev/null && break; \
	    done; \
	    if [ -z "$$p" ] && python3 -c '$(new_enough)' 2>/dev/null; then \
	        p=python3; echo "Note: requirements.lock is tested with Python 3.11 to 3.13."; \
	    fi; \
	    [ -n "$$p" ] || { echo "make setup: Python 3.11 or newer is needed, but python3 is" \
	        "$$(python3 --version 2>/dev/null || echo missing). Install one that PATH finds" \
	        "(3.11 to 3.13 are tested), or activate the conda environment of environment.yml" \
	        "and add PYTHON=python." >&2; exit 1; }; \
	    $$p -c 'import ensurepip, venv' 2>/dev/null || { echo "make setup: $$p ($$($$p --version))" \
	        "has no venv or ensurepip module. Install it (Debian, Ubuntu: the package" \
	        "python3-venv), or use another Python." >&2; exit 1; }; \
	    echo "Creating .venv with $$($$p --version)"; \
	    $$p -m venv --clear .venv; }
	@echo "Installing requirements.lock into .venv"
	@$(python) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(python) -m pip install --quiet --disable-pip-version-check \
	    --no-build-isolation --no-deps --editable .
	@touch $@

environment:
	@command -v $(PYTHON) >/dev/null || { echo "PYTHON=$(PYTHON): no such program" >&2; exit 1; }
	@$(PYTHON) -c '$(new_enough)' || { echo "PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	    "3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; from importlib.util import find_spec; \
	    sys.exit(not all(map(find_spec, "numba pyarrow seaborn sklearn papermill nbval".split())))' \
	    || { echo "PYTHON=$(PYTHON) lacks packages; create its environment from environment.yml or" \
	    "requirements.lock, or drop PYTHON= to let make create .venv" >&2; exit 1; }

# ---- reproduce: every notebook depends on the one before, on the module and on its parameters

ifeq ($(RUN),snapshot)
data := $(patsubst %/,%,$(SNAPSHOT))
run := $(notdir $(abspath $(data)))
override_run := -p run '$(run)' -p snapshot '$(data)'
else
data := data/$(RUN:full=simulated)
run := $(RUN)
endif

ifneq ($(filter reproduce,$(MAKECMDGOALS)),)
ifeq ($(filter simulated full smoke hub snapshot,$(RUN)),)
$(error RUN=$(RUN) is unknown; use simulated, full, smoke, hub or snapshot)
else ifneq ($(RUN),snapshot)
ifneq ($(SNAPSHOT),)
$(error SNAPSHOT=$(SNAPSHOT) goes with RUN=snapshot)
endif
else ifneq ($(words $(SNAPSHOT)),1)
$(error RUN=snapshot needs SNAPSHOT=dir, a snapshot directory whose path has no spaces)
else ifeq ($(wildcard $(data)/snapshot.json),)
$(error SNAPSHOT=$(SNAPSHOT) is no snapshot: $(data)/snapshot.json does not exist)
else ifneq ($(filter simulated full smoke hub,$(run)),)
$(error SNAPSHOT=$(SNAPSHOT) would mix with RUN=$(run); use that, or rename the directory)
endif
endif

executed := build/$(run)/notebooks
variables := build/$(run)/variables
values := seed=$(SEED) snapshot=$(data)

reproduce: $(NOTEBOOKS:%=$(executed)/%.ipynb)
	@echo "Up to date: figures/$(run) (executed notebooks: $(executed))"

$(executed)/02_lineage.ipynb: $(executed)/01_crawl.ipynb
$(executed)/03_fit.ipynb: $(executed)/02_lineage.ipynb
$(executed)/04_baselines.ipynb: $(executed)/03_fit.ipynb
$(executed)/05_cold_start.ipynb: $(executed)/04_baselines.ipynb
$(executed)/06_figures.ipynb: $(executed)/05_cold_start.ipynb

$(NOTEBOOKS:%=$(executed)/%.ipynb): $(executed)/%.ipynb: notebooks/%.ipynb params/$(RUN).yaml \
    $(variables) $(wildcard lrmf/*.py lrmf/*/*.py lrmf/*/*.mplstyle) | $(installed)
	@echo "$* ($(run))"
	@$(python) notebooks/run.py $< $@ --params params/$(RUN).yaml $(override_run) \
	    $(if $(SEED),-p seed '$(SEED)')

ifeq ($(wildcard $(data)/snapshot.json),)
$(executed)/01_crawl.ipynb: FORCE
else ifneq ($(filter hub snapshot,$(RUN)),)
$(executed)/01_crawl.ipynb: $(data)/snapshot.json
endif
ifeq ($(wildcard figures/$(run)),)
$(executed)/06_figures.ipynb: FORCE
endif

# A changed SEED or SNAPSHOT makes everything of the run out of date.
ifneq ($(shell cat $(variables) 2>/dev/null),$(values))
$(variables): FORCE
endif
$(variables):
	@mkdir -p $(@D)
	@echo '$(values)' > $@

# ---- the rest

# Default parameters share build/simulated with `make reproduce`; another seed's files must go first.
define start_from_defaults
@[ "$$(cat build/simulated/variables 2>/dev/null)" = "seed= snapshot=data/simulated" ] \
    || rm -rf build/simulated
endef

test: $(installed)
	$(python) -m ruff check --quiet .
	$(python) -m ruff format --quiet --check .
	$(python) -c "from importlinter.cli import lint_imports_command as lint; lint()" --no-cache --no-logo
	$(python) -m pytest
ifneq ($(committed),)
	$(start_from_defaults)
	$(python) -m pytest --nbval --nbval-current-env $(committed)
endif

coverage: $(installed)
	@mkdir -p build
	$(python) -m coverage run -m pytest
	$(python) -m coverage report

notebooks: $(installed)
	$(start_from_defaults)
	@for notebook in $(committed); do \
	    echo "$$notebook"; $(python) notebooks/run.py $$notebook --inplace || exit; done

lab: $(installed)
	$(python) -m jupyterlab

crawl: $(installed)
	$(python) -m lrmf crawl data/hub

PEERS := torch cmfrec implicit
pip_bench := .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
    -c requirements.lock

# An environment of its own for the peers; one that cannot be installed is skipped by name.
.venv-bench/.installed: requirements.lock bench/requirements.lock | $(installed)
	@echo "Creating .venv-bench"
	@$(python) -m venv --clear .venv-bench
	@$(pip_bench) -r requirements.lock
	@for peer in $(PEERS); do $(pip_bench) -c bench/requirements.lock $$peer \
	    || echo "make bench: $$peer cannot be installed and is skipped" >&2; done
	@touch $@

bench: .venv-bench/.installed
	@.venv-bench/bin/python -m bench.run $(if $(filter quick,$(BENCH)),--quick)

# From the committed results alone, so it is always made anew; equal results give equal bytes.
paper: $(installed)
	@$(python) -m paper.build

site: $(installed)
	@$(python) -m website.build build/site

clean:
	rm -rf build paper/generated .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints notebooks/.ipynb_checkpoints
	rm -rf __pycache__ */__pycache__ */*/__pycache__ notebooks/*.partial.ipynb notebooks/*.failed.ipynb

distclean: clean
	rm -rf .venv .venv-bench *.egg-info data/simulated data/smoke
