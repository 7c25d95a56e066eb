#!/bin/sh
# vLLM's scheduler recorded again, and real clients against both engines, each in an environment of its own.
# Needs a package index and 6 GB under /tmp (or where the variables say).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export WINDTUNNEL_ENGINES="${WINDTUNNEL_ENGINES:-/tmp/windtunnel-engines}"
export WINDTUNNEL_AGENTS="${WINDTUNNEL_AGENTS:-/tmp/windtunnel-agents}"
export WINDTUNNEL_LOADGEN="${WINDTUNNEL_LOADGEN:-/tmp/windtunnel-loadgen}"
version=${VLLM_VERSION:-0.33.0}
work=$(mktemp -d)

# PyTorch first, so that nothing pulls in a build for cards that are not there.
if [ ! -x "$WINDTUNNEL_ENGINES/bin/vllm" ]; then
    python3 -m venv "$WINDTUNNEL_ENGINES"
    pip="$WINDTUNNEL_ENGINES/bin/pip install --quiet --no-warn-conflicts"
    $pip torch==2.13.0
    $pip --no-deps "vllm==$version" torchvision==0.28.0 -r "$here/vllm-no-deps.txt"
    $pip -r "$here/vllm-deps.txt" pandas datasets
    $pip numpy msgspec rich jinja2
fi
"$WINDTUNNEL_ENGINES/bin/pip" install --quiet --no-deps -e "$root"
if [ ! -x "$WINDTUNNEL_AGENTS/bin/crewai" ]; then
    python3 -m venv "$WINDTUNNEL_AGENTS"
    "$WINDTUNNEL_AGENTS/bin/pip" install --quiet -c "$root/examples/agents/constraints.txt" "$root[agents]"
fi
if [ ! -x "$WINDTUNNEL_LOADGEN/bin/guidellm" ]; then
    python3 -m venv "$WINDTUNNEL_LOADGEN"
    "$WINDTUNNEL_LOADGEN/bin/pip" install --quiet torch==2.13.0
    "$WINDTUNNEL_LOADGEN/bin/pip" install --quiet guidellm==0.8.1 schemathesis==4.32.5
fi

PYTHONPATH="$root" python3 "$here/cases.py" > "$work/cases.json"
"$WINDTUNNEL_ENGINES/bin/python" "$here/vllm_oracle.py" < "$work/cases.json" > "$work/said" 2> "$work/log" || {
    tail -n 20 "$work/log"
    exit 1
}
tail -n 1 "$work/said" > "$work/answers.json"
python3 "$here/record.py" "$work/answers.json" "$version" "$work/golden.json"
diff "$root/tests/golden/serving/vllm_scheduler.json" "$work/golden.json" && echo "vLLM $version: unchanged"
sh "$here/run_sglang.sh"
"$python" -m pytest -q "$here/test_clients.py" "$here/test_layouts.py"
