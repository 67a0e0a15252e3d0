#!/usr/bin/env bash
# The whole suite with each vector unit that this processor has, and with two seeds of the tests' own data. A verdict
# that changes hangs on rounding or on luck: give the test better conditioned inputs, not a looser bound.
# Each has a cache of compiled graphs of its own (docs/design/011-tests-on-every-machine.md says why).
# Compiled graphs are tried with the first seed alone: they take the longest and draw next to nothing.
#   test_portable.sh [arguments of pytest]     BIN: where python is, JOBS: processes
set -uo pipefail
python=${BIN:-.venv/bin}/python
own=$("$python" -c 'import torch; print(torch.backends.cpu.get_cpu_capability().lower())') || exit 1
case $own in
    avx512) capabilities="default avx2 avx512" ;;
    avx2) capabilities="default avx2" ;;
    *) capabilities=default ;;
esac
caches=$(mktemp -d)
trap 'rm -rf "$caches"' EXIT

failed=""
for capability in $capabilities; do
    for data in 0 1; do
        left_out="not learning and not soak"
        test "$data" = 0 || left_out+=" and not compiled"
        echo "== $capability, data $data"
        ATEN_CPU_CAPABILITY=$capability TORCHINDUCTOR_CACHE_DIR=$caches/$capability WHORL_TEST_SEED=$data \
            "$python" -m pytest -n "${JOBS:-2}" --dist worksteal -m "$left_out" --hypothesis-seed="$data" "$@" ||
            failed+=" $capability/$data"
    done
done
test -z "$failed" || { echo "== failed:$failed"; exit 1; }
