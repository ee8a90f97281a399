"""How often a key was used, over the wire."""

from __future__ import annotations

import time

from morag_meta.db.database import Database
from moragmeta.v1 import api_keys_pb2 as pb
from tests.api_keys.calls import ME
from tests.backends.databases import Backend
from tests.service import Service, serving


def test_use_is_counted_behind_the_calls(backend: Backend) -> None:
    """Calls are counted, and shown a little later, and the key keeps its etag."""
    with serving(backend, api_key_usage_interval=0.1) as service:
        user, admin = service.new_user(), service.admin.channel
        before = admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
        for _ in range(7):
            user.channel.users.GetUser(ME)
        deadline = time.monotonic() + 5
        while True:
            after = admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
            if after.use_count == 7 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    assert after.use_count == 7
    assert after.last_used_time.ToNanoseconds() >= before.create_time.ToNanoseconds()
    assert after.etag == before.etag


def test_drain_writes_what_was_counted(backend: Backend) -> None:
    """An orderly end writes the last uses, however long the interval is."""
    url = backend.new_url()
    service = Service(url, backend.name, api_key_usage_interval=3600)
    user = service.new_user()
    user.channel.users.GetUser(ME)
    service.close()
    database = Database.open(url)
    with database.unit_of_work() as uow:
        assert uow.api_keys.get(user.id, user.key_id)["use_count"] == 1
    database.close()
    backend.drop(url)
