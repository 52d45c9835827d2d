define help
Lineage-Regularized Matrix Factorization: the paper's results, regenerated.

  make reproduce    run all notebooks in order: every figure and table (offline once installed)
  make test         lint, unit tests, and the committed notebooks re-executed and compared
  make test-all     the same, then the tests that are slow for a reason

  make setup        create .venv from requirements.lock
  make lab          open the notebooks in JupyterLab
  make notebooks    refresh the outputs committed with the notebooks
  make publish      executed notebooks of a real run, aggregates only, into notebooks/executed
  make crawl        collect a snapshot of the live Hub into data/hub
  make bench        measure the solver against its peers (BENCH=quick: in about a minute)
  make coverage     all unit tests; fails if they leave more than 5% of lrmf/ out
  make check-claims recompute what is cheap, compare claims, README and docs with the results
  make paper        typeset the paper from the generated figures and tables
  make site         notebooks, figures, tables and documents as web pages in build/site
  make clean        remove build/ and caches; make distclean also .venv and simulated data

Variables of make reproduce and make publish:
  RUN=simulated     simulated Hub at paper scale (the default); figures go to figures/simulated
      full          the same data, every predictor tuned, every fold and control: over an hour
      smoke         the same in seconds, on a small simulated Hub
      hub           the snapshot that make crawl collected
      snapshot      any snapshot: RUN=snapshot SNAPSHOT=dir; figures go to figures/NAME of dir,
                    parameters come from params/NAME.yaml if there is one
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
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

# Paths may hold any character but a line break: they are kept as they are typed, handed to the shell
# in quotes, and never become a target or a prerequisite, which make would take apart.
override SNAPSHOT := $(value SNAPSHOT)
override PYTHON := $(value PYTHON)
quote = '$(subst ','\'',$1)'

# Those about what to do with a forecast may be left out of a checkout.
there = $(patsubst notebooks/%.ipynb,%,$(wildcard notebooks/$1.ipynb))
NOTEBOOKS := $(call there,00_quickstart) 01_crawl 02_lineage 03_fit 04_baselines 05_cold_start 06_figures
NOTEBOOKS += $(call there,07_decisions)
committed := $(wildcard $(NOTEBOOKS:%=notebooks/%.ipynb))

.PHONY: help setup reproduce test test-all coverage lint side-by-side unit-tests lab notebooks publish
.PHONY: $(NOTEBOOKS:%=compare-%) crawl bench check-claims paper site clean distclean environment FORCE
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
python := $(call quote,$(PYTHON))
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
	@case $(call quote,$(CURDIR)) in \
	    *['$$''{}']*) echo "Note: setuptools cannot install from a path with \$$, { or }; the program" \
	        "is .venv/bin/python -m lrmf here"; \
	        pwd > "$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lrmf.pth";; \
	    *) $(python) -m pip install --quiet --disable-pip-version-check \
	        --no-build-isolation --no-deps --editable .;; \
	esac
	@touch $@

environment:
	@command -v $(python) >/dev/null || { \
	    printf 'PYTHON=%s: no such program\n' $(python) >&2; exit 1; }
	@$(python) -c '$(new_enough)' || { printf 'PYTHON=%s is %s; 3.11 or newer is needed\n' \
	    $(python) "$$($(python) --version 2>&1)" >&2; exit 1; }
	@$(python) -c 'import sys; from importlib.util import find_spec; \
	    sys.exit(not all(map(find_spec, "click numba pyarrow seaborn sklearn papermill nbval".split())))' \
	    || { printf 'PYTHON=%s lacks packages; create its environment from environment.yml or %s\n' \
	    $(python) "requirements.lock, or drop PYTHON= to let make create .venv" >&2; exit 1; }

# ---- reproduce: a notebook depends on those that it reads from, on the module and on its parameters

# A run of a snapshot has the name of its folder; what make itself builds of it stands in build/$(slug),
# which is the same unless the name holds characters that make cannot take.
ifeq ($(RUN),snapshot)
data := $(SNAPSHOT)
run := $(shell CDPATH=; cd -- $(call quote,$(data)) 2>/dev/null && basename -- "$$PWD")
slug := $(shell printf %s $(call quote,$(run)) | LC_ALL=C tr -c 'A-Za-z0-9._-' _ | cut -c1-100)
ifneq ($(slug),$(run))
slug := $(slug)-$(firstword $(shell printf %s $(call quote,$(run)) | cksum))
endif
override_run := -p run $(call quote,$(run)) -p snapshot $(call quote,$(data))
else
data := data/$(RUN:full=simulated)
run := $(RUN)
slug := $(RUN)
endif
has_data := $(shell test -f $(call quote,$(data))/snapshot.json && echo yes)

ifneq ($(filter reproduce publish,$(MAKECMDGOALS)),)
ifeq ($(filter simulated full smoke hub snapshot,$(RUN)),)
$(error RUN=$(RUN) is unknown; use simulated, full, smoke, hub or snapshot)
else ifneq ($(RUN),snapshot)
ifneq ($(SNAPSHOT),)
$(error SNAPSHOT=$(SNAPSHOT) goes with RUN=snapshot)
endif
else ifeq ($(SNAPSHOT),)
$(error RUN=snapshot needs SNAPSHOT=dir, a snapshot directory)
else ifeq ($(has_data),)
$(error SNAPSHOT=$(SNAPSHOT) is no snapshot: $(data)/snapshot.json does not exist)
else ifneq ($(filter simulated full smoke hub,$(slug)),)
$(error SNAPSHOT=$(SNAPSHOT) would mix with RUN=$(run); use that, or rename the directory)
endif
endif

executed := build/$(slug)/notebooks
# A snapshot may have parameters of its own, named like its folder.
parameters := $(firstword $(wildcard params/$(slug).yaml) params/$(RUN).yaml)
variables := build/$(slug)/variables
values := seed=$(SEED) snapshot=$(data)

