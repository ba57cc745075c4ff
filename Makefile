# Two commands: `make demo` and `make test`, as root on a Debian or Ubuntu machine.
# Everything they lack, they install; what they cannot install, they name.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check lint build dist wheels deb services bench clean

PYTEST_ARGS ?=
DEMO_ARGS ?=
VENV := $(or $(N2N_VENV),.venv)

help: ## show these lines
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: ## a supernode and two edges in network namespaces: ping, TCP, path (root)
	@. scripts/lib.sh; need_root demo
	@bash scripts/setup.sh run
	@. scripts/lib.sh; need_network
	@$(VENV)/bin/python -m n2n lab demo $(DEMO_ARGS)

test: ## every test: lint, types, unit, property, simulation, real networks (root)
	@. scripts/lib.sh; need_root test
	@bash scripts/setup.sh test
	@. scripts/lib.sh; need_network
	@$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

check: ## the tests that need no root
	@bash scripts/setup.sh test
	@$(VENV)/bin/python -m pytest -m "not root" $(PYTEST_ARGS)

lint: ## style, types and import rules only
	@bash scripts/setup.sh test
	@$(VENV)/bin/python -m pytest tests/lint $(PYTEST_ARGS)

build: ## .venv with the program and its compiled extension
	@bash scripts/setup.sh run

dist: ## sdist, the wheel from the sdist, and a try of it in empty environments
	@bash scripts/setup.sh test
	@bash scripts/dist.sh

wheels: ## the wheels to give away: manylinux, x86_64 and aarch64, libcrypto inside, tried
	@bash scripts/wheels.sh

deb: ## a Debian package for this release and processor, from the wheel
	@bash scripts/setup.sh run
	@bash scripts/deb.sh

services: ## the units under a real systemd, with the n2n of the Debian package (root)
	@. scripts/lib.sh; need_root services
	@bash scripts/setup.sh test
	@. scripts/lib.sh; need_network
	@[ -n "$$(ls dist/n2n-vpn_*.deb 2>/dev/null)" ] || bash scripts/deb.sh
	@bash scripts/services "$$(ls -t dist/n2n-vpn_*.deb | head -1)"

bench: ## measure throughput, latency, registrations and memory (root; minutes)
	@. scripts/lib.sh; need_root bench
	@bash scripts/setup.sh test
	@. scripts/lib.sh; need_network; have iperf3 || apt_install iperf3
	@$(VENV)/bin/python benchmarks/basic.py

clean: ## remove what was built (.venv too)
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.so' -delete
