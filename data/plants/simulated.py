"""The plant.toml of a simulated power station, written for its units and tags."""

from __future__ import annotations

from penstock.data.durations import SECOND_NS, duration_text
from penstock.data.simulator_sensors import RANGES, unit_of
from penstock.data.simulator_station import Station

_HEAD = """\
# SIMULATED: no plant behind it. A seeded power station of {units} units with {tags} sensors each.
# Its readings: penstock import simulated:60d, then penstock stream --replay simulated:60d..90d
# The name says which station it is; another seed is another station.

[plant]
name = "{name}"
period = "{period}"
timezone = "UTC"
clock = "replay"

[assets.unit]
range = "{first}..{last}"

[tags]
for_each = "unit"
"""
_MODELS = """
[defaults.model]
for_each = "unit"
step = "{step}"
window = "{window}"
every = "{every}"
when = "{{unit}}.FUEL > 1" # a unit that stands still is neither trained on nor scored
past_target = true
prepare = {{ "*" = ["difference"] }}
lstm = {{ units = 32, layers = 1, change_from_last = true }}

[model.power]
target = "{{unit}}.POWER"
inputs = ["{{unit}}.FUEL", "{{unit}}.IGV", "{{unit}}.AMBIENT_T", "{{unit}}.AMBIENT_P"]

[model.nox]
target = "{{unit}}.NOX"
inputs = ["{{unit}}.FLAME_T", "{{unit}}.WATER", "{{unit}}.SPLIT", "{{unit}}.HUMIDITY"]
"""
ROWS = 24
"""Rows of a model's window."""


def simulated_plant(station: Station) -> str:
    """plant.toml: tags per unit, models `power.U001`, ... that answer every 5 minutes, a fleet at every tick."""
    units, period = station.unit_names(), station.period_ns
    step = max(period, 300 * SECOND_NS - 300 * SECOND_NS % period)
    head = _HEAD.format(
        units=station.units,
        tags=station.tags,
        name=station.text(),
        period=duration_text(period),
        first=units[0],
        last=units[-1],
    )
    sensors = [_tag(number, name) for number, name in enumerate(station.sensor_names())]
    return (
        head
        + "".join(sensors)
        + _MODELS.format(
            step=duration_text(step),
            window=duration_text(ROWS * step),
            every=duration_text(period if station.is_fleet else step),
        )
    )


def _tag(number: int, name: str) -> str:
    """One line of [tags]."""
    keys = [f'unit = "{unit_of(number)}"']
    if number < len(RANGES):
        keys.append("range = [{}, {}]".format(*RANGES[number]))
    keys += ['max_gap = "10min"', 'flat_after = "30min"']
    return f'"{{unit}}.{name}" = {{ {", ".join(keys)} }}\n'
