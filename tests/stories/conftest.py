"""One uninterrupted demo, run once, that the stories compare with and copy from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from demo_runs import answer, demo_words, gas_turbine, penstock

TICKS, EPOCHS = 400, 2


@dataclass(frozen=True)
class Demo:
    site: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`penstock demo` over the first 400 hours of 2014, after two passes of training."""
    if gas_turbine() is None:
        reason = "the gas-turbine files are neither in PENSTOCK_DATASETS nor beside the checkout, nor to be downloaded"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    site = tmp_path_factory.mktemp("demo") / "site"
    return Demo(site=site, report=answer(penstock(*demo_words(site, TICKS, EPOCHS))))
