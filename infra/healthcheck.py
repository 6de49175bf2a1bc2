"""Health of a container: that of its Ray node, or, where it runs none, whether geoseg starts."""

from __future__ import annotations

import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

AGENT_PORT = 52365
"""Where every Ray node answers about itself, without a token, unless told otherwise."""
TIMEOUT_S = 10.0


def main(port: int = AGENT_PORT) -> int:
    """Exit code: 0 healthy, 1 not."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/api/healthz", timeout=TIMEOUT_S):
            return 0
    except HTTPError:
        return 1
    except OSError as error:
        if not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
            return 1
    try:
        return int(
            subprocess.run(["geoseg", "--version"], capture_output=True, timeout=TIMEOUT_S).returncode != 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
