# make book · make test: everything from a fresh clone, with nothing but Python >= 3.11, make and the package registry.

PYTHON ?= python3
# Without OMP_NUM_THREADS, which nproc obeys.
CORES := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Notebooks executed at once, or processes of the tests; seconds that a cell may take.
JOBS ?= $(CORES)
TIMEOUT ?= 1200

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
HTML := _build/html
FIRST_PAGE := $(HTML)/index.html
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
SPHINX_FLAGS := -q -W -n --keep-going
EXECUTE = $(PY) tools/execute.py --jobs $(JOBS) --timeout $(TIMEOUT)

# Results live inside the checkout, one folder for one state of the pinned versions and of the code that computes what
# is stored: no number outlives the code that made it, and editing a label or a help text recomputes nothing.
NOT_STORED := __init__.py chapters/* command/*
STORED_FROM = find rmtllmf_lib -type f ! -path '*/__pycache__/*' $(NOT_STORED:%=! -path 'rmtllmf_lib/%') | LC_ALL=C sort
STORE := $(CURDIR)/.store/$(shell ($(STORED_FROM); echo constraints.txt) 2>/dev/null | xargs cat | cksum | cut -d' ' -f1)

# Processes of each study, so that those of all notebooks or tests at work are no more than the cores.
share = $(shell echo $$(( $(CORES) > $(1) ? $(CORES) / $(1) : 1 )))
NOTEBOOKS_AT_ONCE = $(shell echo $$(( $(JOBS) < $(words $(NOTEBOOKS)) ? $(JOBS) : $(words $(NOTEBOOKS)) )))
book notebooks: export RMTLLMF_MAX_WORKERS = $(call share,$(NOTEBOOKS_AT_ONCE))
test: export RMTLLMF_MAX_WORKERS = $(call share,$(JOBS))

export RMTLLMF_HOME := $(STORE)
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export JUPYTER_PLATFORM_DIRS := 1
# IPython warns if the parent of this folder is missing: the targets create _build.
export IPYTHONDIR := $(CURDIR)/_build/.ipython
unexport MPLBACKEND
# Compiling every installed module takes over a minute; those that are imported are compiled once and kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -e 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) (two minutes, about 6 GB, most of it torch) ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@# An older pip, as Python brings along, works too, but takes half as long again.
	@$(PY) -m pip install --quiet 'pip>=26' || true
	@PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --no-compile -c constraints.txt -e '.[book,test]'
	@$(PY) -c 'import open_clip, pandas, papermill, scipy.stats, seaborn, sklearn'
	@touch $@

.PHONY: install
install: $(READY)  ## create .venv with the versions of constraints.txt

.PHONY: book
book: $(READY)  ## execute every notebook on the embedded benchmark, then build the book
	@rm -rf _build/executed && mkdir -p _build/executed
	@cp -R _config.yml _toc.yml _vendor book _build/executed/
	@# A chapter that failed (status 1) appears with its stored outputs, and the status is passed on.
	@$(EXECUTE) --into _build/executed $(NOTEBOOKS); status=$$?; test $$status -le 1 || exit $$status; \
	  $(PY) tools/front_page.py _build/executed && \
	  $(VENV)/bin/jupyter-book build _build/executed --path-output . $(SPHINX_FLAGS) >/dev/null && \
	  echo "The book: $(CURDIR)/$(FIRST_PAGE)" && exit $$status

.PHONY: html
html: $(READY)  ## build the book from the committed outputs, in a few minutes
	@$(VENV)/bin/jupyter-book build . --path-output . $(SPHINX_FLAGS) >/dev/null
	@echo "The book: $(CURDIR)/$(FIRST_PAGE)"

.PHONY: pdf
pdf: $(READY)  ## the whole book as one file, _build/book.pdf (needs Chromium)
	@$(VENV)/bin/jupyter-book build . --path-output _build/single --builder singlehtml -q >/dev/null
	@$(PY) tools/pdf.py _build/single/_build/singlehtml/book/intro.html _build/book.pdf

.PHONY: notebooks
notebooks: $(READY)  ## execute the notebooks in place, to commit their new outputs
	@mkdir -p _build
	@$(EXECUTE) $(NOTEBOOKS)
	@$(PY) tools/front_page.py

.PHONY: check
check: $(READY)  ## the core tests, in under two minutes: no notebooks, browser, training or child processes
	@$(PY) -m pytest -m "not slow" tests $(ARGS)

.PHONY: test
test: $(READY)  ## every test: units, house, notebooks (executed once and compared), the book in a browser
	@mkdir -p _build
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	  --nbval --nbval-current-env --nbval-cell-timeout=$(TIMEOUT) --nbval-kernel-startup-timeout=120 $(ARGS)

.PHONY: lint format style types prose
lint: format style types prose  ## formatting, lint (notebooks included), types, spelling and prose
format: $(READY)
	@$(PY) -m ruff format --check .
style: $(READY)
	@$(PY) -m ruff check .
types: $(READY)
	@$(PY) -m mypy
prose: $(READY)
	@$(VENV)/bin/codespell *.md book rmtllmf_lib tests tools benchmarks workflow
	@$(PY) tools/prose.py

.PHONY: links
links: $(READY)  ## check every link of the book to other sites (needs the network)
	@$(VENV)/bin/jupyter-book build . --path-output _build/links --builder linkcheck

.PHONY: benchmark
benchmark: $(READY)  ## timings as ratios against reference implementations
	@env -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS $(PY) -m benchmarks

.PHONY: clean
clean:  ## remove what was built and computed, but not .venv
	rm -rf _build .store .pytest_cache .mypy_cache .ruff_cache .hypothesis
