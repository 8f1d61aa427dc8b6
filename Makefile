# SPDX-License-Identifier: GPL-2.0-only
# `make help` lists what there is. Nothing here needs root.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DISK   ?= demo.img
TARGET ?= virtio_blk

# Tests run in as many processes as there are processors: one that is done takes over half of what
# another has left.
PYTEST := $(BIN)/pytest --quiet --numprocesses=auto --dist=worksteal

# Without compiled files every start would compile the sources again, and take twice the time.
unexport PYTHONDONTWRITEBYTECODE
ARGS   ?=

# The same line runs on QEMU: put qemu-system-x86_64 in front of it.
LINE = -M microvm,acpi=off,accel=kvm:tcg -m 128 -nographic -no-reboot \
	-kernel guest/guest.elf -global virtio-mmio.force-legacy=false \
	-object iothread,id=io0 \
	-drive file=$(DISK),format=raw,if=none,id=disk0 \
	-device virtio-blk-device,drive=disk0,iothread=io0,serial=demo

# Without a C compiler for x86-64 the guest is built by zig, which comes as a Python package.
HAVE_CC := $(findstring x86_64,$(shell $(CC) -dumpmachine 2>/dev/null))

.PHONY: help run guest test test-all test-matrix test-portable conformance interop-matrix fuzz museum lint docs man bench completions everything clean distclean

help:            ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/lib/miniqemu.start guest $(DISK)  ## boot the guest from a disk image; ARGS='-append selftest'
	$(BIN)/miniqemu $(LINE) $(ARGS)

guest: $(if $(HAVE_CC),,$(VENV)/.guest)  ## build the guest's kernel, guest/guest.elf
	@$(MAKE) --silent --no-print-directory -C guest PYTHON=$(abspath $(BIN)/python)

test: $(VENV)/.test guest  ## all tests that need neither root nor servers, in five minutes
	$(PYTEST) -m "not full"

test-all: $(VENV)/.test-all guest test-portable  ## every test, those with QEMU beside ours too
	$(PYTEST)

test-matrix: $(VENV)/.test-all guest  ## the self-test on five machines, with every disk; ARGS='raw miniqemu-tcg'
	$(BIN)/python -m tests.matrix $(ARGS)

test-portable: $(VENV)/.test  ## the block layer's tests without what only Linux has
	$(PYTEST) --portable -m "not full" tests/block

conformance: $(VENV)/.test  ## move every driver among four loops, 1,000 times in each tree; ARGS=qcow2
	$(BIN)/python -m tests.conformance $(ARGS)

interop-matrix: $(VENV)/.test-all  ## each format x option beside the real QEMU, with counts; ARGS=every
	$(BIN)/python -m tests.interop $(ARGS)

fuzz: $(VENV)/.fuzz  ## fuzz the virtio-blk device until ^C; TARGET=qcow2 ARGS=-max_total_time=60
	$(BIN)/python -m tests.fuzz.run $(TARGET) $(ARGS)

museum: $(VENV)/.test  ## find old mistakes again, and the order of steps that shows each; ARGS=bh_ctx
	$(BIN)/python -m tutorials.museum $(ARGS)

lint: $(VENV)/.test  ## ruff, and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the site into site/
	$(BIN)/mkdocs build --strict --quiet

man: $(VENV)/.base  ## manual pages, from the docs and --help, into build/man
	$(BIN)/python -m docs.tools.man

bench: $(VENV)/.bench $(VENV)/lib/miniqemu.start guest  ## measure against qemu-img, QEMU, asyncio and uvloop
	$(BIN)/python -m benchmarks

completions: $(VENV)/.base  ## what TAB offers in bash and zsh, made from the tables of options
	$(BIN)/python -m miniqemu.cli.completion

clean:           ## remove what was built; keeps .venv and the disk
	@$(MAKE) --no-print-directory -C guest clean
	rm -rf site build .replays .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find block miniqemu guest tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## also remove .venv and the demo disk
	rm -rf $(VENV) demo.img

# The compiled code of all modules in one file, for each command: a fifth of a start (miniqemu/cli/start_image.py).
$(VENV)/lib/miniqemu.start: $(VENV)/.base $(wildcard $(BIN)/miniqemu) $(shell find block miniqemu -name '*.py')
	@$(BIN)/python -m miniqemu.cli.start_image

# A demo disk is made once and then left alone: the guest writes to it.
demo.img: | $(VENV)/.base
	$(BIN)/python -m guest.demo_disk $@

# Python 3.11 puts setuptools into a new .venv; its hook runs in every start, and builds do
# not need it: they bring their own.
# Each stamp stands for one set of packages; pip runs again only when pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "miniqemu needs Python 3.11 or newer; try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip uninstall --quiet --yes --disable-pip-version-check setuptools

# The compat mode is a plain path instead of an import hook: 15 ms less for every start.
INSTALL = $(PIP) --config-settings editable_mode=compat --editable

# With [tcg], so that the guest runs where there is no /dev/kvm: 16 MB to load, 56 on the disk.
# With [compress], so that compressed images are written quickly.
$(VENV)/.base: pyproject.toml bin/miniqemu bin/miniqemu-img bin/miniqemu-io | $(BIN)/python
	$(INSTALL) '.[tcg,compress]'
	@touch $@

$(VENV)/.guest: $(VENV)/.base
	$(INSTALL) '.[guest]'
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(INSTALL) '.[test,io-uring]'
	@touch $@

# Without these some tests would be skipped.
$(VENV)/.test-all: $(VENV)/.base
	$(INSTALL) '.[test,guest,bench,io-uring,fuzz]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.base
	$(INSTALL) '.[fuzz]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(INSTALL) '.[docs,io-uring]'
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	$(INSTALL) '.[bench,test,io-uring]'
	@touch $@

# All of them in one go, as CI wants it: a run of pip takes its time even if it finds all there.
STAMPS := $(addprefix $(VENV)/., base guest test test-all fuzz docs bench)

everything: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[tcg,compress,guest,test,fuzz,docs,bench,io-uring]'
	@touch $(STAMPS)
