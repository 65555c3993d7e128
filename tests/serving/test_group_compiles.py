"""Nothing is compiled on the request path: whoever is asked, and however many are asked at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from penstock.serving.backend import kernel
from penstock.serving.backend.forward import Shape
from penstock.serving.backend.group import Group
from penstock.serving.backend.variants import begin

PROGRAM = """
import os, sys
from pathlib import Path
import numpy as np
from penstock.serving.backend.forward import Shape
from penstock.serving.backend.group import Group
from penstock.serving.backend.variants import begin

def compiled():
    return len(list(Path(sys.argv[1]).glob("*forward*before_optimizations.txt")))

shape = Shape(rows=6, features=3, units=(4,), outputs=1)
group, rng = Group.begin(shape, begin(sys.argv[2], shape)), np.random.default_rng(0)
counts = [compiled()]
for _ in range(20):
    arrays = {k: rng.normal(0, 0.1, v).astype(np.float32) for k, v in shape.arrays().items()}
    group, _ = group.add(arrays)
for members in ([0], [3], [0, 1, 2], list(range(20)), [5, 17], [4] * 32, [1, 1, 2, 2, 2]):
    windows = rng.normal(size=(len(members), 6, 3)).astype(np.float32)
    assert group.run(np.array(members), windows, lambda: False).shape == (len(members), 1)
    counts.append(compiled())
print(counts)
"""


def test_any_members_any_number_is_compiled_before_the_first_request(tmp_path: Path) -> None:
    """XLA writes down every program that it compiles."""
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), "xla"], capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    counts = [int(text) for text in run.stdout.splitlines()[-1].strip("[]").split(",")]
    assert counts[0] == 2, "one program for a single window per member, one for many"
    assert set(counts) == {2}, counts


def test_machine_code_is_compiled_once_for_all_shapes() -> None:
    compiled = len(kernel.answer.overloads)
    for shape in (Shape(6, 3, (4,), 1), Shape(2, 9, (5, 3), 2)):
        group, _ = Group.begin(shape, begin("kernel", shape)).add(
            {name: np.zeros(size, np.float32) for name, size in shape.arrays().items()}
        )
        group.run(np.zeros(3, np.int64), np.zeros((3, shape.rows, shape.features), np.float32), lambda: False)
    assert len(kernel.answer.overloads) == compiled == 1
