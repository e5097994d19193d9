# Everything a person does here is one of these words; ARGS="..." is handed on.
.PHONY: help run test check fix faults bench mutants conformance matrix fuzz lock docs venv

BIN := .venv/bin
# Tests run side by side: one process more than there are processors, because many tests wait for something now and then.
PYTEST := $(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')

help:
	@echo "make run      start everything on this machine (ARGS=\"--port 9000 --data-dir /srv/queue\")"
	@echo "make check    format, lint, types, unit tests"
	@echo "make fix      format, and mend what the linter can mend"
	@echo "make test     all tests but the fault runs"
	@echo "make faults   kill real processes under load and count every message"
	@echo "make mutants  break named places; each must make a test fail"
	@echo "make bench    measure against references in the same run"
	@echo "make conformance  run the official SDKs' own tests (PY=, JS=, GO=, KAFKA=<checkout>)"
	@echo "make fuzz     send requests that are made up from the OpenAPI document"
	@echo "make matrix   record anew what the end-to-end tests see of the protocol"
	@echo "make lock     compile requirements.lock from pyproject.toml"
	@echo "make docs     write the generated reference pages"

run: venv
	@exec $(BIN)/qstash-clone dev $(ARGS)

test: venv
	$(PYTEST) -m "not faults and not fuzz" $(ARGS)

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(PYTEST) tests/unit

fix: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: venv
	$(BIN)/python -m pytest -m faults $(ARGS)

bench: venv
	$(BIN)/python -m bench $(ARGS)

mutants: venv
	$(BIN)/python -m tests.mutants $(ARGS)

conformance: venv
	@$(BIN)/python -m tests.conformance $(if $(PY),--python "$(PY)") $(if $(JS),--typescript "$(JS)") \
	    $(if $(GO),--go "$(GO)") $(if $(KAFKA),--kafka "$(KAFKA)") $(ARGS)

fuzz: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
	    -r tests/fuzz/requirements.txt
	$(BIN)/python -m pytest -m fuzz $(ARGS) tests/fuzz

matrix: venv
	$(BIN)/python -m tests.conformance.record $(ARGS)
	@$(MAKE) --no-print-directory docs

docs: venv
	$(BIN)/python -m qstash_clone.cli.settings_page > docs/reference/settings.md
	$(BIN)/python -m tests.conformance.matrix > docs/reference/conformance.md

lock:
	@command -v uv > /dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 2; }
	uv pip compile pyproject.toml --group dev --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	    --no-annotate --output-file requirements.lock $(ARGS)

venv:
	@tools/make-venv
