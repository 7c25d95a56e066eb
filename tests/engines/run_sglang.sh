#!/bin/sh
# Asks SGLang's own classes again: how queues are ordered, and what every step computes. Needs the environment of run.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
env=${WINDTUNNEL_ENGINES:-/tmp/windtunnel-engines}
work=$(mktemp -d)
"$env/bin/pip" install --quiet --no-deps --no-warn-conflicts sglang==0.5.23 triton dill gguf IPython traitlets torchvision==0.28.0
ask() { # oracle, cases, answers
    "$env/bin/python" "$here/$1" < "$2" > "$work/said" 2> "$work/log" || {
        tail -n 20 "$work/log"
        exit 1
    }
    tail -n 1 "$work/said" > "$3"
}
PYTHONPATH="$root" python3 "$here/sglang_cases.py" > "$work/cases.json"
ask sglang_oracle.py "$work/cases.json" "$work/orders.json"
python3 - "$root/tests/golden/serving/sglang_order.json" "$work/orders.json" <<'PY'
import json, sys
same = json.load(open(sys.argv[1]))["orders"] == json.load(open(sys.argv[2]))
print("SGLang 0.5.23: orders unchanged" if same else "SGLang: orders moved")
sys.exit(not same)
PY
PYTHONPATH="$root" python3 "$here/sglang_scheduler_cases.py" > "$work/traffic.json"
ask sglang_scheduler_oracle.py "$work/traffic.json" "$work/answers.json"
python3 "$here/record_sglang.py" "$work/answers.json" 0.5.23 "$work/golden.json"
diff "$root/tests/golden/serving/sglang_scheduler.json" "$work/golden.json" && echo "SGLang 0.5.23: steps unchanged"
