# SPDX-License-Identifier: LGPL-2.1-or-later
# The commands for people; the build itself is Meson's (meson.build).
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help build demo check bench install clean

help:
	@echo 'make demo      build, and show a refusal on a real QEMU guest (nothing is installed)'
	@echo 'make check     build, and run all tests'
	@echo 'make bench     build, and measure beside stock virtlockd and qemu-pr-helper'
	@echo 'make build     build into $(BUILD)/'
	@echo 'make install   install below $(PREFIX) (PREFIX=, DESTDIR=)'
	@echo 'make clean     remove $(BUILD)/'

build:
	@tools/install-packages build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) --prefix '$(PREFIX)' >/dev/null
	@ninja -C $(BUILD) -n | grep -q 'no work to do' || \
		{ echo 'Building into $(BUILD)/ ...'; ninja -C $(BUILD) --quiet; }

demo:
	@tools/install-packages demo
	@$(MAKE) --no-print-directory build
	@tools/demo $(BUILD)

check:
	@tools/install-packages check
	@$(MAKE) --no-print-directory build
	@tests/run --build $(BUILD)

bench:
	@tools/install-packages check
	@test -f build-bench/build.ninja || \
		meson setup build-bench --buildtype release -Dbench=true -Ddocs=false >/dev/null
	@echo 'Building into build-bench/ ...'
	@ninja -C build-bench --quiet
	@tests/bench/run --build build-bench $(BENCH_ARGS)
	@tests/bench/pr-bench --build build-bench --output build-bench/bench $(PR_BENCH_ARGS)

install: build
	@meson configure $(BUILD) --prefix '$(PREFIX)'
	@ninja -C $(BUILD) --quiet
	@DESTDIR='$(DESTDIR)' meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD)
