# Every command of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(sort $(wildcard protos/moragmeta/v1/*.proto))

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Made beside the old code and then swapped, so that a broken proto leaves the old code whole.
.PHONY: protos
protos: ## Generate generated/python from protos/
	@new=$$(mktemp -d generated-XXXXXX); trap 'rm -rf "$$new"' EXIT; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	  --python_out="$$new" --grpc_python_out="$$new" --mypy_out="$$new" --mypy_grpc_out="$$new" $(PROTOS); \
	touch "$$new/moragmeta/py.typed"; \
	mkdir -p generated/python; \
	rm -rf generated/python/moragmeta; \
	mv "$$new/moragmeta" generated/python/moragmeta
	@echo "generated/python holds the code of $(words $(PROTOS)) protos"
