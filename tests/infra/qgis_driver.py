"""Runs algorithms of the plugin as QGIS's toolbox does: by a Python that has PyQGIS; prints one JSON object a task.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/infra/qgis_driver.py < TASKS.json

TASKS: [{"algorithm", "parameters", "layers": {parameter: {"polygons": {name: WKT}, "file", "select": [name]}},
"cancel_at", "cancel_above", "keep", "thread"}]
layers: of the project, in memory or of a file, for these parameters.
cancel_at, cancel_above: the words in the log, or the percent, at which the user presses Cancel.
keep: the project stays as the task before has left it.
thread: in the background, as the toolbox does it, not as scripts do.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
PLUGINS = os.environ.get("GEOSEG_PLUGIN") or str(Path(__file__).parents[2] / "infra" / "qgis")
sys.path[:0] = ["/usr/share/qgis/python/plugins", PLUGINS]

from qgis.core import (  # noqa: E402
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QEventLoop  # noqa: E402


class Feedback(QgsProcessingFeedback):
    """Keeps what it is told, and presses Cancel."""

    def __init__(self, cancel_at, cancel_above):
        super().__init__(False)
        self.cancel_at, self.cancel_above, self.log, self.bar = cancel_at, cancel_above, [], []
        self.progressChanged.connect(self._move)

    def _move(self, percent):
        self.bar.append(percent)
        if self.cancel_above is not None and percent > self.cancel_above:
            self.cancel()

    def _keep(self, kind, text):
        self.log.append([kind, text])
        if self.cancel_at is not None and self.cancel_at in text:
            self.cancel()

    def errors(self):
        return [text for kind, text in self.log if kind == "error"]

    def pushInfo(self, text):
        self._keep("info", text)

    def setProgressText(self, text):
        self._keep("stage", text)

    def pushWarning(self, text):
        self._keep("warning", text)

    def reportError(self, text, fatal=False):
        self._keep("error", text)

    def pushCommandInfo(self, text):
        self._keep("command", text)

    def pushConsoleInfo(self, text):
        self._keep("console", text)


def layer_of_project(name, polygons, file, select, project):
    layer = QgsVectorLayer(
        file or "Polygon?crs=EPSG:32640&field=region:string", name, "ogr" if file else "memory"
    )
    for label, wkt in (polygons or {}).items():
        feature = QgsFeature(layer.fields())
        feature["region"] = label
        feature.setGeometry(QgsGeometry.fromWkt(wkt))
        assert layer.dataProvider().addFeature(feature)
    layer.updateExtents()
    assert layer.isValid() and project.addMapLayer(layer)
    if select:
        layer.selectByExpression("region IN ({})".format(", ".join(f"'{label}'" for label in select)))
        return QgsProcessingFeatureSourceDefinition(layer.id(), selectedFeaturesOnly=True)
    return layer.id()


def describe(layer):
    facts = {"name": layer.name(), "valid": layer.isValid(), "kind": layer.renderer().type()}
    facts["shown"] = QgsProject.instance().layerTreeRoot().findLayer(layer).isVisible()
    if facts["kind"] == "paletted":
        facts["classes"] = [entry.label for entry in layer.renderer().classes()]
    elif not isinstance(layer, QgsRasterLayer):
        facts["colors"] = [item.symbol().color().name() for item in layer.renderer().legendSymbolItems()]
    return facts


def run_here(name, parameters, context, feedback):
    """As scripts and models do."""
    import processing
    from processing.gui.Postprocessing import handleAlgorithmResults

    try:
        done = {"feedback": feedback, "context": context, "onFinish": handleAlgorithmResults}
        return processing.run(name, parameters, **done), None
    except QgsProcessingException as error:
        return None, str(error)


def run_in_thread(name, parameters, context, feedback):
    """As the toolbox does."""
    from processing.gui.Postprocessing import handleAlgorithmResults

    algorithm = QgsApplication.processingRegistry().createAlgorithmById(name)
    runner = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
    loop, answers = QEventLoop(), []

    def executed(well, results):
        answers.append((results, None) if well else (None, "; ".join(feedback.errors())))
        if well:
            handleAlgorithmResults(algorithm, context, feedback)
        loop.quit()

    runner.executed.connect(executed)
    QgsApplication.taskManager().addTask(runner)
    loop.exec_()
    return answers[0]


def run(task):
    project = QgsProject.instance()
    if not task.get("keep"):
        project.clear()
    parameters = dict(task["parameters"])
    for name, layer in task.get("layers", {}).items():
        options = (layer.get(option) for option in ("polygons", "file", "select"))
        parameters[name] = layer_of_project(name, *options, project)
    before = set() if task.get("keep") else set(project.mapLayers())
    context, feedback = QgsProcessingContext(), Feedback(task.get("cancel_at"), task.get("cancel_above"))
    context.setProject(project)
    way = run_in_thread if task.get("thread") else run_here
    results, error = way(task["algorithm"], parameters, context, feedback)
    answer = {"results": results, "error": error}
    loaded = [layer for key, layer in project.mapLayers().items() if key not in before]
    order = [layer.name() for layer in project.layerTreeRoot().layerOrder()]
    loaded.sort(key=lambda layer: order.index(layer.name()))
    return {
        **answer,
        "log": feedback.log,
        "bar": feedback.bar,
        "layers": [describe(layer) for layer in loaded],
    }


def main():
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    from processing.core.Processing import Processing

    Processing.initialize()
    import geoseg_processing

    plugin = geoseg_processing.classFactory(None)
    plugin.initProcessing()
    for task in json.load(sys.stdin):
        print(json.dumps(run(task)), flush=True)
    plugin.unload()
    sys.stdout.flush()
    os._exit(0)  # taking PyQGIS down in order can crash


main()
