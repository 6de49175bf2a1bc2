"""A real cluster of several nodes on loopback, in a process of its own.

Ray ends any process that speaks to a control store which is gone for a minute; pytest's own must not be one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Nodes:
    """address: for drivers to join."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def kill(self, number: int) -> None:
        """End one of the nodes beside the head, at once."""
        assert self._process.stdin
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        assert line, "the cluster did not start"
        return line


@contextmanager
def cluster(*nodes: dict[str, Any], head_cpus: int = 1) -> Iterator[Nodes]:
    """A head and these nodes beside it."""
    command = [sys.executable, "-m", "tests.run.nodes", str(head_cpus), json.dumps(nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Nodes(process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(60)


def main(head_cpus: str, nodes: str) -> None:
    from ray.cluster_utils import Cluster

    watch = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {"num_cpus": int(head_cpus), "include_dashboard": False, "_system_config": watch}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        others = [made.add_node(**node) for node in json.loads(nodes)]
        made.wait_for_nodes()
        print(made.address, flush=True)
        for line in sys.stdin:
            made.remove_node(others[int(line)], allow_graceful=False)
            print("gone", flush=True)
    finally:
        made.shutdown()


if __name__ == "__main__":
    import os

    os.environ.setdefault(
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
    )  # read when ray is imported: on loopback only
    main(*sys.argv[1:])
