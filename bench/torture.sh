#!/usr/bin/env bash
# The torture bench: bench/torture.sh --jobs 20000 --kills 10; --help lists all flags.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec cargo bench --quiet --bench torture -- "$@"
