"""Makes a history shorter for as long as it still shows the same violation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.robustness.case import Case
from tests.robustness.history import (
    Connection,
    DocumentRow,
    Event,
    Frame,
    History,
    JobRow,
    Operation,
    Record,
    add,
    all_of,
    to_line,
    write,
)
from tests.robustness.validators import VALIDATORS
from tests.robustness.violations import Violation

_SHOWN = 40
"""How many records of the shortest history are shown; all of them are in its file."""
_PATIENCE = 20.0
"""Seconds after which what is shortest so far is good enough."""


def shortest(history: History, violation: Violation, patience: float = _PATIENCE) -> History | None:
    """Give the shortest part of a history in which the very same is complained of; None if none is found.

    It is the same only with the same sentence and evidence: a part from which records were left out breaks
    other promises, and these are not what was found.
    """
    validators = [validator for validator in VALIDATORS if violation in validator(Case(history))]
    if not validators:
        return None

    def shows(records: Sequence[Record]) -> bool:
        return violation in validators[0](Case(_of(history, records)))

    limit = time.monotonic() + patience
    records = next(filter(shows, _parts(history, violation)))
    return _of(history, _without_needless(records, shows, limit))


def tell_shortest(history: History, found: Sequence[Violation], path: Path) -> str:
    """Give the text that shows the shortest part of a history that shows one of its violations.

    The part is kept in a file beside ``path``, the history's own. Empty where no part shows any.
    """
    for violation in sorted(found, key=lambda violation: len(violation.evidence)):
        part = shortest(history, violation)
        if part is None:
            continue
        path = path.with_suffix(".shortest.jsonl")
        write(part, path)
        lines = [to_line(record) for record in all_of(part)]
        head = f"the shortest history with {violation.validator}, {len(lines)} records, is {path}"
        return "\n".join([head, *(f"    {line}" for line in lines[:_SHOWN])])
    return ""


def _of(history: History, records: Sequence[Record]) -> History:
    made = History(history.seed, history.database, history.drained)
    add(made, records)
    return made


def _parts(history: History, violation: Violation) -> Iterator[list[Record]]:
    """Give what is left of the jobs and the watchers that the violation is about; in the end, everything."""
    jobs = {job for record in violation.evidence for job in _jobs(record)}
    watchers = {r.watcher for r in violation.evidence if isinstance(r, Frame | Connection)}
    watchers |= {name for name in {c.watcher for c in history.connections} if name in violation.text.split()}
    everything = all_of(history)
    seen = [r for r in everything if not isinstance(r, Frame | Connection) or r.watcher in watchers]
    yield [r for r in seen if isinstance(r, Connection) or not jobs.isdisjoint(_jobs(r))]
    yield seen
    yield everything


def _jobs(record: Record) -> set[str]:
    """Give the jobs, and the document, that a record is about."""
    found: set[str] = set()
    match record:
        case Event(job_id=id) | DocumentRow(id=id) | Frame(event=Event(job_id=id)) | Frame(job=JobRow(id=id)):
            found = {id}
        case JobRow(id=id, document_id=document_id):
            found = {id, document_id}
        case Operation(request=request, answer=answer):
            found = {str(lease["job_id"]) for lease in answer.get("leases", [])}
            found |= {str(part.get("job_id", "")) for part in (request, answer)}
    return found - {""}


def _without_needless(
    records: list[Record], shows: Callable[[Sequence[Record]], bool], limit: float
) -> list[Record]:
    """Leave out ever smaller pieces that are not needed, until each record is, or time is up."""
    size = max(len(records) // 2, 1)
    while True:
        place = 0
        while place < len(records):
            if time.monotonic() > limit:
                return records
            rest = records[:place] + records[place + size :]
            if shows(rest):
                records = rest
            else:
                place += size
        if size == 1:
            return records
        size = max(size // 2, 1)
