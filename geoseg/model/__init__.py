"""Networks, bundles and the runtimes that run them: the only importers of torch and OpenVINO."""

import sys

# OpenVINO reports to its makers when it is imported, unless it finds no package for that. Nobody asked our users.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
