"""A driver of its own: maps some blocks, loses a worker, and tells what Prometheus finds.

python -m tests.run.measured_pool BUNDLE SCENE FOLDER

Events go to standard output as JSON lines; the first is `up`, once Ray runs, the last `found`, with the meters' names.
A process of its own, because Ray ends its driver where its raylet or its control store dies, and because exporters of
metrics that an earlier ray.init in the same process has started go on for as long as the process lives.
"""

from __future__ import annotations

import re
import signal
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import ray

from geoseg.grid.lattice import Blocks, Lattice
from geoseg.io.blockstore import BlockStore
from geoseg.io.sources import open_scene
from geoseg.model.bundle import Bundle
from geoseg.model.runtimes import RuntimeChoice, SegmenterRecipe
from geoseg.run.events import JsonReporter
from geoseg.run.job import Workers
from geoseg.run.meters import METERS
from geoseg.run.on_ray import RayEngine
from geoseg.run.pace import WORKERS
from geoseg.run.work import SceneWork
from geoseg.spec import SegmentSpec
from tests.run.results import descendants

SCRAPE_S = 60.0
OWN = re.compile(r"^ray_(geoseg_[a-z_]+?)(?:_total|_bucket)?[{ ]", re.M)
OF_HISTOGRAMS = {"geoseg_block_seconds_count", "geoseg_block_seconds_sum"}


def main(model: Path, path: Path, folder: Path) -> None:
    bundle, spec, reporter = Bundle.open(model), SegmentSpec(256, 64), JsonReporter()
    scene = open_scene(str(path), bundle.card.input_spec)
    lattice = Lattice(scene.grid.height, scene.grid.width, spec)
    quick = {"metrics_report_interval_ms": 300}
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config=quick)
    reporter.fact("up", logs=f"{ray._private.worker.global_worker.node.get_session_dir_path()}/logs")
    recipe = SegmenterRecipe.of(bundle, spec, RuntimeChoice.decide(bundle.card))
    engine = RayEngine(recipe, Workers(1, 1), reporter=reporter)
    try:
        store = BlockStore(folder, "key")
        work = SceneWork(scene, lattice, bundle.card.legend, store, engine.proof(), path.stem)
        mapped = []
        for done in engine.segment(work, Blocks.of(lattice, 128)):
            if not mapped:
                (worker,) = descendants("ray::SegmentActor")
                worker.send_signal(signal.SIGKILL)
                reporter.fact("waiting", bottleneck=limit_after(engine))
            mapped.append(done.name)
        reporter.fact("mapped", blocks=mapped, bottleneck=engine.limit)
        reporter.fact("found", meters=sorted(scraped() - OF_HISTOGRAMS))
    finally:
        engine.close()
        ray.shutdown()


def limit_after(engine: RayEngine) -> str:
    """What limits once the pool has missed its only worker; it takes a second and more to start another one."""
    deadline = time.monotonic() + SCRAPE_S
    while engine.limit != WORKERS and time.monotonic() < deadline:
        time.sleep(0.01)
    return engine.limit


def scraped() -> set[str]:
    """Names of our meters on the node's page, as soon as all are there, or after a minute."""
    found: set[str] = set()
    deadline = time.monotonic() + SCRAPE_S
    while not found >= METERS.keys() and time.monotonic() < deadline:
        time.sleep(0.3)
        (node,) = ray.nodes()
        where = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with suppress(OSError):  # its port is not known at once
            found |= set(OWN.findall(urllib.request.urlopen(where, timeout=10).read().decode()))
    return found


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
