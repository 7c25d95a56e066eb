# Makes the four environments of `make test-engines` where they are missing or out of date. Sourced by run.sh.
# Packages come at the versions of environments/*.constraints.txt; PyTorch first, so that nothing pulls in another.
export WINDTUNNEL_ENGINES="${WINDTUNNEL_ENGINES:-/tmp/windtunnel-engines}"
export WINDTUNNEL_AGENTS="${WINDTUNNEL_AGENTS:-/tmp/windtunnel-agents}"
export WINDTUNNEL_AIPERF="${WINDTUNNEL_AIPERF:-/tmp/windtunnel-aiperf}"
export WINDTUNNEL_LOADGEN="${WINDTUNNEL_LOADGEN:-/tmp/windtunnel-loadgen}"
version=${VLLM_VERSION:-0.33.0}

install() { # environment, options of pip
    home=$1
    shift
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts "$@"
}

make_environment() { # environment, its name here, how to fill it
    made="$1/.made-for-windtunnel"
    wanted=$(cat "$here/environments/$2"* "$here/environments.sh" && echo "$version")
    if [ -f "$made" ] && [ "$(cat "$made")" = "$wanted" ]; then
        return
    fi
    echo "making $1"
    rm -rf "$1"
    python3 -m venv "$1"
    "$3" "$1" "$here/environments/$2"
    echo "$wanted" > "$made"
}

fill_engines() {
    install "$1" torch==2.13.0
    install "$1" --no-deps "vllm==$version" -r "$2-bare.txt"
    install "$1" -c "$2.constraints.txt" -r "$2.txt"
}

fill_agents() {
    install "$1" -c "$2.constraints.txt" "$root[agents]"
    "$1/bin/python" -m pip uninstall --quiet --yes windtunnel # clients know the endpoint by its address only
}

fill_loadgen() {
    install "$1" torch==2.13.0
    install "$1" -c "$2.constraints.txt" guidellm==0.8.1 schemathesis==4.32.5
}

fill_aiperf() { # it asks for other versions than guidellm
    install "$1" -c "$2.constraints.txt" aiperf==0.13.0
}

make_environment "$WINDTUNNEL_AIPERF" aiperf fill_aiperf
make_environment "$WINDTUNNEL_ENGINES" engines fill_engines
make_environment "$WINDTUNNEL_AGENTS" agents fill_agents
make_environment "$WINDTUNNEL_LOADGEN" loadgen fill_loadgen
install "$WINDTUNNEL_ENGINES" --no-deps -e "$root"
