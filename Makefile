# SPDX-License-Identifier: Apache-2.0
.PHONY: help soak promtool setup demo check unit coverage test test-all test-upgraded test-release failure-modes format language clean bench bench-scale deb docs reference screenshots release-check

# Namespaces, mounts and libvirtd are root's.
root := $(if $(filter 0,$(shell id -u)),,sudo)

help:
	@echo "make setup     install what is needed (Debian 12 or 13, root or sudo)"
	@echo "make demo      set up and move a running guest between two sites on this machine"
	@echo "make unit      the tests that need neither root nor programs, in two minutes"
	@echo "make coverage  the same with branch coverage; it fails below the floor in pyproject.toml"
	@echo "make test      set up, check and run the test suite"
	@echo "make test-all  the same with the long sweeps"
	@echo "make test-upgraded  the journeys on sites of the previous version that were upgraded"
	@echo "make test-release  RELEASE=trixie: make test on another release of Debian, in a folder of this machine"
	@echo "make failure-modes  run what makes things go wrong, and write docs/failure-modes.md"
	@echo "make soak      RUNS=20 SEED=1: random journeys with random faults (build/soak/seed-1)"
	@echo "make check     formatting, lint, types, layers, locks, links of the documentation"
	@echo "make fuzz      every parser of outside bytes under a fuzzer, SECONDS=60 each"
	@echo "make bench     timings and bytes beside those of other tools (half an hour)"
	@echo "make bench-scale  closes of 1 to 10 million segments, 1 to 1000 replications, a disk of 16 TiB: processor, memory, latency (two hours)"
	@echo "make deb       a Debian package, in dist/"
	@echo "make docs      the documentation as a site, in build/site/"
	@echo "make reference write the pages that are read from the program"
	@echo "make screenshots  the pictures of the documentation, from the console's tests"
	@echo "make release-check  the dry run of a release (docs/howto/release.md)"
	@echo "make format    format and sort imports"
	@echo "make language  write down how many retired words are left, where there are fewer"

setup:
	@bash scripts/setup.sh

demo: setup
	$(root) .venv/bin/seedship lab demo

check: setup
	.venv/bin/ruff format --check src tests benches
	.venv/bin/ruff check src tests benches
	.venv/bin/mypy
	.venv/bin/mypy --config-file tests/mypy.ini
	.venv/bin/lint-imports
	.venv/bin/pytest -q -p no:cacheprovider tests/unit/faces/test_locks.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

# What needs neither root nor programs.
unit_tests := -n 2 --dist worksteal -m "not slow" tests/unit tests/property

unit: setup
	.venv/bin/pytest $(unit_tests)

coverage: setup
	.venv/bin/pytest $(unit_tests) --cov --cov-report=term

test: check promtool
	.venv/bin/python tests/suite.py -n 2 --dist worksteal -m "not slow"

test-all: check promtool
	.venv/bin/pytest --hypothesis-profile=explore

# Journeys in data folders that the previous version made, used and left behind.
test-upgraded: setup
	.venv/bin/pytest -n 2 --dist worksteal -m "not slow" --from-previous tests/journey

promtool: setup
	@bash scripts/promtool.sh

# The same on another release of Debian (scripts/in-debian.sh).
RELEASE ?= trixie
test-release:
	$(root) scripts/in-debian.sh $(RELEASE) make test

failure-modes: setup
	.venv/bin/pytest -m failure_mode --failure-modes docs/failure-modes.md

SECONDS ?= 60
fuzz: setup
	.venv/bin/python -c "import atheris" 2>/dev/null || \
		.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement scripts/fuzz-requirements.txt
	.venv/bin/python tests/fuzz/fuzz.py --seconds $(SECONDS)

bench: setup
	$(root) apt-get install -qq -y --no-install-recommends virtnbdbackup rsync fio postgresql >/dev/null
	$(root) .venv/bin/python benches/bench_seed.py
	$(root) .venv/bin/python benches/bench_guest.py --runs 3
	$(root) .venv/bin/python benches/bench_wan.py
	$(root) .venv/bin/python benches/bench_tap.py

bench-scale: setup
	.venv/bin/python benches/bench_close.py
	.venv/bin/python benches/bench_many.py --seconds 600
	.venv/bin/python benches/bench_control.py
	$(root) .venv/bin/python benches/bench_failover.py
	$(root) .venv/bin/python benches/bench_large.py

deb:
	@bash scripts/build-deb.sh

docs: reference
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

reference: setup
	.venv/bin/python -m seedship.reference docs docs
	.venv/bin/python tests/api_reference.py
	.venv/bin/python tests/metrics_page.py
	PYTHONPATH=tests:tests/lib .venv/bin/python -c "import failure_modes as f; f.PAGE.write_text(f.text(f.marked()))"

screenshots: setup
	SEEDSHIP_ARTEFACTS=build/screenshots .venv/bin/pytest -q tests/integration/console/test_pages.py -k source-in-sync
	cp build/screenshots/console/replication-source-in-sync-light.png docs/images/console.png

release-check: setup
	@bash scripts/release-check.sh

soak: setup
	$(root) env PYTHONPATH=tests .venv/bin/python -m soak --runs $(or $(RUNS),20) --seed $(or $(SEED),1)

format: setup
	.venv/bin/ruff format src tests benches
	.venv/bin/ruff check --fix src tests benches

language: setup
	.venv/bin/python tests/language.py --lower

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
