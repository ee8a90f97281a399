# Every command of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
GENERATED := generated/python
# Much of testing is waiting, so that two processes share even one core well.
TOGETHER := -n 2
PROTOS := $(sort $(wildcard protos/moragmeta/v1/*.proto))

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make .venv with everything that building and testing need
	@deploy/bootstrap dev

.PHONY: serve
serve: ## Run the service on SQLite (./morag.db); any MORAG_ variable changes it
	@deploy/bootstrap runtime
	@exec $(BIN)/morag-meta serve

.PHONY: demo
demo: ## Thirty workers on real files, with live bars (DEMO_FOLDER, or MORAG_TARGET and MORAG_API_KEY)
	@deploy/bootstrap runtime
	@$(BIN)/python examples/demo.py $(if $(DEMO_FOLDER),'$(DEMO_FOLDER)') $(ARGS)

.PHONY: test
test: setup ## Run every test on SQLite, PostgreSQL and MariaDB (ARGS goes to pytest)
	@$(BIN)/python -m pytest $(TOGETHER) $(ARGS)

.PHONY: coverage
coverage: setup ## Run every test and print the lines and branches that none reaches
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(TOGETHER) $(ARGS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

.PHONY: lint
lint: setup ## Check style, security rules, imports, packages and protos
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/uv pip check --quiet --python $(BIN)/python
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code protos

.PHONY: audit
audit: setup ## Ask a database of known vulnerabilities about the locked packages (needs the network)
	@for set in runtime dev; do \
	  $(BIN)/uvx --quiet pip-audit --strict --disable-pip --require-hashes --requirement requirements/$$set.txt; \
	done

.PHONY: format
format: setup ## Rewrite Python and protos in the house style
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet
	@$(BIN)/buf format --write protos

.PHONY: types
types: setup ## Check types, those of the generated code included
	@$(BIN)/mypy

.PHONY: breaking
breaking: setup ## Check that the contract still keeps what the tag contract-v1 promised
	@if git rev-parse --quiet --verify refs/tags/contract-v1 >/dev/null; then \
	  $(BIN)/buf breaking --against '.git#tag=contract-v1'; \
	else \
	  echo 'There is no tag contract-v1 yet: the contract may still change freely.'; \
	fi

.PHONY: bench
bench: setup ## Measure the real server against bare echo and raw drivers
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: robustness
robustness: setup ## Break servers and databases under load, and judge what was promised (EVENTS, ARGS)
	@$(BIN)/python -m tests.robustness --events $(or $(EVENTS),20000) $(ARGS)

.PHONY: endurance
endurance: setup ## Hold 1,000 pairs of transactions open against each other, and cancel 100,000 streams, on each database
	@MORAG_TEST_ROUNDS=1000 MORAG_TEST_STREAMS=100000 $(BIN)/python -m pytest -q \
	  tests/robustness/test_overlap.py tests/robustness/test_cancelled.py $(ARGS)

.PHONY: model
model: setup ## Walk at random through the service beside a model of it, on each database (STEPS, ARGS)
	@$(BIN)/python -m tests.model --steps $(or $(STEPS),10000) $(ARGS)

.PHONY: clients
clients: setup ## Call the service from freshly generated Go, TypeScript and Java stubs
	@clients/check

.PHONY: deploy-check
deploy-check: setup ## Validate Dockerfile and docker-compose.yml, without an engine
	@deploy/check

.PHONY: docs
docs: setup ## Write docs/api.md and docs/configuration.md from protos and settings
	@$(BIN)/python docs/api.py
	@$(BIN)/python docs/configuration.py

.PHONY: wheel
wheel: setup ## Build dist/*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist >/dev/null
	@ls dist

.PHONY: check
check: ## Run all that CI runs
	@.ci/run

.PHONY: lock
lock: setup ## Renew requirements/ from pyproject.toml
	@for set in build runtime dev deploy; do \
	  case $$set in \
	    build) from='--group build' ;; \
	    runtime) from='pyproject.toml --extra all-databases' ;; \
	    deploy) from='--group deploy' ;; \
	    dev) from='pyproject.toml --extra all-databases --group dev --constraint requirements/runtime.txt' ;; \
	  esac; \
	  $(BIN)/uv pip compile --quiet $$from --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements/$$set.txt; \
	done

# Made beside the old code and then swapped, so that a broken proto leaves the old code whole.
.PHONY: protos
protos: setup ## Generate generated/python from protos/
	@mkdir -p $(GENERATED); new=$$(mktemp -d $(GENERATED)/new-XXXXXX); trap 'rm -rf "$$new"' EXIT; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	  --python_out="$$new" --grpc_python_out="$$new" \
	  --mypy_out=quiet:"$$new" --mypy_grpc_out=quiet:"$$new" $(PROTOS); \
	touch "$$new/moragmeta/py.typed"; \
	rm -rf $(GENERATED)/moragmeta; \
	mv "$$new/moragmeta" $(GENERATED)/moragmeta
	@echo "$(GENERATED) holds the code of $(words $(PROTOS)) protos"
