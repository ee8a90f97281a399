"""Every RPC with every kind of caller: what comes of a valid request is what the table says.

A test is one line of the table; when it fails, it says which cells are otherwise.
"""

from __future__ import annotations

import pytest

from morag_meta.rpc.access import known_scopes
from tests.access.estate import REQUESTS
from tests.access.stage import BY_NAME, Stage
from tests.access.table import CALLERS, ROWS

EVERY_ROW = pytest.mark.parametrize("title", ROWS)


@EVERY_ROW
def test_a_credential_that_is_not_valid_opens_nothing(stage: Stage, title: str) -> None:
    """None, a made-up, expired, revoked, disabled or foreign one is refused; a public RPC looks at none."""
    row = ROWS[title]
    wrong = []
    for credential in stage.useless:
        expected = "ok" if row.is_public else f"{credential.code} {credential.reason}"
        if (seen := stage.meets(row, credential.metadata)) != expected:
            wrong.append(f"{credential.title}: {seen}, expected {expected}")
    assert not wrong, "\n".join(wrong)


@EVERY_ROW
def test_a_key_opens_what_its_scopes_say(stage: Stage, title: str) -> None:
    """A key with each of the scopes alone is let in, and one of all the others is not."""
    row = ROWS[title]
    wrong = []
    others = sorted(known_scopes().keys() - {*row.scopes, *row.lesser})
    if (seen := stage.meets(row, stage.scoped(row, *others))) != row.others:
        wrong.append(f"every other scope: {seen}, expected {row.others}")
    alone = dict.fromkeys(row.scopes, "ok") if row.others in ("scope", "absent") else {}
    alone |= dict.fromkeys(row.lesser, "PERMISSION_DENIED FILTER_NOT_ALLOWED")
    for scope, meets in alone.items():
        if (seen := stage.meets(row, stage.scoped(row, scope))) != meets:
            wrong.append(f"{scope} alone: {seen}, expected {meets}")
    assert not wrong, "\n".join(wrong)


@EVERY_ROW
def test_each_caller_meets_what_the_table_says(stage: Stage, title: str) -> None:
    """Each role, and each relation to what a call is about, with a key and with a session."""
    row = ROWS[title]
    wrong = []
    for caller in CALLERS:
        for with_key in (True, False):
            metadata = stage.works(caller, row, with_key=with_key)
            expected = row.cell(caller, by_key=with_key)
            seen = stage.meets(row, metadata, as_viewer=caller == "VIEWER")
            if seen != expected:
                wrong.append(f"{caller} by {'key' if with_key else 'session'}: {seen}, expected {expected}")
    assert not wrong, "\n".join(wrong)


def test_every_rpc_has_a_line() -> None:
    """A method of the descriptors without a line in the table fails, and so does a line without a method."""
    assert {row.method for row in ROWS.values()} == set(BY_NAME)
    assert all(title in REQUESTS for title in ROWS)


def test_every_scope_has_a_line() -> None:
    """The scopes of the table are all that there are, so that none is tried at nothing."""
    words = {"none", "session", "public"}
    scopes = {scope for row in ROWS.values() for scope in (*row.scopes, *row.lesser)}
    assert scopes - words == set(known_scopes())
