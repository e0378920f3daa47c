# Lyceum. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test test-storage test-networks build web setup tiny-image demo-image fileserver-image check fmt openapi screenshots test-moves test-power bench clean

# Node may have been fetched into .lyceum/node (scripts/setup); mke2fs lives in sbin.
export PATH := $(CURDIR)/.lyceum/node/node_modules/.bin:$(PATH):/usr/sbin:/sbin

STATE ?= .lyceum/state
IMAGES := .lyceum/images
STAMPS := .lyceum/stamps
LYCEUM := target/release/lyceum
# More for `lyceum up`, for example: make run ARGS='--page 0.0.0.0:8470'
ARGS ?=

WEB_SOURCES := $(shell find web -type d \( -name node_modules -o -name dist -o -name tests -o -name e2e \) -prune -o -type f -print 2>/dev/null)
GUEST_SOURCES := $(shell find crates/lyceum-guest images -type f ! -name '*.md' ! -name check-demo ! -name try-fork ! -path 'images/*fileserver*' 2>/dev/null)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: ## the whole classroom in the foreground; installs, builds and makes the demo image as needed
	@scripts/setup
	@$(MAKE) --no-print-directory build
	@test -e $(IMAGES)/demo.qcow2 -o -e $(STATE)/demo-done || $(MAKE) --no-print-directory demo-image
	@exec $(LYCEUM) up --state $(STATE) --image $(IMAGES)/demo.qcow2 $(ARGS)

test: ## everything that is tested: units, simulated hosts, real QEMU guests, the page in a browser
	@scripts/test

test-storage: fileserver-image ## LVM, NFS and power cuts for real, in emulated file servers (half an hour on two cores)
	@scripts/test-storage

test-networks: tiny-image ## courses' networks for real: the programs in network namespaces, guests that move (root; some minutes)
	LYCEUM_TINY_IMAGE="$(CURDIR)/$(IMAGES)/tiny.qcow2" cargo test --package lyceum --test networks -- --include-ignored --nocapture --test-threads 1

build: web/dist/index.html ## target/release/lyceum with the page in it
	@cargo build --release --package lyceum

web: web/dist/index.html ## the page, web/dist

setup: ## installs what is missing on this machine
	@scripts/setup --test

$(STAMPS)/npm: web/package.json web/package-lock.json
	@echo "fetching what the page is built from"
	@cd web && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(STAMPS) && touch $@

web/dist/index.html: $(STAMPS)/npm $(WEB_SOURCES)
	@echo "building the page"
	@cd web && npm run --silent build
	@touch $@

tiny-image: $(IMAGES)/tiny.qcow2 ## a kernel, busybox and the guest helper: the image of the tests
demo-image: $(IMAGES)/demo.qcow2 ## a Debian desktop for a first programming lesson (some minutes)

$(IMAGES)/tiny.qcow2: $(GUEST_SOURCES)
	@mkdir -p $(IMAGES)
	@images/build-tiny $@

fileserver-image: $(IMAGES)/fileserver/root.qcow2 ## the file server of make test-storage

# Installing Debian into a directory needs root.
FILESERVER_SOURCES := images/build-fileserver images/lib.sh $(shell find images/fileserver -type f 2>/dev/null)
$(IMAGES)/fileserver/root.qcow2: $(FILESERVER_SOURCES)
	@mkdir -p $(IMAGES)
	@if [ "$$(id -u)" = 0 ]; then exec images/build-fileserver $(IMAGES)/fileserver; fi; \
	echo "making the file server's image; installing Debian into a directory needs root"; \
	sudo images/build-fileserver "$(CURDIR)/$(IMAGES)/fileserver" && sudo chown -R "$$(id -u):$$(id -g)" $(IMAGES)/fileserver

# Installing Debian into a directory needs root; the helper is built by the ordinary user.
GUEST := $(or $(CARGO_TARGET_DIR),target)/x86_64-unknown-linux-gnu/guest/lyceum-guest
$(IMAGES)/demo.qcow2: $(GUEST_SOURCES)
	@mkdir -p $(IMAGES)
	@if [ "$$(id -u)" = 0 ]; then exec images/build-demo $@; fi; \
	RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
	    cargo build --quiet --profile guest --package lyceum-guest --target x86_64-unknown-linux-gnu; \
	echo "making the demo image; installing Debian into a directory needs root"; \
	sudo env LYCEUM_GUEST="$(abspath $(GUEST))" images/build-demo "$(CURDIR)/$@" && sudo chown "$$(id -u):$$(id -g)" $@

check: web/dist/index.html ## what must hold before a commit besides the tests: format, lints, openapi.json in date
	scripts/check-dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo run --quiet --package lyceum -- openapi | diff -u openapi.json - || \
	    { echo "openapi.json is out of date; run: make openapi" >&2; exit 1; }
	cd web && npm run --silent check

fmt: ## formats the Rust sources
	cargo fmt --all

openapi: ## writes openapi.json, and the page's types from it
	cargo run --quiet --package lyceum -- openapi >openapi.json.new
	mv openapi.json.new openapi.json
	cd web && npm run --silent types

screenshots: ## docs/pictures, from a classroom started for it
	@scripts/setup --test
	@$(MAKE) --no-print-directory build
	@test -e $(IMAGES)/demo.qcow2 || $(MAKE) --no-print-directory demo-image
	@scripts/with-classroom --program $(LYCEUM) --image $(IMAGES)/demo.qcow2 --memory 768 -- npm --prefix web run --silent screenshots

test-moves: ## moves of running desktops, the way cut at 200 random bytes, a busy one moved 100 times (real QEMU, long)
	LYCEUM_MOVES=200 cargo test -p lyceum-qemu --test qemu moves:: -- --nocapture --test-threads 1

test-power: tiny-image ## power saving on real machines: consolidated, hosts off, on again for a bell (some ten minutes)
	LYCEUM_TINY_IMAGE=$(CURDIR)/$(IMAGES)/tiny.qcow2 cargo test -p lyceum --test power -- --ignored --nocapture

bench: ## the numbers of docs/benchmarks.md, on the classroom that runs (make run, in another terminal)
	@mkdir -p .lyceum/bench
	$(LYCEUM) bench class-start --state $(STATE) --desktops 60 --cold 8 --json .lyceum/bench/class-start.json --html .lyceum/bench/class-start.html
	$(LYCEUM) bench reset --state $(STATE) --json .lyceum/bench/reset.json --html .lyceum/bench/reset.html
	$(LYCEUM) bench move --state $(STATE) --moves 100 --json .lyceum/bench/move.json

clean: ## removes what was built, but no image and no classroom
	rm -rf web/dist web/node_modules $(STAMPS)
	cargo clean
