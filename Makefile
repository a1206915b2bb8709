# Two commands set everything up: `make demo` runs the main job, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

STUDIO := $(VENV)/studio
PHANTOMS := synthchex-demo

.PHONY: demo studio study test test-slow matrix lint check install embedded clean

demo: $(STAMP)
	$(BIN)/synthchex demo

# The studio on the embedded phantom domain: the demo makes its films and report first, once. It has an environment of
# its own, as gradio takes no Pillow 13.
studio: $(STUDIO)/.installed
	test -f $(PHANTOMS)/report.html || $(STUDIO)/bin/synthchex demo --out $(PHANTOMS)
	$(STUDIO)/bin/synthchex studio --films $(PHANTOMS)/judged --real $(PHANTOMS)/real --reports $(PHANTOMS) \
		--ratings $(PHANTOMS)/ratings.csv --source-policy open

$(STUDIO)/.installed: setup.cfg setup.py pyproject.toml constraints.txt
	test -x $(STUDIO)/bin/python || $(PYTHON) -m venv $(STUDIO)
	grep -v '^pillow==' constraints.txt > $(STUDIO)/constraints.txt
	$(STUDIO)/bin/python -m pip install --quiet --constraint $(STUDIO)/constraints.txt torch
	$(STUDIO)/bin/python -m pip install --quiet --constraint $(STUDIO)/constraints.txt --editable '.[study,generate]'
	touch $@

# A reader study of real against generated phantoms: made once (that prints the readers' codes), then served.
study: $(STUDIO)/.installed
	test -f $(PHANTOMS)/report.html || $(STUDIO)/bin/synthchex demo --out $(PHANTOMS)
	test -d $(PHANTOMS)/study || $(STUDIO)/bin/synthchex study new --real $(PHANTOMS)/real --synthetic $(PHANTOMS)/dataset \
		--tasks authenticity quality --n 10 --size 64 --source-policy open --synthetic-source-policy open \
		--out $(PHANTOMS)/study
	$(STUDIO)/bin/synthchex study run $(PHANTOMS)/study

# Two processes, each with whole files; OMP_NUM_THREADS keeps them out of each other's way.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# One dataset, read in environments with the oldest and the newest `datasets`: see tests/matrix/rows.toml.
matrix: $(STAMP)
	$(BIN)/python tests/matrix/run.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

check: lint test

install: $(STAMP)

# torch comes first: where an index offers the CPU build of the pinned version, it is taken before anything asks for another.
$(STAMP): setup.cfg setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(STAMP)

# Retrains the embedded phantom models from nothing, with fixed seeds: about two hours of one CPU core.
embedded: $(STAMP)
	PYTHON=$(BIN)/python bash embedded/train_all.sh

clean:
	rm -rf $(VENV) .matrix build dist src/*.egg-info
