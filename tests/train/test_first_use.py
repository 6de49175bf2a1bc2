"""What an analyst meets who trains for the first time: wrong maps are refused, doubtful ones are warned of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from geoseg.cli import main
from geoseg.errors import SpecError
from geoseg.train.config import (
    AugmentSettings,
    DemoEntry,
    LossSettings,
    RegionChoice,
    SceneEntry,
    StartSettings,
    TrainConfig,
)
from geoseg.train.material import gather
from geoseg.train.reading import load_config
from geoseg.train.template import TEMPLATE
from tests.train.scenes import labels_of, write_run, write_scene

BUILDING = {"id": 1, "name": "building", "color": [219, 68, 55], "role": "building"}
OTHER = {"id": 2, "name": "other", "color": [200, 200, 200]}
TOWN = {"scene": "town.tif", "labels": "town_labels.tif"}


def gathered(folder: Path, **changes):
    return gather(load_config(write_run(folder, **changes), {}), folder / "work")


def two_classes(folder: Path, labels: np.ndarray, *entries: dict):
    """Buildings drawn as 1, the rest of the raster 0, as most people draw them."""
    path = write_run(folder, classes=[BUILDING, OTHER], datasets=list(entries))
    write_scene(folder, "town", labels)
    write_scene(folder, "port", labels[:128, :128], seed=1)
    return gather(load_config(path, {}), folder / "work")


DRAWN = (labels_of() == 1).astype(np.uint8)


def test_a_background_of_zeros_that_means_nothing_yet_is_refused(tmp_path):
    with pytest.raises(SpecError) as told:
        two_classes(tmp_path, DRAWN, TOWN)
    assert "town_labels.tif: no pixel to train on has the class other, and the value 0 in these" in str(
        told.value
    )
    assert "labels means nothing yet: say map_class: {0: other}, or ignore: [0] if it means nothing" in str(
        told.value
    )


def test_what_the_refusal_says_is_the_remedy(tmp_path):
    material = two_classes(tmp_path, DRAWN, TOWN | {"map_class": {0: "other"}})
    assert material.indexes[0].counts.sum(axis=(0, 1)).tolist() == [(DRAWN == 1).sum(), (DRAWN == 0).sum(), 0]


def test_a_class_without_pixels_is_refused_though_zero_is_said_to_mean_nothing(tmp_path):
    with pytest.raises(
        SpecError, match="has the class other: give labels that hold it, say with map_class"
    ) as told:
        two_classes(tmp_path, DRAWN, TOWN | {"ignore": [0]})
    assert "value 0" not in str(told.value)


def test_a_background_that_is_declared_nodata_is_refused_with_its_own_remedy(tmp_path):
    import rasterio

    path = write_run(tmp_path, classes=[BUILDING, OTHER], datasets=[TOWN])
    write_scene(tmp_path, "town", DRAWN)
    with rasterio.open(tmp_path / "town_labels.tif", "r+") as dataset:
        dataset.nodata = 0
    with pytest.raises(
        SpecError, match=r"the value 0 is nodata in these labels: .*gdal_edit\.py -unsetnodata"
    ):
        gather(load_config(path, {}), tmp_path / "work")


def test_pixels_that_are_scored_only_teach_no_class(tmp_path):
    port = {
        "scene": "port.tif",
        "labels": "port_labels.tif",
        "map_class": {0: "other"},
        "split": "validation",
    }
    with pytest.raises(SpecError, match="no pixel to train on has the class other"):
        two_classes(tmp_path, DRAWN, TOWN, port)


def test_a_class_that_is_known_as_one_of_several_is_there(tmp_path):
    classes = [BUILDING, OTHER, {"id": 3, "name": "water", "color": [0, 0, 200]}]
    path = write_run(tmp_path, classes=classes, datasets=[TOWN | {"map_class": {0: ["other", "water"]}}])
    write_scene(tmp_path, "town", DRAWN)
    gather(load_config(path, {}), tmp_path / "work")


def test_random_weights_are_not_frozen(tmp_path):
    path = write_run(tmp_path, start={"encoder_rate": 0})
    with pytest.raises(
        SpecError, match=r"train\.yaml: start: encoder_rate: 0 freezes an encoder of random weights"
    ):
        load_config(path, {})


@pytest.mark.parametrize(
    ("gsd_m", "zoom", "warned"),
    [
        ({"min": 0.5, "max": 1.25}, [0.6, 1.6], False),
        ({"min": 1.3, "max": 2}, [0.6, 1.6], False),
        ({"min": 1.4, "max": 2}, [0.6, 1.6], True),
        ({"min": 1.3, "max": 2}, [0.7, 1.6], True),
        ({"min": 0.1, "max": 0.4}, [0.6, 1.6], True),
    ],
)
def test_a_scale_that_is_not_learned_is_warned_of(tmp_path, caplog, gsd_m, zoom, warned):
    """Pixels are 0.8 m: 0.5 to 1.33 m at zooms of 1.6 to 0.6."""
    material = gathered(tmp_path, gsd_m=gsd_m, augment={"zoom": zoom})
    told = [
        line for line in caplog.messages if "which the card promises; write gsd_m: {min: 0.5, max: 1." in line
    ]
    assert list(material.remarks) == told and len(told) == warned


@pytest.mark.parametrize("name", ["building", "Buildings", "houses", "streets", "road"])
def test_a_name_without_its_role_is_warned_of(tmp_path, name):
    role = "road" if name[0] in "rs" else "building"
    classes = [{"id": 1, "name": name, "color": [9, 9, 9]}, OTHER]
    datasets = [TOWN | {"map_class": {str(value): "other" for value in range(3, 6)}}]
    (line,) = gathered(tmp_path, classes=classes, datasets=datasets).remarks
    assert line.startswith(f"class {name} has no role: ") and line.endswith(f"write role: {role}")


def test_names_with_roles_and_other_names_are_not_warned_of(tmp_path):
    assert gathered(tmp_path).remarks == ()


def test_a_version_may_be_a_number(tmp_path):
    assert load_config(write_run(tmp_path, version=1), {}).version == "1"


KINDS = (AugmentSettings, DemoEntry, LossSettings, RegionChoice, SceneEntry, StartSettings, TrainConfig)


def uncommented(text: str) -> str:
    """With each setting that is commented out."""
    return re.sub(r"^( *)#(?=\S| {2}\w+: )", r"\1", text, flags=re.MULTILINE)


def keys_of(value):
    """Of mappings in mappings and lists."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from keys_of(inner)
    if isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


