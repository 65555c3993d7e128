"""site.toml: where a plant runs. Written by people and read strictly: every mistake is told at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from penstock.data.durations import DURATION, parse_duration
from penstock.data.plants.tables import dotted, shown
from penstock.errors import Mistake, PlantError, SiteError, nearest


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _lasting(text: str) -> str:
    if parse_duration(text) == 0:
        raise ValueError("longer than 0")
    return text


Duration = Annotated[str, AfterValidator(_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JournalSettings(_Section):
    """[journal]"""

    segment_mb: int = Field(default=64, ge=16, le=1024, description="a whole number from 16 to 1024")
    """Size of one segment file; the largest group of readings must fit into one."""


class ArchiveSettings(_Section):
    """[archive]"""

    commit_every: Annotated[Duration, AfterValidator(_lasting)] = Field(
        default="10s", description=f"longer than 0, {DURATION}"
    )
    """How often the archiver commits while readings come in."""

    @property
    def commit_every_s(self) -> float:
        """The same in seconds."""
        return parse_duration(self.commit_every) / 1e9


class DaskSettings(_Section):
    """[dask]"""

    scheduler: str | None = Field(
        default=None, pattern=r"^(tcp|tls|ucx|ws|wss)://.+:\d+$", description='an address such as "tcp://10.0.0.5:8786"'
    )
    """Address of a running scheduler; None: a cluster of processes on this machine."""
    ca_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """Certificate of the authority that scheduler, workers and we have ours from; None: as Dask is configured."""
    cert_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """Our own certificate."""
    key_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """Its private key."""
    records: str | None = Field(
        default=None, pattern=r"^[^/\s]+:\d+$", description='an address of this machine, such as "10.0.0.4:8790"'
    )
    """Where workers that cannot read the site fetch what they need; None: any port, where the scheduler sees us."""
    workers: int = Field(default=2, ge=1, description="a whole number from 1")
    """Worker processes of that local cluster."""


class TritonSettings(_Section):
    """[triton]"""

    endpoints: tuple[Annotated[str, Field(pattern=r"^[^:/\s]+:\d+$")], ...] = Field(
        default=(), strict=False, description='a list of host:port, such as ["10.0.0.5:8001"]'
    )
    """host:port of running servers; none: one is started on this machine."""
    capacity: int = Field(default=4096, ge=1, description="a whole number from 1")
    """Slots for models per shape."""


class RetentionSettings(_Section):
    """[retention]"""

    snapshots: Duration = Field(default="1d", description=DURATION)
    """How long old snapshots of archive and batch views stay: longer than the longest training.

    Those that models name stay as long as the models. One takes about 20 kB.
    """
    keep: Annotated[Duration, AfterValidator(_lasting)] | None = Field(
        default=None, description=f"longer than 0, {DURATION}"
    )
    """How long readings stay in the archive; None: for ever."""
    keep_said: Annotated[Duration, AfterValidator(_lasting)] | None = Field(
        default=None, description=f"longer than 0, {DURATION}"
    )
    """How long what was said stays in the speed view."""
    keep_views: Annotated[Duration, AfterValidator(_lasting)] | None = Field(
        default=None, description=f"longer than 0, {DURATION}"
    )
    """How long what was recomputed stays in the batch views."""
    keep_models: int | None = Field(default=None, ge=1, description="a whole number from 1")
    """So many of the newest versions of each model stay, and those that are still needed; None: all."""
    keep_rejects: Annotated[Duration, AfterValidator(_lasting)] | None = Field(
        default=None, description=f"longer than 0, {DURATION}"
    )
    """How long files of refused rows stay."""

    @property
    def snapshots_ns(self) -> int:
        """The same in nanoseconds."""
        return parse_duration(self.snapshots)

    @property
    def limited(self) -> bool:
        """Whether anything is to go some day."""
        return any(getattr(self, name) is not None for name in type(self).model_fields if name.startswith("keep"))


class SourceSettings(_Section):
    """[sources.NAME], [sinks.NAME]: where a source or sink of plant.toml is, and what it asks of its visitors."""

    url: str = Field(
        pattern=r"^(mqtt|mqtts|opc\.tcp|kafka|tcp|tls)://[^\s/]+(/\S*)?$",
        description='an address such as "mqtts://broker:8883", "opc.tcp://server:4840", "kafka://broker:9092" '
        'or, to listen on, "tcp://127.0.0.1:7400"',
    )
    """Where the source is; for a TCP source where penstock listens."""
    user: str | None = Field(default=None, description="text")
    """Name that the source knows us by."""
    password_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """File whose first line is the password."""
    ca_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """Certificates that the other side's must come from; none: the system's."""
    cert_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """Our own certificate, where one is asked for."""
    key_file: str | None = Field(default=None, description="a file's path, relative to the site")
    """Its private key."""
    options: dict[str, str] = Field(default={}, description="a table of texts")
    """Passed on to the client library, such as librdkafka's settings."""


