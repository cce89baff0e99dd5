# `make scan` and `make test` each set up everything they need in .venv; Python 3.11+, git and make are enough.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin

.PHONY: scan test lint types

scan: .venv/ready
	$(BIN)/python pipeline.py --input examples/survey --output runs/example-$$(date +%Y%m%d-%H%M%S)

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/python -m mypy

.venv/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "oddlens needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
