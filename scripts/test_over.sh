#!/bin/sh
# test_over.sh NAME "PACKAGES" TESTS...: run tests with packages that do not go into .venv, in an environment .venv-NAME that lies over it
set -eu
name=$1 packages=$2
shift 2
own=.venv-$name
site='import sysconfig; print(sysconfig.get_path("purelib"))'
below=$("$BIN/python" -c "$site")
if ! test -e "$own/installed"; then
    "$BIN/python" -m venv --clear "$own"
    # addsitedir, and not the path alone: whorl itself is there by a .pth file
    echo "import site; site.addsitedir('$below')" > "$("$own/bin/python" -c "$site")/below.pth"
    # shellcheck disable=SC2086  # several packages
    "$own/bin/python" -m pip install --quiet --disable-pip-version-check $packages
    touch "$own/installed"
fi
exec "$own/bin/python" -m pytest -q "$@"
