#!/bin/sh
# Real engines beside ours: their schedulers asked again, real clients against both engines, vLLM in several layouts.
# Needs a package index and 8 GB under /tmp (or where the variables of environments.sh say).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
. "$here/environments.sh"
"$python" "$here/ask.py"
"$python" -m pytest -v "$here"
