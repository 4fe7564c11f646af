PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SWEEP ?= sweeps/ground_metrics.yaml

.PHONY: install sweep test lint format docs bench bench-overhead clean

# Makes the virtual environment from pinned versions, and makes it again when the pins change.
install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)' || { echo \
	  "$(PYTHON) is $$($(PYTHON) --version 2>&1), and orchestrator needs Python 3.11 or 3.12. Give its name:" \
	  "make install PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Runs the main sweep: ground metrics, penalties and critic iterations on real digits.
sweep: install
	$(BIN)/orchestrator sweep $(SWEEP)

# Keeps bytecode, because the tests start hundreds of processes.
test: install
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Builds the documentation as a site, site/index.html. A broken link is an error. It needs no network.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	! grep -rlE '<(script|link|img)[^>]* (src|href)="?https?:' site --include='*.html' # nothing is loaded from elsewhere

# Compares training steps with WGAN-GP, the textbook and the machine's limits; `make bench BENCH="--device cuda"`.
bench: install
	$(BIN)/python -m bench.performance $(BENCH)

# Measures the scheduling cost per trial, ours against plain Ray Tune.
bench-overhead: install
	$(BIN)/python bench/overhead.py

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
