"""Models handed over ready made: a Keras model, a Python callable, an ONNX file, stored like a trained one.

Its answers to the newest good windows of the archive are taken down here, in a process of its own where the code is
anybody's; the engine must repeat them before the model is live.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from penstock.batch.golden import Newest, newest_windows
from penstock.batch.history import Source
from penstock.data.durations import duration_text, parse_duration
from penstock.data.libraries import library_versions
from penstock.data.models import Artifact, Draft, Golden, Kind
from penstock.data.plants.given_model import agreeing, given_model
from penstock.data.window_spec import WindowSpec
from penstock.errors import ModelError
from penstock.serving.alone import opened
from penstock.version import VERSION

if TYPE_CHECKING:
    from penstock.site import Site

ACCEPTED = "a Keras model, a function predict(windows) -> values, or the path of an .onnx file"


def is_ready_made(model: Any) -> bool:
    """Whether `model` is handed over itself, rather than by a stored version or its name."""
    return not isinstance(model, Artifact) and (not isinstance(model, str) or model.endswith(".onnx"))


def stored(site: Site, model: Any, name: str | None, keys: Mapping[str, Any], *, isolate: bool) -> Artifact:
    """`model` as the next version of `name`, checked on the newest windows of the archive.

    `keys` are those of a [model.x] table. Raises ModelError, PlantError; then nothing was stored.
    """
    if name is None:
        raise ModelError(f'a ready-made model needs a name: site.deploy(model, name="soft", ...); accepted: {ACCEPTED}')
    kind = _kind(name, model)
    spec, isolate = _described(site, name, keys, model, isolate)
    head = site.readings.head()
    ids = site.registry.lookup()
    source = Source(folder=site.readings.folder, snapshot=head.snapshot)
    newest = newest_windows(
        name, source, spec, [ids[tag.name] for tag in spec.stored], *site.readings.span(snapshot=head.snapshot)
    )
    card = {
        "created": pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
        "spec": spec.to_json(),
        "units": list(spec.target_units),
        "target_scale": [float(s) for s in newest.scale],
        "trained": {"snapshot": head.snapshot},
        "metrics": {},
        "isolate": isolate or kind != "solo",
        "made": _made(model),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "code_version": VERSION,
        "libraries": library_versions(),
    }
    if kind == "solo":
        from penstock.batch import foreign  # TensorFlow is loaded already: the model is one of Keras

        return site.models.save(
            foreign.draft_of(model, name=name, card=card, windows=newest.windows, scale=newest.scale)
        )
    return site.models.save(_draft(name, kind, card, _program(name, kind, model), newest))


def _kind(name: str, model: Any) -> Kind:
    keras = sys.modules.get("keras")  # who has a Keras model has loaded it
    if keras is not None and isinstance(model, keras.Model):
        return "solo"
    if isinstance(model, str | Path):
        return "onnx"
    if callable(model):
        return "callable"
    raise ModelError(f"model {name!r}: found {type(model).__name__}; accepted: {ACCEPTED}, or a stored version")


def _described(site: Site, name: str, keys: Mapping[str, Any], model: Any, isolate: bool) -> tuple[WindowSpec, bool]:
    """The windows, and whether it runs alone: plant.toml's word, else the keys', else that of the version before."""
    plant = site.plant
    if name in plant.models:
        own = agreeing(plant.models[name], keys, plant) if keys else plant.models[name]
        return WindowSpec.of(own, plant), isolate or own.isolate
    if not keys and name in site.models.names():
        return site.spec(name), isolate
    whole = _window(model, keys, plant.period_ns) | dict(keys)
    return WindowSpec.of(given_model(name, whole, plant), plant), isolate


def _window(model: Any, keys: Mapping[str, Any], period_ns: int) -> dict[str, str]:
    """The window that a Keras model of fixed length asks for; empty where it has none, or `step` is no duration."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 3 or not isinstance(shape[1], int):
        return {}
    try:
        step_ns = parse_duration(keys["step"]) if "step" in keys else period_ns
    except (ValueError, TypeError):
        return {}  # told when the keys are read
    return {"window": duration_text(shape[1] * step_ns)}


def _program(name: str, kind: Kind, model: Any) -> bytes:
    """The ONNX file, or the pickled callable. Raises ModelError."""
    if kind == "callable":
        return _pickled(name, model)
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise ModelError(f"model {name!r}: {model}: {error.strerror}; give the path of an .onnx file") from error


def _pickled(name: str, predict: Any) -> bytes:
    import cloudpickle  # comes with Dask, which the light client has not

    try:
        with _files_of_our_own():
            return bytes(cloudpickle.dumps(predict))
    except Exception as error:  # whatever the function holds may refuse in its own way
        raise ModelError(
            f"model {name!r}: cannot be pickled ({type(error).__name__}: {error}); "
            "keep open files, locks and connections out of the function"
        ) from error


@contextmanager
def _files_of_our_own() -> Iterator[None]:
    """Meanwhile what a function uses of them goes into its pickle: no process elsewhere could import it."""
    import cloudpickle

    own = [module for module in list(sys.modules.values()) if _beside_us(module)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _beside_us(module: ModuleType) -> bool:
    """Whether it is a file of the user's own, neither installed nor part of Python."""
    name, file = getattr(module, "__name__", "__main__"), getattr(module, "__file__", None)
    if name.partition(".")[0] in ("__main__", "penstock") or name not in sys.modules or file is None:
        return False
    return not any(Path(file).is_relative_to(folder) for folder in _installed())


@cache
def _installed() -> tuple[Path, ...]:
    """Where installed packages and Python's own are."""
    return tuple(Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib", "purelib", "platlib"))


def _draft(name: str, kind: Kind, card: Mapping[str, Any], program: bytes, newest: Newest) -> Draft:
    """With what the model says to the newest windows, alone. Raises ModelError where that is no answer."""
    with opened(f"model {name!r}", kind, program) as predict:
        values = predict(newest.windows)
    wanted = (len(newest.windows), len(newest.scale))
    if values.shape != wanted:
        raise ModelError(
            f"model {name!r} gives {values.shape} for windows {newest.windows.shape}; "
            f"it must give one column per target: {wanted}"
        )
    if not np.isfinite(values).all():
        raise ModelError(f"model {name!r} gives values that are not finite for the newest windows; mend it and go on")
    golden = Golden(windows=newest.windows, predictions=values, scale=newest.scale)
    return Draft(name=name, kind=kind, card=card, golden=golden, program=program)


def _made(model: Any) -> str:
    """What a reader of the card recognises it by."""
    if isinstance(model, str | Path):
        return Path(model).name
    return str(getattr(model, "__qualname__", None) or type(model).__name__)
