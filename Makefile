.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Two processes, and whole files, for what the tests of a file share is made once; slowest first, as tests/selection.py
# has them, not by how many tests they have.
SHARED := -n 2 --dist loadfile --no-loadscope-reorder

help:            ## Show this list
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile | expand -t 16

setup: .venv/ready ## Make or update the environment in .venv
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster,export]'
	@touch $@

sweep: .venv/ready ## The study on the embedded digits: 9 cells, then the report
	$(BIN)/dae-sweep run --dataset mnist-5k

test: .venv/ready ## All tests but those on clusters
	$(BIN)/python -m pytest $(SHARED) -m 'not cluster'

test-nightly: .venv/ready ## The same, with many more random cases
	$(BIN)/python -m pytest $(SHARED) -m 'not cluster' --nightly

test-storage: .venv/ready ## Tests of s3:// and gs:// storage, against servers on loopback
	$(BIN)/python -m pytest -m cluster tests/storage/test_storage.py

test-cluster: .venv/ready ## Tests on clusters: several Ray nodes, an S3 server, SSH hosts in namespaces, `ray up`
	$(BIN)/python -m pytest -m cluster

test-versions: .venv/ready ## A sweep with the lowest and the newest versions, and without private names; options in VERSIONS
	$(BIN)/python -m tests.versions $(VERSIONS)

cluster-tools:   ## What the SSH hosts of the tests need (Debian, as root)
	@for tool in sshd ssh rsync ip; do command -v $$tool > /dev/null || missing=$$tool; done; \
	test -z "$$missing" || (apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=300 install -y \
	    --no-install-recommends openssh-server openssh-client rsync iproute2)

coverage: .venv/ready ## The same tests, and what of dae and sweep they run
	$(BIN)/python -m pytest $(SHARED) --cov=dae --cov=sweep -m 'not cluster'

bench: .venv/ready ## Time the sweep beside a notebook and plain Ray Tune; options in BENCH
	$(BIN)/python -m tests.benchmarks.bench $(BENCH)

lint: .venv/ready ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests on several Ray nodes are not among them: with `ray up` to hosts in namespaces they take over ten minutes on two
# cores, and Ray gives a node 30 s to start, which is short for several beside each other on a machine that is busy.
check: lint test test-storage ## What CI runs

clean:           ## Remove the environment and caches; sweeps stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

.PHONY: help setup sweep test test-nightly test-storage test-cluster test-versions cluster-tools coverage bench lint check clean
