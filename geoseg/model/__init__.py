"""Networks, bundles and the runtimes that run them: the only importers of torch and OpenVINO."""
