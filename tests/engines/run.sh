#!/bin/sh
# Records the decisions of vLLM's scheduler again and shows whether they moved. Needs a package index and 3 GB.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
env=${WINDTUNNEL_ENGINES:-/tmp/windtunnel-engines}
version=${VLLM_VERSION:-0.33.0}
work=$(mktemp -d)
if [ ! -x "$env/bin/python" ]; then
    python3 -m venv "$env"
    "$env/bin/pip" install --quiet torch==2.13.0
    "$env/bin/pip" install --quiet --no-deps "vllm==$version" -r "$here/vllm-no-deps.txt"
    "$env/bin/pip" install --quiet -r "$here/vllm-deps.txt"
fi
PYTHONPATH="$root" python3 "$here/cases.py" > "$work/cases.json"
"$env/bin/python" "$here/vllm_oracle.py" < "$work/cases.json" 2> "$work/log" | tail -n 1 > "$work/answers.json"
python3 "$here/record.py" "$work/answers.json" "$version" "$work/golden.json"
diff "$root/tests/golden/serving/vllm_scheduler.json" "$work/golden.json" && echo "vLLM $version: unchanged"
