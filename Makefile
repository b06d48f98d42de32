# `make race` and `make test` need Python 3.11 or later and nothing else; everything lands in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: race test lint types format clean

race: .venv/ready
	$(BIN)/thalweg race digits

test: .venv/ready
	$(BIN)/python -m pytest -n 2

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip rather than uv or poetry: the constraints pin a CPU build of torch that only pip finds on our machines.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "thalweg needs Python 3.11 or later; set PYTHON=/path/to/python3.11")'
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache dist
