"""A Ray cluster of two nodes on this machine, on loopback only, for as long as one command runs.

    python infra/two_nodes.py -- geoseg run scene.tif -o out --address auto

Without a command it waits for Ctrl+C, and says what another shell needs to join. At the end it ends the processes that
it started, by their ids; those of another cluster on this machine are never touched.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
STORE_BYTES = 100_000_000
GRACE_S = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Exit code: that of the command; 130 after Ctrl+C."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [--cpus N] [-- COMMAND ...]", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of each node (default: 1)")
    parser.add_argument("command", nargs="*", help="what to run beside the cluster, after --")
    options = parser.parse_args(arguments)
    # Ray's sockets lie in it, and their paths may be 107 bytes long; and --address auto of others does not look there.
    with tempfile.TemporaryDirectory(prefix="geoseg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        guard = _guarded(Path(folder))
        os.environ |= guard
        from ray.cluster_utils import Cluster  # reads the environment

        cluster = Cluster()
        try:
            for _ in ("head", "second"):
                cluster.add_node(
                    node_ip_address=LOOPBACK,
                    num_cpus=options.cpus,
                    object_store_memory=STORE_BYTES,
                    include_dashboard=False,
                )
            signal.signal(signal.SIGTERM, _leave)  # instead of Ray's handler, which drains for half a minute
            os.environ["RAY_ADDRESS"] = cluster.address
            print(f"two nodes of {options.cpus} at {cluster.address}", file=sys.stderr, flush=True)
            return _run(options.command) if options.command else _wait(guard)
        except KeyboardInterrupt:
            return 130
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            cluster.shutdown()


def _guarded(folder: Path) -> dict[str, str]:
    """Environment of a cluster that takes nobody without its token, which lies in a file that only its owner reads."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a driver takes loopback for its address, as on these systems
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _run(command: list[str]) -> int:
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        return process.wait()
    except KeyboardInterrupt:  # which it got, too
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(guard: dict[str, str]) -> int:
    for name in ("RAY_ADDRESS", *guard):
        print(f"export {name}={os.environ[name]}", flush=True)
    print("Ctrl+C ends both nodes", file=sys.stderr, flush=True)
    while True:
        signal.pause()


def _leave(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
