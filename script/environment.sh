# Sourced by demo, test and lint: finds a Python and keeps a virtual environment in step with what it was made from.
# Everything it says goes to stderr. Variables that steer it: PYTHON (interpreter to use) and whatever pip reads.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONHOME # another checkout on the path would be tested instead of this one

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

# Exit status 0 if "$1" is a CPython we support that can make virtual environments, 3 if it lacks that, else another.
# Asking it beats looking for the file: pyenv and Windows put commands on the path that only print a message.
try_python() {
    "$1" -c '
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(4)
try:
    import ensurepip, venv
except ImportError:
    sys.exit(3)
' >/dev/null 2>&1
}

# Sets $python. $PYTHON wins and must be usable; otherwise the first usable one of the usual names.
find_python() {
    local candidate status lacking=""
    if [[ -n "${PYTHON:-}" ]]; then
        status=0
        try_python "$PYTHON" || status=$?
        case $status in
            0) python=$PYTHON; return ;;
            3) die "PYTHON=$PYTHON has no venv and ensurepip modules; install them (Debian, Ubuntu: the python3-venv package)" ;;
            *) die "PYTHON=$PYTHON does not run, or is no Python 3.11, 3.12 or 3.13" ;;
        esac
    fi
    for candidate in python3.11 python3.12 python3.13 python3 python /usr/bin/python3; do
        status=0
        try_python "$candidate" || status=$?
        case $status in
            0) python=$candidate; return ;;
            3) lacking=$candidate ;;
        esac
    done
    if [[ -n "$lacking" ]]; then
        die "$lacking has no venv and ensurepip modules; install them (Debian, Ubuntu: the $lacking-venv package)"
    fi
    die "no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# ensure_venv FOLDER INSTALL: makes FOLDER and calls the function INSTALL with the environment's python, unless that was
# done before from the same files, place and interpreter. Sets $python to the environment's own.
ensure_venv() {
    local venv=$1 install=$2 key interpreter
    find_python
    interpreter=$("$python" -c 'import platform, sys; print(platform.python_version(), sys.executable)')
    key="$(cat "$root"/{,models/en-de/}pyproject.toml "$root"/script/{constraints.txt,environment.sh} | cksum) $root $interpreter"
    if command -v flock >/dev/null; then # two runs at once: the second waits, then finds it done
        exec 9>"$venv.lock"
        flock 9
    fi
    if [[ ! -x "$venv/bin/python" || "$(cat "$venv/made-from" 2>/dev/null)" != "$key" ]]; then
        say "making ${venv#"$root"/} with Python $interpreter (once; takes a minute or so)"
        rm -rf -- "$venv"
        "$python" -m venv "$venv" >&2 || die "$python could not make a virtual environment in $venv"
        "$install" "$venv/bin/python"
        printf '%s\n' "$key" >"$venv/made-from" # last, so that a half-made one is made again
    fi
    if command -v flock >/dev/null; then exec 9>&-; fi
    python=$venv/bin/python
}

# The environment of demo: the runtime and the shipped pack.
# The runtime takes the newest numpy, as a user's pip would; only the exporter's packages hold it at 1.26.
install_demo() {
    "$1" -m pip install --quiet -c <(sed '/^numpy==/d' "$root/script/constraints.txt") -e "$root" -e "$root/models/en-de" >&2 ||
        die "pip could not install the runtime and the pack (its message is above)"
}

# The environment of test and lint: everything (the ray extra brings compress, and that brings export). torch goes first
# and alone, with an exact version: as a mere dependency of something else pip may pick another build of it. On Linux
# PyPI's build brings gigabytes of CUDA; to get the small one, point PIP_INDEX_URL or PIP_EXTRA_INDEX_URL at an index of
# CPU builds (see pytorch.org) before the first run.
install_test() {
    local torch
    torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' "$root/script/constraints.txt")
    "$1" -m pip install --quiet -c "$root/script/constraints.txt" "$torch" >&2 ||
        die "pip could not install $torch for $("$1" --version); if there is no build for it, take another Python: PYTHON=python3.11 $0"
    "$1" -m pip install --quiet -c "$root/script/constraints.txt" -e "${root}[dev,npu,ray]" -e "$root/models/en-de" >&2 ||
        die "pip could not install the requirements (its message is above)"
}