# Two notebooks at a time, those of the longest chain (01, 04, 05, 06) first.
ifeq ($(MAKECMDGOALS),reproduce)
MAKEFLAGS += -j2
endif

reproduce: $(executed)/06_figures.ipynb $(NOTEBOOKS:%=$(executed)/%.ipynb)
	@printf 'Up to date: figures/%s (executed notebooks: %s)\n' $(call quote,$(run)) $(executed)

run-after = $(1:%=$(executed)/%.ipynb): $(2:%=$(executed)/%.ipynb)
$(call run-after,02_lineage 03_fit 04_baselines 07_decisions,01_crawl)
$(call run-after,05_cold_start,04_baselines)
$(call run-after,06_figures,05_cold_start 02_lineage 03_fit)

$(NOTEBOOKS:%=$(executed)/%.ipynb): $(executed)/%.ipynb: notebooks/%.ipynb $(parameters) \
    $(variables) $(wildcard lrmf/*.py lrmf/*/*.py lrmf/*/*.mplstyle notebooks/*.py) | $(installed)
	@printf '%s (%s)\n' $* $(call quote,$(run))
	@$(python) notebooks/run.py $< $@ --params $(parameters) $(override_run) \
	    $(if $(SEED),-p seed $(call quote,$(SEED)))

# A snapshot that was not simulated may have been made anew.
newer := $(shell test $(call quote,$(data))/snapshot.json -nt $(executed)/01_crawl.ipynb && echo yes)
ifeq ($(has_data),)
$(executed)/01_crawl.ipynb: FORCE
else ifneq ($(and $(filter hub snapshot,$(RUN)),$(newer)),)
$(executed)/01_crawl.ipynb: FORCE
else ifeq ($(shell test -d figures/$(call quote,$(run)) && echo yes),)
$(executed)/01_crawl.ipynb: FORCE
endif

# A changed SEED or SNAPSHOT makes everything of the run out of date.
ifneq ($(shell cat $(variables) 2>/dev/null),$(values))
$(variables): FORCE
endif
$(variables):
	@mkdir -p $(@D)
	@printf '%s\n' $(call quote,$(values)) > $@

# ---- the rest

# Default parameters share build/simulated with `make reproduce`; another seed's files must go first.
define start_from_defaults
@[ "$$(cat build/simulated/variables 2>/dev/null)" = "seed= snapshot=data/simulated" ] \
    || rm -rf build/simulated
endef

# Dozens of processes start: none compiles the sources anew, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(installed) lint
	$(start_from_defaults)
	@$(MAKE) --no-print-directory -j3 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) \
	    side-by-side

lint: $(installed)
	$(python) -m ruff check --quiet .
	$(python) -m ruff format --quiet --check .
	$(python) -c "from importlinter.cli import lint_imports_command as lint; lint()" --no-cache --no-logo
	@if [ -x node_modules/.bin/eslint ] && command -v node >/dev/null; then npm run --silent lint; fi

# The notebooks of the longest chain (01, 04, 05, 06) come first, with the unit tests beside them. The
# others wait for 04: kernels have sessions of their own, among which niceness does not count.
side-by-side: compare-05_cold_start unit-tests $(NOTEBOOKS:%=compare-%)

unit-tests: $(installed) build/kernels
	nice -n 10 $(python) -m pytest --quiet -p no:nbval -n 2 --dist loadscope -m "not slow"

# These tests compile nearly all kernels, once: processes that start together would all do so.
build/kernels: $(wildcard lrmf/solver/compiled.py lrmf/data/counting.py) | $(installed)
	@mkdir -p build
	$(python) -m pytest --quiet -p no:nbval tests/test_kernels.py lrmf/forecaster/forecaster.py
	@touch $@

compare-00_quickstart compare-03_fit compare-04_baselines compare-07_decisions: build/kernels
compare-02_lineage compare-03_fit compare-04_baselines: compare-01_crawl
compare-05_cold_start: compare-04_baselines
compare-06_figures: compare-05_cold_start compare-02_lineage compare-03_fit
compare-07_decisions: compare-01_crawl
compare-00_quickstart compare-02_lineage compare-03_fit compare-07_decisions: | compare-04_baselines

$(NOTEBOOKS:%=compare-%): compare-%: $(installed)
	$(python) -m pytest --quiet -p no:cacheprovider --nbval --nbval-current-env notebooks/$*.ipynb

test-all: test
	LRMF_EXAMPLES=100 $(python) -m pytest --quiet -p no:nbval tests/test_lineage.py
	$(python) -m pytest --quiet -n 2 -m slow

coverage: $(installed)
	@mkdir -p build
	$(python) -m coverage run -m pytest
	$(python) -m coverage report

notebooks: $(installed)
	$(start_from_defaults)
	@for notebook in $(committed); do \
	    echo "$$notebook"; $(python) notebooks/run.py $$notebook --inplace || exit; done

# What `make reproduce` has left of this run; nothing is executed.
publish: $(installed)
	@$(python) notebooks/publish.py $(executed) $(call quote,$(data))

lab: $(installed)
	$(python) -m jupyterlab

crawl: $(installed)
	$(python) -m lrmf crawl data/hub

PEERS := torch cmfrec implicit
pip_bench := .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check

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

check-claims: $(installed)
	@$(python) -m paper.check

site: $(installed)
	@$(python) -m website.build build/site

clean:
	rm -rf build paper/generated .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints notebooks/.ipynb_checkpoints
	rm -rf __pycache__ */__pycache__ */*/__pycache__ notebooks/*.failed.ipynb

distclean: clean
	rm -rf .venv .venv-bench *.egg-info data/simulated data/smoke
