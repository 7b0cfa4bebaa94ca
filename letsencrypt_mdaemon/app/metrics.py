"""Gauges in Prometheus' text format, written and read back.

One list of names and helps for `check --format prometheus` and for the metrics file: a
collector refuses a name with two helps.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "letsencrypt_mdaemon_"

HELPS = {
    "state": "0 OK, 1 warning, 2 critical.",
    "begin_timestamp_seconds": "When the certificate in use became valid.",
    "end_timestamp_seconds": "When the certificate in use expires.",
    "seconds_left": "Until the certificate in use expires.",
    "due_timestamp_seconds": "When the next renewal is due.",
    "ports_unproven": "Ports that were not seen to serve it.",
    "last_run_age_seconds": "Since the last scheduled run began.",
    "last_scheduled_run_timestamp_seconds": "When the last scheduled run began.",
    "last_run_timestamp_seconds": "When the run that wrote this began.",
    "last_success_timestamp_seconds": "When the last run with exit code 0 began.",
    "exit_code": "Of the run that wrote this.",
    "endpoint_proven": "Whether the endpoint serves the certificate in use.",
    "name_failing": "A name that the CA refused, or would, or that was dropped.",
    "held": "Whether runs keep a certificate that a person chose.",
}
"""The help of each gauge, by its name without the prefix."""

_ROW = re.compile(rf"{PREFIX}(\w+)\{{(.*)\}} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
_MEANT = {written: meant for meant, written in _ESCAPES.items()}


class Sample(NamedTuple):
    """The value of one gauge, with its labels."""

    gauge: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def render(samples: Iterable[Sample]) -> str:
    """Return samples in Prometheus' text format 0.0.4, those of a gauge together."""
    rows = list(samples)
    lines = []
    for gauge in dict.fromkeys(row.gauge for row in rows):
        name = PREFIX + gauge
        lines += [f"# HELP {name} {HELPS[gauge]}", f"# TYPE {name} gauge"]
        for row in rows:
            if row.gauge == gauge:
                labels = ",".join(f'{key}="{_escaped(v)}"' for key, v in row.labels)
                lines.append(f"{name}{{{labels}}} {row.value:.0f}")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in printable(text, 300))


def parse(text: str) -> list[Sample]:
    """Return our samples of a text; what is none of them is left out."""
    found = []
    for line in text.splitlines():
        match = _ROW.fullmatch(line)
        if match is None or match[1] not in HELPS:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            labels = _LABEL.findall(match[2])
            rows = tuple((key, _meant(written)) for key, written in labels)
            found.append(Sample(match[1], value, rows))
    return found


def _meant(written: str) -> str:
    return re.sub(r"\\.", lambda pair: _MEANT.get(pair[0], pair[0]), written)