@pytest.mark.parametrize("change", [str, uncommented])
def test_the_template_is_a_training_file(tmp_path, change):
    (tmp_path / "town.yaml").write_text(change(TEMPLATE))
    config = load_config(tmp_path / "town.yaml", {})
    assert [entry.split for entry in config.datasets] == ["train", "train", "train", "test"]


def test_the_template_has_every_key_and_tells_the_defaults():
    values = yaml.safe_load(uncommented(TEMPLATE))
    keys = set(keys_of(values))
    for kind in KINDS:
        assert set(kind.model_fields) - keys == set(), kind
    plain = TrainConfig.model_fields
    for name in (
        "crop_px",
        "batch",
        "accumulate",
        "class_balance",
        "learning_rate",
        "warmup_steps",
        "weight_decay",
    ):
        assert values[name] == plain[name].default, name
    for name in (
        "patch_px",
        "gradient_clip",
        "ema_decay",
        "seed",
        "precision",
        "workers",
        "threads",
        "validate_every",
    ):
        assert values[name] == plain[name].default, name
    assert AugmentSettings(**values["augment"]) == AugmentSettings()
    assert LossSettings(**{k: v for k, v in values["loss"].items() if k != "class_weights"}) == LossSettings()


def test_the_template_is_written_once(tmp_path):
    path = tmp_path / "town.yaml"
    assert CliRunner().invoke(main, ["train", "--template", str(path)]).exit_code == 0
    assert path.read_text() == TEMPLATE
    path.write_text("mine")
    done = CliRunner().invoke(main, ["train", "--template", str(path)])
    assert done.exit_code == 2 and "is there already, so no template is written over it" in done.stderr
    assert path.read_text() == "mine"


@pytest.mark.parametrize("words", [[], ["town.yaml"], ["-o", "town"]])
def test_half_a_command_is_told_what_lacks(words):
    done = CliRunner().invoke(main, ["train", *words])
    assert done.exit_code == 2 and "--template" in done.stderr


def test_what_is_told_of_a_file_needs_no_torch():
    modules = "geoseg.train.reading, geoseg.train.done, geoseg.train.template"
    heavy = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0


def test_scores_can_be_imported_first():
    done = subprocess.run(
        [sys.executable, "-c", "import geoseg.train.scores"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("role", ["building", None])
def test_a_report_says_that_no_class_is_drawn_as_buildings(tmp_path, role):
    """A share of pixels beside a count of 0 polygons would read as a failure."""
    from geoseg.legend import LandClass, Legend
    from geoseg.report.scene import write_scene_report
    from tests.report.folders import write_run as write_results

    classes = LandClass(1, "building", (219, 68, 55), role), LandClass(2, "other", (200, 200, 200))
    page = write_scene_report(write_results(tmp_path / "out", legend=Legend(classes))).read_text()
    assert ("no class has the role building" in page) == (role is None)
