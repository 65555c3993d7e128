"""The pages in a real browser: they move, switch, pan, zoom, and say when they are stale.

1. Both trends move, and the figures of the stream stand there.
2. Another model is picked: its truth and prediction, its unit.
3. The stream hangs: within two ticks the page says stale, and how old the data are.
4. The archive page shows all, zooms into single readings, pans; a spike is never lost.
5. No console error; the process ends cleanly.

Ages and clock run on in the browser, also when the server hangs: then the page says that it is frozen.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_site import Voice, make
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

from penstock.page_process import PageProcess

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
)  # fmt: skip
TEXT = """
const read = node => node.nodeType === 3 ? node.textContent
  : ['STYLE', 'SCRIPT'].includes(node.nodeName) ? ''
  : [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(read).join(' ')
return read(document.body).replace(/\\s+/g, ' ')
"""
SOURCE = """
for (const model of window.Bokeh?.documents[0]?._all_models.values() ?? [])
  if (model.type === 'ColumnDataSource' && arguments[0] in model.data)
    return Object.fromEntries(Object.entries(model.data).map(([name, values]) => [name, [...values]]))
return null
"""
FIND = """
const find = root => {
  for (const element of root.querySelectorAll('*')) {
    if (element.matches(arguments[0])) return element
    const inner = element.shadowRoot && find(element.shadowRoot)
    if (inner) return inner
  }
}
return find(document)
"""
PICK = """
arguments[0].value = arguments[1]
arguments[0].dispatchEvent(new Event('change'))
"""


class Browser:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def text(self) -> str:
        return str(self.driver.execute_script(TEXT))

    def source(self, column: str) -> dict[str, list[float]]:
        return self.driver.execute_script(SOURCE, column) or {"time": []}

    def find(self, selector: str) -> Any:
        return self.driver.execute_script(FIND, selector)

    def errors(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


def until(what: str, true: Callable[[], bool], deadline_s: float = 15.0) -> float:
    """Seconds that it took; fails when it does not come true in time."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < deadline_s, f"{what}: not within {deadline_s} s"
        time.sleep(0.1)
    return time.monotonic() - begun


def at_rest(browser: Browser) -> list[float]:
    """Times on the archive page once they have not changed for a second."""
    seen: list[list[float]] = [browser.source("value")["time"]]
    for _ in range(15):
        time.sleep(1)
        seen.append(browser.source("value")["time"])
        if seen[-1] == seen[-2]:
            return seen[-1]
    pytest.fail("the archive page does not come to rest")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        reason = "no chromium and chromedriver in /usr/bin: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make(tmp_path)


@pytest.fixture
def voice(site: Path) -> Iterator[Voice]:
    voice = Voice(site)
    yield voice
    voice.end()


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """`penstock page`; at the end it is asked to stop, and must do so cleanly."""
    words = [sys.executable, "-m", "penstock", "page", "--site", str(site)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as page:
        try:
            assert page.stdout is not None
            yield page.stdout.readline().removeprefix("page: ").strip()
        finally:
            page.send_signal(signal.SIGTERM)
            try:
                _, complaints = page.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                page.kill()
                raise
        assert page.returncode == 0, complaints
        assert "Traceback" not in complaints, complaints


@pytest.mark.timeout(120)
def test_a_person_watches_the_plant(address: str, voice: Voice, browser: Browser) -> None:
    browser.driver.get(address)

    # 1
    until("rows", lambda: len(browser.source("truth")["time"]) > 100)
    before = browser.source("truth")
    until("new rows", lambda: len(browser.source("truth")["time"]) > len(before["time"]) + 3)
    after = browser.source("truth")
    assert after["truth"][-2] != before["truth"][-2]
    assert after["prediction"][-1] != before["prediction"][-1]
    assert after["prediction"][-1] - after["truth"][-1] == pytest.approx(3, abs=1e-3)
    assert any(value is not None and value == value for value in after["filled"])
    assert any(value is not None and value == value for value in after["faulty"])
    said = browser.text()
    for words in ("pump", "LIVE", "current", "live MAE 3.00 m3/h persistence", "flow@1", "2025-03-02", "late ▲ 7",
                  "rejected ▲ 5", "prediction of flow for 2025-03-01 0", "truth of 2025-03-01 0"):  # fmt: skip
        assert words in said, f"{words!r} is not in: {said}"

    # 2
    browser.driver.execute_script(PICK, browser.find("select"), "speed")
    until("the other model", lambda: browser.source("truth")["prediction"][-1:] > [1000])
    until("its words", lambda: "speed@1" in browser.text() and "rpm, n" in browser.text())

    # 3
    voice.hush()
    took = until("stale", lambda: "STALE" in browser.text(), 10)
    assert took < 2 * 1.0 + 4, "two ticks, and a poll and a refresh on a busy machine"
    assert "the stream says nothing new" in browser.text()
    assert browser.errors() == []

    # 4
    browser.driver.get(f"{address}archive")
    until("the archive", lambda: len(browser.source("value")["time"]) > 1000)
    browser.driver.execute_script(PICK, browser.find("select"), "flow")
    until("flow", lambda: 399.0 in browser.source("value").get("value", []))  # one reading in 12,000
    whole = browser.source("value")
    assert len(whole["time"]) <= 5000
    assert any(value is not None and value == value for value in whole["faulty"])
    canvas = browser.find(".bk-Canvas") or browser.find("canvas")
    for _ in range(6):
        ActionChains(browser.driver).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, -400).perform()
    until("single readings", lambda: "every reading of the span" in browser.text())
    near = at_rest(browser)
    assert near[-1] - near[0] < (whole["time"][-1] - whole["time"][0]) / 10
    drag = ActionChains(browser.driver).move_to_element(canvas).click_and_hold()
    for _ in range(5):
        drag = drag.move_by_offset(50, 0).pause(0.05)
    drag.release().perform()
    until("panned", lambda: browser.source("value")["time"][0] < near[0])

    # 5
    assert browser.errors() == []


@pytest.mark.timeout(120)
def test_the_browser_lets_ages_run_on_and_says_when_its_server_hangs(
    site: Path, voice: Voice, browser: Browser
) -> None:
    with PageProcess(site) as page:
        browser.driver.get(page.address)
        until("a prediction", lambda: "flow@1" in browser.text())
        value = browser.find("td.v").text
        until("moving values in the sheet", lambda: browser.find("td.v").text != value)
        assert "FROZEN" not in browser.text()
        os.kill(page.pid, signal.SIGSTOP)
        try:
            until("frozen", lambda: "THIS PAGE IS FROZEN" in browser.text())
            until("an older age", lambda: seconds(browser, "data age") > 4)
            clock = browser.find("[data-clock]").text
            until("a later clock", lambda: browser.find("[data-clock]").text > clock)
        finally:
            os.kill(page.pid, signal.SIGCONT)
        until("a page that moves again", lambda: "FROZEN" not in browser.text())
        until("young data", lambda: seconds(browser, "data age") < 2)
        assert browser.errors() == []


def seconds(browser: Browser, name: str) -> float:
    """The age in a tile, below ten minutes."""
    found = re.search(rf"{name} (?:▲ )?([\d.]+) s", browser.text())
    assert found is not None, browser.text()
    return float(found[1])
