# make demo   set up, train on the embedded images, measure, predict, report
# make test   set up with the test tools, run all tests
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo test test-slow lint format bench docs golden parity results faults clean

demo: $(VENV)/.installed
	$(BIN)/convatlas train --epochs 15 --out $(DEMO)
	$(BIN)/convatlas eval $(DEMO)
	$(BIN)/convatlas predict $(DEMO) $(DEMO)/samples
	@echo "report: $(DEMO)/report.html"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_speed.py
	$(BIN)/python benchmarks/train_memory.py
	$(BIN)/python benchmarks/neighbour.py

docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py

golden: $(VENV)/.installed-dev
	$(BIN)/python tests/zoo/golden.py

parity: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/parity.py

results: $(VENV)/.installed
	$(BIN)/python benchmarks/seeds.py

faults: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/faults.py

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs
