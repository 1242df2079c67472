# shellcheck shell=bash
# What scripts/serve and scripts/test share: the environment in .venv. Sourced, with ROOT set.

VENV="$ROOT/.venv"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# The command that makes us root, as words; fails when there is none that asks no question.
root_prefix() {
    if [ "$(id -u)" = 0 ]; then
        echo env
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo sudo
    else
        return 1
    fi
}

POLICY=/usr/sbin/policy-rc.d

# Install Debian packages, without starting the services that some bring; fails when that is not possible here.
apt_install() {
    local prefix made='' code=0
    command -v apt-get >/dev/null || return 1
    prefix=$(root_prefix) || return 1
    say "installing $* (apt-get)"
    "$prefix" apt-get update -qq >&2 || say "apt-get update failed; trying with the lists there are"
    if [ ! -e "$POLICY" ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | "$prefix" tee "$POLICY" >/dev/null
        "$prefix" chmod 755 "$POLICY"
    fi
    "$prefix" DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null || code=$?
    [ -z "$made" ] || "$prefix" rm "$POLICY"
    return "$code"
}

# Print a Python of version 3.11 or later.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local python
    if ! python=$(find_python); then
        apt_install python3 python3-venv || true
        python=$(find_python) || fail "Python 3.11 or later is needed (Debian: apt-get install python3 python3-venv)"
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3-venv || true
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "Python's venv module is missing; install it and try again: sudo apt-get install python3-venv"
    fi
    say "making the environment in $VENV ($("$python" --version))"
    "$python" -m venv --clear "$VENV" || fail "the environment could not be made in $VENV"
}

# What the environment depends on: when this text changes, it is brought up to date.
wanted_state() {
    echo "$ROOT"
    cat "$ROOT/pyproject.toml" "$ROOT/scripts/locked/build.txt" "$ROOT/scripts/locked/$1.txt"
}

# Make .venv hold the locked versions of "run" or "dev" (which includes run) and davsql itself.
ensure_environment() {
    local kind=$1 stamp="$VENV/.davsql-$1"
    if [ -x "$VENV/bin/davsql" ] && wanted_state "$kind" | cmp -s - "$stamp"; then
        return
    fi
    "$VENV/bin/python" -c 'import pip' 2>/dev/null || make_venv
    rm -f "$VENV"/.davsql-*
    say "installing the locked packages ($kind)"
    local pip=("$VENV/bin/python" -m pip -qq --disable-pip-version-check --no-input install)
    local failure="the packages could not be installed; the lines above say why (is there a network?)"
    "${pip[@]}" --require-hashes --requirement "$ROOT/scripts/locked/build.txt" || fail "$failure"
    "${pip[@]}" --require-hashes --no-build-isolation --requirement "$ROOT/scripts/locked/$kind.txt" || fail "$failure"
    "${pip[@]}" --no-deps --no-build-isolation --editable "$ROOT" || fail "davsql itself could not be installed"
    wanted_state "$kind" >"$stamp"
    if [ "$kind" = dev ]; then wanted_state run >"$VENV/.davsql-run"; fi
}
