"""What to change where a machine does not hold a plant, in sentences with figures. Pure.

Each sentence names one change that alone brings that resource to at most 70 %; figures are found by asking
`size.needs_of` again with the change made, so that they hold by the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from penstock.data.durations import SECOND_NS, UNITS_NS, duration_text
from penstock.size import TIGHT, Need, Wish, needs_of
from penstock.size_constants import row_us, window_us
from penstock.size_machine import Machine

TICKS_NS = tuple(
    int(number * SECOND_NS) for number in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
)
UNITS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 8)
KEEPS_NS = tuple(UNITS_NS["d"] * days for days in (3650, 1825, 1095, 730, 365, 180, 90, 60, 30, 21, 14, 7, 3, 2, 1))
TIMES = ("Triton's tick", "stream's tick", "Dask's tick", "processor", "durable writes")


def changes(wish: Wish, machine: Machine, needs: Iterable[Need]) -> list[str]:
    """A sentence or more per resource that is short or tight; none where all is well."""
    return [f"{need.resource}: {text}" for need in needs if need.state != "ok" for text in _of(need, wish, machine)]


def _of(need: Need, wish: Wish, machine: Machine) -> Iterator[str]:
    found = list(_smaller(need, wish, machine)) + list(_larger(need, machine))
    if need.resource in TIMES[1:3]:
        found.append("spread tags and models over several sites, each on a machine of its own")
    yield from found


def _smaller(need: Need, wish: Wish, machine: Machine) -> Iterator[str]:
    """Plants that ask for less."""

    def first(values: Iterable[int], made: Callable[[int], tuple[Wish, Machine]]) -> int | None:
        return next((value for value in values if _share(need.resource, *made(value)) <= TIGHT), None)

    if need.resource in (*TIMES, "disk"):
        longer = (ns for ns in TICKS_NS if ns > wish.tick_ns)
        if (tick := first(longer, lambda ns: (replace(wish, tick_ns=ns), machine))) is not None:
            yield f"a tick of {duration_text(tick)} (--tick)"
    if need.resource in ("Triton's tick", "processor"):
        fewer = (units for units in UNITS if units < wish.units)
        if (units := first(fewer, lambda units: _with_units(wish, machine, units))) is not None:
            yield f"models of {units} units (--units)"
    if need.resource == "disk":
        shorter = (ns for ns in KEEPS_NS if ns < wish.keep_ns)
        if (keep := first(shorter, lambda ns: (replace(wish, keep_ns=ns), machine))) is not None:
            yield f"history of {duration_text(keep)} (--keep)"
    if need.resource in ("Triton's tick", "processor", "memory", "/dev/shm"):
        models = _most(wish.models, lambda count: _share(need.resource, replace(wish, models=count), machine))
        if 0 < models < wish.models:
            yield f"at most {models:,} models on this machine"


def _larger(need: Need, machine: Machine) -> Iterator[str]:
    """Machines that have more."""
    wanted = need.need / TIGHT
    match need.resource:
        case "processor":
            yield f"{-(-need.need * machine.cores // (TIGHT * (need.have or 1))):.0f} cores instead of {machine.cores}"
        case "memory":
            yield f"{wanted:.1f} GiB of free memory instead of {need.have:.1f}"
        case "disk":
            yield f"{wanted:,.0f} GiB of free disk instead of {need.have:,.0f}"
        case "/dev/shm":
            yield f"in a container: --shm-size={wanted:.0f}m"
        case "durable writes":
            yield f"a disk that makes a write durable in {(need.have or 0) * TIGHT / len(need.parts):.2g} ms"
        case "Triton's tick":
            servers = -(-need.need // (TIGHT * (need.have or 1)))
            yield f"{servers:.0f} Triton servers on machines of their own (triton.endpoints in site.toml)"
        case "Dask's tick":
            workers = -(-2 * need.need // (TIGHT * (need.have or 1)))
            yield f"{workers:.0f} workers (dask.workers and shards in site.toml), with a core each"


def _with_units(wish: Wish, machine: Machine, units: int) -> tuple[Wish, Machine]:
    """Smaller models, and what this machine would take for one of their windows, and of their rows."""
    other = replace(wish, units=units)
    window, row = (us(*other.shape) / us(*wish.shape) for us in (window_us, row_us))
    return other, replace(machine, window_us=machine.window_us * window, row_us=machine.row_us * row)


def _share(resource: str, wish: Wish, machine: Machine) -> float:
    return next(need.share or 0.0 for need in needs_of(wish, machine) if need.resource == resource)


def _most(count: int, share: Callable[[int], float]) -> int:
    """The largest number up to `count` that is not tight; 0: none is."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if share(middle) <= TIGHT else (low, middle - 1)
    return low
