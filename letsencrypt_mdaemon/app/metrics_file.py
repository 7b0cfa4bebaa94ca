"""The metrics file: written after each run, read by whoever may not read the state."""

from __future__ import annotations

import logging
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import build, health, status
from letsencrypt_mdaemon.app.health import Grade, Health, Limits, Problem
from letsencrypt_mdaemon.app.installation import open_installation
from letsencrypt_mdaemon.app.metrics import Sample, parse, render
from letsencrypt_mdaemon.app.scheduling import MAX_PAUSE
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.renewal import hold
from letsencrypt_mdaemon.renewal.adapters import Proof, Row
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.handles import PUBLIC, Folder
from letsencrypt_mdaemon.text import days

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from letsencrypt_mdaemon.app.status import Status
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Verdict
    from letsencrypt_mdaemon.state.memory import Memory
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

_log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
"""Of a metrics file; ours have some thousand."""

RECHECK = "the last run found a problem: run `check` as the account that renews"

_REPARSE_POINT = stat.FILE_ATTRIBUTE_REPARSE_POINT


class Ended(NamedTuple):
    """How a run ended.

    Args:
        name: The first name of the certificate; "" if unknown.
        began: When it began.
        observed: What the ports served when it began.
        proof: What they showed after a change; None if it changed nothing.
    """

    name: str
    began: datetime
    exit_code: int
    observed: Mapping[Endpoint, Served]
    proof: Proof | None


def text(
    config: Config, root: Callable[[], Path], ended: Ended, file: Path | None
) -> str:
    """Return the metrics after a run: all, or else what is known without the server.

    Args:
        root: Returns MDaemon's folder.
        file: The config file, if there is one.
    """
    try:
        installation = open_installation(config, root(), look=False, read_only=True)
        found = status.read(installation, now=datetime.now(UTC))
        seen = None if ended.proof else ended.observed
        judged = health.judge(installation, found, seen, file=file)
    except Error as exc:
        _log.debug("The metrics file has less: %s", exc)
        return render(_of_memory(_memory(config, root), ended))
    return render(_of_status(found, judged, ended))


def _memory(config: Config, root: Callable[[], Path]) -> Memory | None:
    try:
        return build.state_of(config, root(), read_only=True).load()
    except Error:
        return None


def _of_memory(memory: Memory | None, ended: Ended) -> Iterator[Sample]:
    """Yield what a run knows that could not look at the server."""
    name = (("name", ended.name or (memory.host_name if memory else "")),)
    now = datetime.now(UTC)
    if memory is not None:
        told, runs = memory.told, memory.runs
        times = {
            "begin": told.begins,
            "end": told.ends,
            "last_scheduled_run": runs[-1] if runs else None,
            "last_success": memory.succeeded,
        }
        for gauge, at in times.items():
            if at is not None:
                yield Sample(f"{gauge}_timestamp_seconds", at.timestamp(), name)
        if told.ends is not None:
            yield Sample("seconds_left", (told.ends - now).total_seconds(), name)
    yield Sample("state", Grade.WARNING if ended.exit_code else Grade.OK, name)
    yield Sample("last_run_timestamp_seconds", ended.began.timestamp(), name)
    yield Sample("exit_code", ended.exit_code, name)


def _of_status(found: Status, judged: Health, ended: Ended) -> Iterator[Sample]:
    snapshot = found.snapshot
    memory, now = snapshot.memory, snapshot.now
    leaves = [leaf for leaf in snapshot.named.values() if leaf is not None]
    first = min(leaves, key=lambda leaf: leaf.not_valid_after_utc, default=None)
    told = memory.told._replace(
        begins=first.not_valid_before_utc if first else None,
        ends=first.not_valid_after_utc if first else None,
    )
    known = memory._replace(told=told)
    proof = ended.proof or judged.proof or Proof()
    lacking = len(proof.rows) - len(proof.foreign) - len(proof.new)
    for row in _of_memory(known, ended._replace(name=judged.name)):
        grades = (int(row.value), int(judged.grade), int(lacking > 0))
        yield row._replace(value=max(grades)) if row.gauge == "state" else row
    name = (("name", judged.name),)
    if found.due.at is not None:
        at = now if found.due.due else found.due.at
        yield Sample("due_timestamp_seconds", at.timestamp(), name)
    for port in proof.rows:
        labels = (*name, ("endpoint", port.endpoint), ("verdict", port.verdict))
        yield Sample("endpoint_proven", port.verdict == "new", labels)
    yield Sample("ports_unproven", lacking, name)
    for failing, why in _failing(found).items():
        yield Sample("name_failing", 1, (*name, ("failing", failing), ("why", why)))
    yield Sample("held", hold.in_force(snapshot) is not None, name)


def _failing(found: Status) -> dict[str, str]:
    """Return the names that fail, and how; "" is a whole order."""
    rows = {row.name: "would-fail" for row in found.failing}
    rows |= {row.name: "failed" for row in health.failures(found)}
    return rows | {row.name: "dropped" for row in found.snapshot.memory.dropped}


