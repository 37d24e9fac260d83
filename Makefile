# Two commands matter: `make run` and `make test`. Each installs what is missing first.

.DEFAULT_GOAL := help
.PHONY: help run clean test e2e torture check build deb install bench docs prerequisites

# Scripts in TypeScript run without a build of their own.
TS := node --import tsx

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: build ## start a development daemon in ./.roost and boot a Debian in it (IMAGE=small: a small Linux)
	@IMAGE=$(or $(IMAGE),debian) $(TS) tools/run-development.ts

clean: ## take that daemon away, with its guests (FORCE=1: also those that you made)
	@if [ -d .roost ]; then \
	  $(MAKE) --no-print-directory build && \
	  $(TS) tools/run-development.ts --clean $(if $(filter 1,$(FORCE)),--force); \
	fi
	@rm -rf dist build

test: build ## run every check and every test but those of e2e and torture
	@status=0; \
	node tools/check.mjs --static || status=1; \
	node_modules/.bin/vitest run --project unit --project real || status=1; \
	exit $$status

e2e: build ## boot, use, upgrade and delete whole Debian guests (half an hour under emulation)
	@node_modules/.bin/vitest run --project e2e

torture: build ## kill, stop, flood and starve everything for an hour (ONLY=NAME,… SEED=N COUNT=N)
	@$(TS) test/torture/main.ts

check: build ## run the static checks and the unit tests
	@node tools/check.mjs

build: prerequisites ## compile everything into build/ and dist/
	@node tools/build.mjs

deb: build ## make a Debian package in build/, with its own Node.js (VERSION=…)
	@$(TS) tools/package/build-deb.ts

install: build ## install below DESTDIR and PREFIX (/usr/local unless given)
	@$(TS) tools/package/install-tree.ts

bench: build ## compare starts with starts by hand, side by side
	@$(TS) bench/main.ts

docs: prerequisites ## write the generated reference in docs/
	@$(TS) tools/gen-docs.ts

prerequisites: ## install the Debian packages and npm packages that are missing
	@tools/install-prerequisites.sh
