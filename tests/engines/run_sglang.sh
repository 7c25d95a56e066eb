#!/bin/sh
# Asks SGLang's policy classes and radix cache again how queues are ordered. Needs the environment of run.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
env=${WINDTUNNEL_ENGINES:-/tmp/windtunnel-engines}
work=$(mktemp -d)
"$env/bin/pip" install --quiet --no-deps --no-warn-conflicts sglang==0.5.23 triton dill gguf IPython traitlets torchvision==0.28.0
PYTHONPATH="$root" python3 "$here/sglang_cases.py" > "$work/cases.json"
"$env/bin/python" "$here/sglang_oracle.py" < "$work/cases.json" > "$work/said" 2> "$work/log" || {
    tail -n 20 "$work/log"
    exit 1
}
tail -n 1 "$work/said" > "$work/orders.json"
python3 - "$root/tests/golden/serving/sglang_order.json" "$work/orders.json" <<'PY'
import json, sys
same = json.load(open(sys.argv[1]))["orders"] == json.load(open(sys.argv[2]))
print("SGLang 0.5.23: unchanged" if same else "SGLang: orders moved")
sys.exit(not same)
PY
