"""Which answers of a tick are believed, beside a slow engine that looks every slot up by hand."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.plant import HOUR_NS, ModelSpec, Plant, Tag
from penstock.data.scoring import Ask, Member
from penstock.data.windows import WindowSpec
from penstock.serving.lineup import FAILED, judge, line_up, sort_in
from penstock.serving.roster import Roster, together
from penstock.serving.wire import TickAnswer

NAMES = ("co", "nox", "tey")
TAGS = {n: Tag(name=n, unit="MWh") for n in (*NAMES, "IN")}
MODEL = ModelSpec(name="nox", targets=("nox",), inputs=("IN",), step_ns=HOUR_NS, window=2, every_ns=HOUR_NS)
SPEC = WindowSpec.of(MODEL, Plant(name="p", period_ns=HOUR_NS, tags=TAGS, models={"nox": MODEL}))
OTHER = replace(SPEC, horizon=SPEC.horizon + 1)

held = st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(1, 3), st.sampled_from([SPEC, OTHER])))
"""Version and cut by name."""


def roster(endpoint: str, members: dict[str, tuple[int, WindowSpec]], slots: list[int]) -> Roster:
    found = tuple(
        Member(name=n, version=v, slot=s, spec=spec)
        for (n, (v, spec)), s in zip(sorted(members.items()), slots, strict=False)
    )
    return Roster(
        endpoint=endpoint,
        generation=1,
        members=found,
        slots=np.array([m.slot for m in found], np.int32),
        versions=np.array([m.version for m in found], np.int64),
        marks=np.array([zlib.crc32(m.name.encode()) for m in found], np.int64),
        index={m.name: i for i, m in enumerate(found)},
    )


def engine(slots: np.ndarray, living: dict[int, tuple[str, int]], numbers: np.ndarray) -> TickAnswer:
    """What an engine that holds `living` (name and version by slot) says: twice the window's first number."""
    values, ends, versions, members = [], [], [], []
    for slot, number in zip(slots.tolist(), numbers.tolist(), strict=True):
        name, version = living.get(slot, ("", -1))
        values += [2 * number] if version >= 0 else []
        ends.append(len(values))
        versions.append(version)
        members.append(zlib.crc32(name.encode()) if name else 0)
    return TickAnswer(
        numbers=np.array(values, np.float32), ends=np.array(ends), versions=np.array(versions),
        members=np.array(members), kept=np.full(len(members), -1), generation=1, endpoint="a",
    )  # fmt: skip


living = st.dictionaries(
    st.integers(0, 5), st.tuples(st.sampled_from(NAMES), st.sampled_from([FAILED, 1, 2, 3])), max_size=6
)


@given(at_a=held, at_b=held, slots=st.permutations(range(6)), counts=st.lists(st.integers(0, 3)), now=living)
def test_only_the_member_that_was_asked_is_believed(at_a, at_b, slots, counts, now) -> None:
    a, b = roster("a", at_a, slots[:3]), roster("b", at_b, slots[3:])
    members = together([a, b])
    asks = [
        Ask(member=m, windows=np.full((n, 2, 1), 10 * i, np.float32) + np.arange(n, dtype=np.float32)[:, None, None])
        for i, (m, n) in enumerate(zip(members, counts, strict=False))
    ]
    wanted = [i for i, ask in enumerate(asks) if len(ask.windows)]
    line = line_up(asks, wanted, [a, b])
    if line is None:
        assert not wanted
        return
    assert set(line.at.tolist()) <= set(wanted)
    for endpoint, there in (("a", a), ("b", b)):
        has = [i for i in wanted if there.rows([asks[i].member])[0] >= 0]
        assert len(has) <= len(line.at)
        if endpoint in line.slots:
            expected = [there.slots[there.index[m.name]] for m, n in zip(line.members, line.counts, strict=True)
                        for _ in range(n)]  # fmt: skip
            assert line.slots[endpoint].tolist() == expected
            assert set(line.at.tolist()) <= set(has)
    if "a" not in line.slots:
        return
    answer = engine(line.slots["a"], now, line.bundle.numbers.reshape(-1, 2)[:, 0])
    verdict, said = judge(line, answer, a), [None] * len(asks)
    sort_in(line, answer, verdict.good, said)
    for k, i in enumerate(line.at.tolist()):
        member = a.members[a.index[asks[i].member.name]]
        there = now.get(member.slot)
        assert verdict.good[k] == (there == (member.name, member.version))
        assert verdict.raised[k] == (there == (member.name, FAILED))
        if verdict.good[k]:
            assert said[i].version == member.version
            assert said[i].values.tolist() == (2 * asks[i].windows[:, 0]).tolist()
        else:
            assert said[i] is None
    assert verdict.strange == (not (verdict.good | verdict.raised).all())
