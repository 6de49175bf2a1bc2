"""Options and job files: what cannot be is refused before anything starts, and nothing in a file is executed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from geoseg.errors import SpecError
from geoseg.run.job import make_job
from tests.bad_input.attempt import NOTHING_STARTED, SOME_FAILED, Try, attempt, attempt_in_shell
from tests.run.results import write_scene


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--margin-px", 128], "margin must lie in 0..127 px for a patch of 256 px"),
        (["--margin-px", -1], "margin must lie in 0..127 px"),
        (["--patch-px", 100], "multiple of 32"),
        (["--patch-px", 0], "multiple of 32"),
        (["--block-px", 0], "block_px: Input should be greater than or equal to 1"),
        (["--workers", 0], "workers: 0 is neither a number from 1 up nor a range such as 2:16"),
        (["--bands", "1,2"], "the model takes 3 bands (red, green, blue), 2 were chosen"),
        (["--bands", "1,2,4"], "has 3 bands; the model takes 3 (red, green, blue), looked for as 1, 2, 4"),
        (["--bands", "0,1,2"], "looked for as 0, 1, 2"),
        (["--gsd", 0], "gsd: Input should be greater than 0"),
        (["--gsd", "nan"], "gsd: Input should be greater than 0"),
        (["--gsd", "inf"], "ground sample distance must be above 0"),
        (["--config", "=X"], "config: '': 'X' is no GDAL option"),
    ],
)
def test_impossible_settings_are_refused(run: Try, good: Path, options: list[object], words: str) -> None:
    run(good, *options).refused(NOTHING_STARTED, words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "GDAL_CACHEMAX"], "'GDAL_CACHEMAX' is not of the form KEY=VALUE"),
        (["--bands", "red"], "'red' is not a list of whole numbers such as 4,3,2"),
        (["--margin-px", "wide"], "'wide' is not a valid integer"),
        (["--runtime", "abacus"], "'abacus' is not one of"),
    ],
)
def test_options_that_do_not_parse_show_the_usage(
    run: Try, good: Path, options: list[object], words: str
) -> None:
    tried = run(good, *options)
    assert tried.code == NOTHING_STARTED
    assert words in tried.stderr[-1]
    assert not tried.published


@pytest.mark.parametrize("patch_px", range(32, 1025, 32))
def test_a_margin_that_is_not_given_fits_every_patch(patch_px: int) -> None:
    job = make_job({"scenes": ("a.tif",), "output": "out", "patch_px": patch_px})
    spec = job.segment_spec(512)
    assert spec.margin_px == min(64, patch_px // 4)
    assert job.model_copy(update={"patch_px": None}).segment_spec(patch_px) == spec


@pytest.mark.parametrize("options", [["--patch-px", 1_000_000_000 // 32 * 32], ["--workers", 100_000]])
def test_what_does_not_fit_into_memory_is_refused(run: Try, good: Path, options: list[object]) -> None:
    run(good, *options).refused(NOTHING_STARTED, good, "of memory and", "take a smaller")


def test_two_scenes_of_one_name_are_refused(run: Try, good: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = shutil.copy(good, tmp_path / "other" / good.name)
    run(good, twin).refused(NOTHING_STARTED, good, twin, "would both write to", "rename one")


@pytest.mark.parametrize("option", ["--labels", "--regions", "--mask"])
@pytest.mark.parametrize("scenes", [0, 2])
def test_companions_go_with_one_scene(run: Try, good: Path, option: str, scenes: int) -> None:
    many = [good, "other.tif"][:scenes]
    run(*many, option, good).refused(NOTHING_STARTED, f"{option} goes with one scene, there are {scenes}")


@pytest.mark.parametrize("name", ["..tif", ".tif", "...", "..", ""])
def test_scenes_whose_results_would_have_no_folder_are_refused(run: Try, tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/x/{name}" if name else name
    run(path).refused(NOTHING_STARTED, "would have no folder name; rename the file")


def test_no_scene_and_no_output(run: Try, good: Path) -> None:
    run().refused(NOTHING_STARTED, "scenes: none given; name at least one")
    with pytest.raises(SpecError, match="output: none given; name a folder with -o"):
        make_job({"scenes": (str(good),)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such job file"),
        (b"scenes: [good.tif\n", "cannot be read as YAML"),
        (b"\x00\xff", "cannot be read as YAML"),
        (b"[" * 5000, "cannot be read as YAML"),
        (b"", "a job file holds fields and values"),
        (b"- good.tif", "a job file holds fields and values"),
        (b"1: 2\nscenes: [good.tif]", "1: Keys should be strings"),
        (b"scenes: [good.tif]\nsurprise: 1", "surprise: no such field"),
        (b"scenes: [{path: good.tif, lables: l.tif}]", "scenes.0.lables: no such field"),
        (b"scenes: [{labels: l.tif}]", "scenes.0.path: is missing"),
        (b"scenes: 5", "scenes:"),
        (b"scenes: [5]", "scenes.0:"),
        (b"scenes: []", "scenes:"),
        (b"scenes: &s [*s]", "scenes.0:"),
        (b"scenes: [good.tif]\nblock_px: many", "block_px: Input should be a valid integer"),
        (b"scenes: [good.tif]\nblend: soup", "blend: Input should be 'crop' or 'hann'"),
        (b"scenes: [good.tif]\nconfig: [a]", "config:"),
        (b"scenes: [good.tif]\nmodel: gone", "no such bundle"),
        (b"scenes: [gone.tif]", "no such file"),
    ],
)
def test_job_files_that_do_not_hold_are_refused(
    good: Path, tmp_path: Path, tiny_bundle: Path, text: bytes | None, words: str
) -> None:
    job = tmp_path / "job.yaml"
    if text is not None:
        job.write_bytes(text)
    model = [] if text is not None and b"model" in text else ["--model", tiny_bundle]
    attempt(tmp_path / "out", "--job", job, *model).refused(NOTHING_STARTED, words)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch {}']", "!!python/object/new:os.system ['touch {}']"]
)
def test_nothing_in_a_job_file_is_executed(tmp_path: Path, tag: str) -> None:
    job, mark = tmp_path / "job.yaml", tmp_path / "executed"
    job.write_text(f"scenes: {tag.format(mark)}")
    attempt_in_shell(tmp_path / "out", "--job", job).refused(NOTHING_STARTED, job, "cannot be read as YAML")
    assert not mark.exists()


def test_job_files_that_refer_to_themselves_a_billion_times_do_not_hang(run: Try, tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    (tmp_path / "job.yaml").write_text("\n".join([*lines, "scenes: *a9"]))
    run("--job", tmp_path / "job.yaml").refused(NOTHING_STARTED, "job.yaml")


def test_one_bad_scene_of_a_job_does_not_stop_the_other(run: Try, tmp_path: Path) -> None:
    write_scene(tmp_path / "good.tif", 200, 300)
    (tmp_path / "job.yaml").write_text("scenes: [{path: good.tif, labels: gone.tif}, good2.tif, gone2.tif]")
    shutil.copy(tmp_path / "good.tif", tmp_path / "good2.tif")
    tried = run("--job", tmp_path / "job.yaml")
    assert tried.code == SOME_FAILED
    assert [line.rsplit("/", 1)[1] for line in tried.errors] == [
        "gone.tif: no such file",
        "gone2.tif: no such file",
    ]
    assert {Path(name).parent.name for name in tried.published} == {"good2"}
