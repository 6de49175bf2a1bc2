"""Pages in a real browser without a network: what can be seen, clicked, dragged and reached by keyboard."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoseg.report.everything import write_reports
from tests.report.folders import LEGEND, NASTY, add_failure, write_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver (Debian: chromium, chromium-driver)"
)
FLAGS = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage", "force-color-profile=srgb",
)  # fmt: skip
SHAPE = (420, 500)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("browser") / "out"
    write_run(output, shape=SHAPE)
    write_run(output, "a smaller one", (300, 260), names=(), labels=False)
    add_failure(output, f"lost {NASTY}", f"cannot be opened {NASTY}")
    write_reports(output)
    return output


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def show(browser: Any, path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wishes = {
        "prefers-color-scheme": scheme,
        "prefers-reduced-motion": "reduce",
    }  # no click meets a page that glides
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())


def complaints(browser: Any) -> list[str]:
    """What the console says: script errors, and what the page's policy has refused."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> set[str]:
    """What was asked for, data: addresses aside."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    return {url for url in urls if not url.startswith("data:")}


def find(browser: Any, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def view_box(browser: Any) -> list[float]:
    return [float(part) for part in find(browser, "#map").get_dom_attribute("viewBox").split()]


def color_at(browser: Any, col: int, row: int) -> tuple[int, ...]:
    """What the screen shows at a pixel of the scene."""
    script = """
      const svg = document.getElementById('map'), v = svg.viewBox.baseVal, m = svg.getScreenCTM();
      const scale = arguments[2] / arguments[3];
      return [m.a * arguments[0] * scale + m.e, m.d * arguments[1] * scale + m.f];
    """
    x, y = browser.execute_script(script, col + 0.5, row + 0.5, 8000, max(SHAPE))
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return picture.getpixel((round(x), round(y)))


def close_to(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(abs(x - y) <= 3 for x, y in zip(a, b, strict=True))


def actions(browser: Any) -> Any:
    return webdriver.ActionChains(browser, duration=20)


@pytest.mark.parametrize("name", ["scene/report.html", "a smaller one/report.html", "index.html"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark"), (1920, "light")])
def test_it_opens_at_every_size_without_errors_and_asks_for_nothing(
    browser: Any, run: Path, name: str, width: int, scheme: str
) -> None:
    show(browser, run / name, width, 740, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    assert requests(browser) == {(run / name).as_uri()}
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_cards_fill_their_rows_and_nothing_is_cut(browser: Any, run: Path, width: int) -> None:
    """No column stays empty beside the last card; only what says so scrolls sideways."""
    show(browser, run / "scene/report.html", width)
    rows = browser.execute_script("""
      return [...document.querySelectorAll('.columns')].map((grid) => {
        const right = grid.getBoundingClientRect().right, rows = {};
        for (const card of grid.children) {
          const box = card.getBoundingClientRect();
          rows[box.top] = Math.max(rows[box.top] || 0, box.right);
        }
        return Object.values(rows).map((end) => right - end);
      });
    """)
    assert len(rows) >= 3
    assert all(abs(gap) < 1 for gaps in rows for gap in gaps)
    cut = browser.execute_script("""
      return [...document.querySelectorAll('.card, .place, .figures, .bars, .facts')]
        .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.className);
    """)
    assert cut == []


def test_the_policy_stops_what_does_not_belong_to_the_page(browser: Any, run: Path, tmp_path: Path) -> None:
    """What would be there if escaping failed; and the log that other tests rely on does speak."""
    text = (run / "scene/report.html").read_text(encoding="utf-8")
    evil = '<img src="http://127.0.0.1:9/x.png" onerror="document.title=1"><script>document.title = "taken"</script>'
    (tmp_path / "evil.html").write_text(text.replace("<main>", f"<main>{evil}"), encoding="utf-8")
    show(browser, tmp_path / "evil.html")
    assert browser.title.startswith("scene")
    assert len([line for line in complaints(browser) if "Content Security Policy" in line]) >= 2


def test_layers_switch_and_fade(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    find(browser, '[data-view="landcover"]').click()
    place = 12 + 24 * 12, 12 + 24 * 8  # the middle of a square
    shown = color_at(browser, *place)
    assert any(close_to(shown, c.color) for c in LEGEND.classes)
    slider = find(browser, '[data-layer="landcover"] input[type="range"]')
    slider.send_keys(Keys.HOME)
    empty = color_at(browser, *place)
    assert not any(close_to(empty, c.color) for c in LEGEND.classes)
    for _ in range(10):
        slider.send_keys(Keys.ARROW_RIGHT)
    half = color_at(browser, *place)
    assert close_to(half, tuple((a + b) // 2 for a, b in zip(shown, empty, strict=True)))
    slider.send_keys(Keys.END)
    find(browser, '[data-layer="landcover"] input[type="checkbox"]').send_keys(Keys.SPACE)
    assert close_to(color_at(browser, *place), empty)
    assert not slider.is_enabled()
    assert find(browser, '[data-view="landcover"]').get_attribute("aria-pressed") == "false"
    assert complaints(browser) == []


def test_a_click_on_a_region_shows_its_figures(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    regions = browser.find_elements(By.CSS_SELECTOR, ".region")
    regions[3].click()
    told = find(browser, "#chosen-region").text
    assert told.startswith("east") and "0.800" in told and "80.0 %" in told  # mIoU, accuracy
    assert [r.get_attribute("aria-pressed") for r in regions] == ["false", "false", "false", "true"]
    regions[1].click()
    assert find(browser, "#chosen-region h3").text == NASTY
    assert not browser.find_elements(By.CSS_SELECTOR, "#chosen-region img, #chosen-region script")
    find(browser, '[data-go-region="0"]').click()
    assert find(browser, "#chosen-region h3").text == "north"
    assert view_box(browser)[2] < 8000
    assert complaints(browser) == []


def test_regions_are_colored_by_their_figures(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    find(browser, '[data-view="regions"]').click()
    fills = [r.value_of_css_property("fill") for r in browser.find_elements(By.CSS_SELECTOR, ".region")]
    assert fills[0] == "rgb(68, 1, 84)" and fills[3] == "rgb(253, 231, 37)"  # ends of the ramp
    assert len(set(fills)) == 4
    assert (find(browser, "#measure-low").text, find(browser, "#measure-high").text) == ("0.500", "0.800")
    find(browser, "#measure").send_keys("outlines")
    assert "filled" not in find(browser, ".region").get_attribute("class")


def test_the_keyboard_reaches_map_and_regions(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    find(browser, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "To the map"
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.get_attribute("id") == "map":
            break
    browser.switch_to.active_element.send_keys("+")
    near = view_box(browser)
    assert near[2] < 8000
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert view_box(browser)[0] > near[0]
    browser.switch_to.active_element.send_keys("0")
    assert view_box(browser)[2] == 8000
    browser.switch_to.active_element.send_keys(Keys.TAB)
    region = browser.switch_to.active_element
    assert region.get_attribute("aria-label") == "Region north"
    assert region.value_of_css_property("stroke") == "rgb(255, 210, 31)"  # the focus can be seen
    region.send_keys(Keys.ENTER)
    assert find(browser, "#chosen-region h3").text == "north"
    assert complaints(browser) == []


def test_the_map_is_dragged_and_zoomed_and_a_drag_is_no_click(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    find(browser, "#zoom-in").click()
    before = view_box(browser)
    hold = actions(browser).move_to_element(find(browser, "#map")).click_and_hold()
    hold.move_by_offset(-60, -30).release().perform()
    after = view_box(browser)
    assert after[0] > before[0] and after[1] > before[1] and after[2:] == before[2:]
    assert find(browser, "#chosen-region h3").text == "Region"
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(find(browser, "#map"))
    browser.execute_script("document.activeElement.blur()")
    actions(browser).scroll_from_origin(origin, 0, -200).perform()
    assert view_box(browser) == after  # the wheel scrolls the page until the map is chosen
    browser.execute_script("scrollTo(0, 0); document.getElementById('map').focus()")
    actions(browser).scroll_from_origin(origin, 0, -200).perform()
    assert view_box(browser)[2] < after[2]
    find(browser, "#zoom-all").click()
    assert view_box(browser)[0] == 0 and view_box(browser)[2] == 8000


def test_a_place_moves_the_map_there(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    data = json.loads(find(browser, "#data").get_attribute("textContent"))
    find(browser, '[data-place="0"]').click()
    x, y, w, h = view_box(browser)
    px, py, pw, ph = data["places"][0]
    assert x <= px and y <= py and px + pw <= x + w and py + ph <= y + h and w < 8000
    assert find(browser, "#detail").is_displayed()
    assert browser.switch_to.active_element.get_attribute("id") == "map"
    assert complaints(browser) == []


def test_the_index_sorts_by_any_column_both_ways(browser: Any, run: Path) -> None:
    show(browser, run / "index.html")

    def names() -> list[str]:
        return [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#scenes tbody th")]

    lost = f"lost {NASTY}"
    assert names() == ["scene", "a smaller one", lost]
    heads = {h.text.split()[0]: h for h in browser.find_elements(By.CSS_SELECTOR, "#scenes thead button")}
    heads["scene"].click()
    assert names() == ["a smaller one", lost, "scene"]
    heads["scene"].send_keys(Keys.ENTER)
    assert names() == ["scene", lost, "a smaller one"]
    heads["Mpx"].click()
    assert names() == ["scene", "a smaller one", lost]
    heads["Mpx"].click()
    assert names() == ["a smaller one", "scene", lost]  # what is unknown comes last, either way
    head = heads["Mpx"].find_element(By.XPATH, "..")
    assert head.get_attribute("aria-sort") == "ascending"
    assert complaints(browser) == []


def test_print_leaves_controls_out_and_opens_the_tables(browser: Any, run: Path) -> None:
    show(browser, run / "scene/report.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not find(browser, ".zoom").is_displayed() and not find(browser, ".views").is_displayed()
    assert find(browser, "#map").is_displayed()
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert all(d.get_attribute("open") for d in browser.find_elements(By.TAG_NAME, "details"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