class MetricsSettings(_Section):
    """[metrics]"""

    port: int | None = Field(default=None, ge=1, le=65535, description="a port, 1 to 65535")
    """Of 127.0.0.1, where a stream serves Prometheus metrics; None: it does not."""


class StreamSettings(_Section):
    """[stream]"""

    overload: Literal["all", "block", "newest"] = Field(default="all", description='one of "all", "block", "newest"')
    """When scoring falls behind a live plant: say all, late; hold the sources back; or say the newest alone."""
    behind: Duration = Field(default="1min", description=DURATION)
    """How far: closed ticks that wait longer than this, at least one, are too many."""

    @property
    def behind_ns(self) -> int:
        """The same in nanoseconds."""
        return parse_duration(self.behind)


class Settings(_Section):
    """site.toml"""

    shards: int = Field(default=2, ge=1, le=256, description="a whole number from 1 to 256")
    """Shards per dtype; fixed when the site is created."""
    journal: JournalSettings = JournalSettings()
    archive: ArchiveSettings = ArchiveSettings()
    dask: DaskSettings = DaskSettings()
    triton: TritonSettings = TritonSettings()
    retention: RetentionSettings = RetentionSettings()
    sources: dict[str, SourceSettings] = Field(default={}, description="a table per source, [sources.NAME]")
    """By the names of plant.toml's sources."""
    sinks: dict[str, SourceSettings] = Field(default={}, description="a table per sink, [sinks.NAME]")
    """By the names of plant.toml's sinks."""
    metrics: MetricsSettings = MetricsSettings()
    stream: StreamSettings = StreamSettings()


def read_settings(path: Path) -> Settings:
    """site.toml; a missing file means all defaults. Raises PlantError with all mistakes."""
    try:
        text = path.read_text("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"{path}: cannot be read ({error})") from error
    return parse_settings(text, str(path))


def parse_settings(text: str, file: str) -> Settings:
    """site.toml's text; `file` names it in messages. Raises PlantError with all mistakes."""
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlantError(
            [Mistake(file=file, key="(syntax)", found=str(error), allowed="TOML that can be read")]
        ) from error
    except ValidationError as error:
        raise PlantError([_mistake(dict(e), file) for e in error.errors()]) from error


def _mistake(error: dict[str, Any], file: str) -> Mistake:
    """pydantic's error -> ours, with the nearest known key where one is unknown."""
    where = [str(part) for part in error["loc"]]
    place = ""
    for part in where:
        place = f"{place}[{part}]" if part.isdigit() else dotted(place, part)
    if error["type"] == "extra_forbidden":
        known = _keys(where[:-1])
        allowed = f"one of {', '.join(known)}"
        return Mistake(file=file, key=place, found="an unknown key", allowed=allowed, near=nearest(where[-1], known))
    found = "nothing" if error["type"] == "missing" else shown(error["input"])
    return Mistake(file=file, key=place, found=found, allowed=_allowed(where))


def _keys(where: list[str]) -> list[str]:
    section, _ = _at(where)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _allowed(where: list[str]) -> str:
    """What may stand there: the field's description, which a test wants of every one; else it is a table."""
    said, known = _at(where)[1], ", ".join(_keys(where))
    return said or f"a table, [{'.'.join(where)}], with {known}"


def _at(where: list[str]) -> tuple[Any, str | None]:
    """Type and description of a place; those of the list, or of the table by name, for one of its items."""
    section: Any = Settings
    said: str | None = None
    for part in where:
        if get_origin(section) is dict:
            section = get_args(section)[1]
            said = None if isinstance(section, type) and issubclass(section, BaseModel) else said
        elif not part.isdigit():
            found: FieldInfo = section.model_fields[part]
            section, said = found.annotation, found.description
    return section, said
