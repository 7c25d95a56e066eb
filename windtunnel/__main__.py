"""`python -m windtunnel` is the command `windtunnel`."""

import sys

from windtunnel.cli.main import main

sys.exit(main())
