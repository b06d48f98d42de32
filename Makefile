# `make race` and `make test` need nothing but Python 3.11 or later; everything is installed in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: race test fuzz soak lint types format clean

race: .venv/lab
	$(BIN)/thalweg race digits

test: .venv/dev
	$(BIN)/python -m pytest -n 2 $(TESTS)

# Runs random programs with torch's optimizers and with ours, in processes that may die.
fuzz: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m fuzz --count 10000

# Kills drivers, workers, nodes and databases, fills disks, cuts connections, turns clocks: 200 times, in half an hour.
soak: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m soak --count 200

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/pyright

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# .venv/lab has what races need, .venv/dev also what tests need.  Installed by pip rather than uv or poetry, since the
# constraints pin a CPU build of torch that only pip finds on our machines.
.venv/lab .venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "thalweg needs Python 3.11 or later; set PYTHON=/path/to/python3.11")'
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(@F)]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache dist
