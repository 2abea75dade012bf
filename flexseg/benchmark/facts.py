"""What ``run.json`` says of a finished run, checked when it is read, so that who uses it may rely on it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, le=10**18, strict=True)]


class _Facts(BaseModel):
    """Facts that may be missing, as in runs of earlier versions, but are of the right kind. More may be there."""

    model_config = ConfigDict(extra="allow")


class Git(_Facts):
    """The commit of the code, and whether files differed from it."""

    commit: str | None = None
    dirty: bool | None = None


class Machine(_Facts):
    """The machine."""

    processor: str | None = None
    cores: Count | None = None
    system: str | None = None


class OptionFacts(_Facts):
    """A resolved option of the method; value and default may be anything."""

    origin: str | None = None
    help: str | None = None


class RunFacts(_Facts):
    """``run.json`` of a finished run, as :func:`flexseg.engine.ledger.run_record` writes it."""

    status: Literal["finished"]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    definition: dict[str, Any]
    options: dict[str, OptionFacts] = Field(default_factory=dict)
    shows: list[dict[str, Any]] = Field(default_factory=list)
    library: str | None = None
    library_files: list[str] = Field(default_factory=list)
    git: Git | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    machine: Machine | None = None
    kernels: dict[str, Any] = Field(default_factory=dict)
    device: str | None = None
    devices: Count | None = None
    threads: Count | None = None
    precision: str | None = None
    started: datetime | None = None
    finished: datetime | None = None
    train_seconds: Amount | None = None
    train_cpu_seconds: Amount | None = None
    images_per_second: Amount | None = None
    inference_seconds: Amount | None = None
    peak_memory_bytes: Count | None = None
    parameters: Count | None = None
    trained_parameters: Count | None = None
    step_flops: Count | None = None
    inference_flops: Count | None = None
    trunk_weights: str | None = None
    trunk_weights_licence: str | None = None
    weights_sha256: str | None = None
    log_sha256: str | None = None
    data: dict[str, str] = Field(default_factory=dict)


def mistake_in_record(record: dict[str, Any]) -> str:
    """What is wrong with a finished run's ``run.json``: the first place and the mistake; empty if nothing is."""
    try:
        RunFacts.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg']}"
    return ""
