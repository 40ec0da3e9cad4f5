# Both commands of the README do all of their own set-up, in a local virtual environment, and do nothing twice.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format clean

demo: .venv/.ready
	"$(BIN)"/xelvad demo --out demo

test: .venv/.ready check
	"$(BIN)"/python -m pytest --numprocesses=2

check: .venv/.ready
	"$(BIN)"/ruff check .
	"$(BIN)"/ruff format --check .
	mkdir -p .venv/src && ln -sfn ../.. .venv/src/xelvad  # where mypy finds the package under its name
	MYPYPATH=.venv/src "$(BIN)"/mypy

format: .venv/.ready
	"$(BIN)"/ruff check --fix .
	"$(BIN)"/ruff format .

# The environment and the pretrained weights. An interrupted installation leaves no stamp and is taken up again.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	"$(BIN)"/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	"$(BIN)"/xelvad weights fetch i3d-rgb-kinetics400
	touch $@

clean:
	rm -rf .venv demo build dist *.egg-info
