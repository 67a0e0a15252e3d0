#!/bin/sh
# Chromium for the browser tests, from Debian's packages. Does nothing where /usr/bin/chromium is there already.
set -eu
chromium=/usr/bin/chromium
if [ -x "$chromium" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "the browser tests drive $chromium: install Chromium with your system's package manager (here is no apt-get)" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "the browser tests drive $chromium: install it as root, apt-get update && apt-get install -y chromium" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
if [ ! -x "$chromium" ]; then # Ubuntu's package of that name is a snap
    echo "apt-get installed no $chromium: the browser tests need Debian's package" >&2
    exit 1
fi
