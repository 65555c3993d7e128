"""Which models a site has, and how their windows are cut: the one place that answers for every part.

A model stands in plant.toml, or it was handed over ready made; then the card of the version that answers says it all.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.data.models import ModelStore
from penstock.data.plant import Plant, Tag, usable_name
from penstock.data.plants.editions import Editions
from penstock.data.plants.templates import is_glob, matching
from penstock.data.registry import Registry
from penstock.data.windows import WindowSpec
from penstock.errors import ModelError, ModelNotFound, nearest


def names(plant: Plant, store: ModelStore) -> list[str]:
    """The plant's models in the order of the file, then those that were handed over and are live."""
    return [*plant.models, *sorted(set(store.champions()) - set(plant.models))]


def trainable(plant: Plant, store: ModelStore, name: str) -> None:
    """Raises ModelError for a model that was handed over ready made, ModelNotFound for one that nobody knows."""
    if name not in plant.models:
        spec(plant, store, name)
        raise ModelError(
            f"{name}: was handed over ready made, so it cannot be trained here: deploy a new one, or describe it in "
            f"plant.toml as [model.{name}]"
        )


def trainable_like(plant: Plant, patterns: Sequence[str]) -> list[str]:
    """The plant's models that are called so or fit a glob, each once; a name that fits none is given as it is."""
    found = [matching(p, plant.models) if is_glob(p, plant.models) else [p] for p in patterns]
    for pattern, fits in zip(patterns, found, strict=True):
        if not fits:
            raise ModelNotFound(
                f"{plant.name}: no model is like {pattern!r}. This plant has: {', '.join(plant.models)}"
            )
    return list(dict.fromkeys(name for fits in found for name in fits))


def stored_like(store: ModelStore, wanted: Sequence[tuple[str, int | None]]) -> list[tuple[str, int | None]]:
    """(name, version) of the stored models that are called so or fit a glob, each once; others are given as they are.

    Raises ModelNotFound for a glob that fits none.
    """
    stored, found = store.names(), []
    for name, version in wanted:
        fits = matching(name, stored) if is_glob(name, stored) else [name]
        if not fits:
            raise ModelNotFound(f"no trained model is like {name!r}; see: penstock models")
        found += [(fit, version) for fit in fits]
    return list(dict.fromkeys(found))


def stored(plant: Plant, registry: Registry, editions: Editions, *, retired: bool) -> list[Tag]:
    """The tags that have an id, in order of it; `retired`: also those that plant.toml has no more, as it last said."""
    names = registry.names()
    if not retired:
        return [plant.tags[name] for name in names if name in plant.tags]
    number = editions.newest()
    was = editions.edition(number).tags() if number else {}
    double = (dtype == "float64" for dtype in registry.dtypes())
    bare = (Tag(name=n, dtype="float64" if d else "float32") for n, d in zip(names, double, strict=True))
    return [plant.tags.get(tag.name) or was.get(tag.name) or tag for tag in bare]


def spec(plant: Plant, store: ModelStore, name: str) -> WindowSpec:
    """How the windows of `name` are cut: as its live version says, else as plant.toml does, else as its newest.

    plant.toml may say otherwise since: that holds from the next version on. Raises ModelNotFound with the nearest
    known name.
    """
    champion = store.champion(name) if usable_name(name) else None
    if champion is not None:
        return WindowSpec.from_json(store.card(name, champion)["spec"])
    return planned(plant, store, name)


def planned(plant: Plant, store: ModelStore, name: str) -> WindowSpec:
    """How the windows of the next version of `name` are cut: as plant.toml says, else as its newest one says.

    Raises ModelNotFound.
    """
    if name in plant.models:
        return WindowSpec.of(plant.models[name], plant)
    stored = store.names()
    if name not in stored:
        known = [*plant.models, *stored]
        near = nearest(name, known)
        hint = f"Did you mean {near!r}?" if near else f"This site has: {', '.join(known) or 'no models'}."
        raise ModelNotFound(f"{plant.name}: no model {name!r}. {hint}")
    return WindowSpec.from_json(store.card(name, store.versions(name)[-1])["spec"])