def write(path: Path, content: str) -> None:
    """Replace the metrics file at once; every account may read it (mode 0644).

    On Windows its folder says who may.

    Raises:
        Error: If it cannot be replaced, or if something else than a file is there.
    """
    fresh = disk.neighbour(path)
    with (
        disk.explained(f"write the metrics file {path}"),
        Folder(path.parent) as folder,
    ):
        _must_be_replaceable(folder, path)
        try:
            folder.create(fresh.name, content.encode(), mode=PUBLIC, durable=False)
            disk.when_free(lambda: folder.rename(fresh.name, path.name))
        except OSError:
            disk.remove(fresh)
            raise


def _must_be_replaceable(folder: Folder, path: Path) -> None:
    try:
        found = folder.status(path.name)
    except FileNotFoundError:
        return
    is_link = getattr(found, "st_file_attributes", 0) & _REPARSE_POINT
    if is_link or not stat.S_ISREG(found.st_mode):
        raise ConfigError(
            f"Could not write the metrics file {path}: a link, a folder or a device "
            "has that name.",
            hint="Remove it, or set metrics-file to the file itself.",
        )


def read(path: Path, limits: Limits, now: datetime) -> Health:
    """Judge an installation by its metrics file.

    Raises:
        ConfigError: If it cannot be read, or is none of ours.
    """
    try:
        content = disk.read_limited(path, MAX_FILE_BYTES, "a metrics file")
        samples = parse(content.decode("utf-8", "replace"))
    except (OSError, ValueError) as exc:
        message = f"Could not read the metrics file {path}: {disk.reason(exc)}."
        hint = "Check the path, and that this account may read it."
        raise ConfigError(message, hint=hint) from exc
    values = {row.gauge: row for row in samples}
    if not {"exit_code", "last_run_timestamp_seconds"} <= values.keys():
        message = f"{path} is no metrics file of this program."
        raise ConfigError(message, hint="Name the file that metrics-file sets.")
    times = {row.gauge: _moment(row.value) for row in samples if "time" in row.gauge}
    ends, begins = (times.get(f"{at}_timestamp_seconds") for at in ("end", "begin"))
    span = ends - begins if ends and begins else timedelta(days=90)
    warning, critical = limits.of(span)
    left = ends - now if ends else None
    rows = [dict(row.labels) for row in samples if row.gauge == "endpoint_proven"]
    proof = Proof(tuple(_port(row) for row in rows if row.get("verdict") in _VERDICTS))
    last = times.get("last_scheduled_run_timestamp_seconds")
    age = now - times["last_run_timestamp_seconds"]
    problems = [
        Problem(Grade.OK, f"read from {path}, which is {days(age)} old"),
        *_time_problems(left, warning, critical),
        *_problems(samples, proof),
    ]
    if age > MAX_PAUSE:
        problems.append(Problem(Grade.WARNING, f"the last run was {days(age)} ago"))
    state = Grade.CRITICAL if (row := values.get("state")) and row.value > 1 else None
    if state is None and row and row.value:
        state = Grade.WARNING
    if state is not None and state > max(item.grade for item in problems):
        problems.append(Problem(state, RECHECK))
    return Health(
        name=dict(values["exit_code"].labels).get("name", ""),
        left=left,
        warning=warning,
        critical=critical,
        proof=proof if proof.rows else None,
        last_run=now - last if last else None,
        renewed=None,
        problems=tuple(sorted(problems, key=lambda item: -item.grade)),
    )


_VERDICTS = ("new", "old", "broken", "silent", "unproven", "foreign")


def _port(labels: Mapping[str, str]) -> Row:
    verdict: Verdict = labels["verdict"]  # type: ignore[assignment] # one of them
    return Row(labels.get("endpoint", ""), verdict, "as the last run saw it")


def _moment(seconds: float) -> datetime:
    """Return a moment of a file, in which anything may stand."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.min.replace(tzinfo=UTC)


def _time_problems(
    left: timedelta | None, warning: timedelta, critical: timedelta
) -> Iterator[Problem]:
    if left is None:
        yield Problem(Grade.WARNING, "the certificate in use is unknown")
    elif left <= timedelta():
        yield Problem(Grade.CRITICAL, "the certificate in use has expired")
    elif left < max(warning, critical):
        grade = Grade.CRITICAL if left < critical else Grade.WARNING
        yield Problem(grade, f"expires in {days(left)}")


def _problems(samples: list[Sample], proof: Proof) -> Iterator[Problem]:
    for gauge, value, pairs in samples:
        labels = dict(pairs)
        if gauge == "exit_code" and value:
            yield Problem(Grade.WARNING, f"the last run ended with {value:.0f}")
        elif gauge == "name_failing" and value:
            who = labels.get("failing") or "the order"
            yield Problem(Grade.WARNING, f"{who}: {labels.get('why', 'failing')}")
        elif gauge == "held" and value:
            yield Problem(Grade.WARNING, "a certificate that a person chose is held")
    wrong = [row for row in proof.rows if row.verdict not in {"new", "foreign"}]
    if wrong:
        at = ", ".join(f"{row.endpoint} ({row.verdict})" for row in wrong)
        yield Problem(Grade.WARNING, f"not proven at {at}")
