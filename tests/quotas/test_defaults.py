"""The installation's limits for users who have none of their own, and the etag of quotas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from morag_meta.config.error import ConfigurationError
from morag_meta.config.loading import load
from moragmeta.v1 import quotas_pb2 as pb
from tests.backends.databases import Backend
from tests.quotas.ways import WAYS, a_server, set_limits, together, usage
from tests.refusals import refused
from tests.service import Service, User, serving

_RESOURCES = [field.name for field in pb.DefaultQuotas.DESCRIPTOR.fields]


@pytest.fixture(scope="module")
def bounded(backend: Backend) -> Iterator[Service]:
    """Serve with a limit of five for everything."""
    limits = {f"default_quota_{resource}": 5 for resource in _RESOURCES}
    with serving(backend, **limits) as service:
        yield service


def _quotas(user: User) -> pb.Quotas:
    return user.channel.quotas.GetQuotas(pb.GetQuotasRequest())


def test_a_default_holds_for_who_has_no_limit_of_their_own(bounded: Service) -> None:
    """Up to the default creations succeed, with the warning before; the use says that it is the default."""
    user = bounded.new_user()
    for _ in range(5):
        a_server(user)
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED") as refusal:
        a_server(user)
    assert (refusal.metadata["limit"], refusal.metadata["resource"]) == ("5", "servers")
    assert usage(user).servers == pb.ResourceUse(used=5, limit=5, near_limit=True, default_limit=True)
    shown = _quotas(user)
    assert not shown.HasField("servers")
    assert shown.defaults == pb.DefaultQuotas(**dict.fromkeys(_RESOURCES, 5))
    assert not shown.HasField("update_time")  # though there is a row, to be locked


@pytest.mark.parametrize("title", WAYS)
def test_every_way_in_is_bounded_by_default(bounded: Service, title: str) -> None:
    """However something is added, again and again, it ends at the default."""
    user, way = bounded.new_user(), WAYS[title]
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED") as refusal:
        for _ in range(7):
            way.prepare(user)()
    assert refusal.metadata["limit"] == "5"
    assert getattr(usage(user), way.resource).used <= 5


def test_a_limit_of_the_users_own_overrides_the_default(bounded: Service) -> None:
    """A higher one lets through, a lower one refuses, and given up the default holds again."""
    user = bounded.new_user()
    set_limits(bounded, user, servers=7)
    for _ in range(7):
        a_server(user)
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        a_server(user)
    assert usage(user).servers == pb.ResourceUse(used=7, limit=7, near_limit=True)
    assert usage(user).databases.default_limit
    assert _quotas(user).servers == 7
    request = pb.SetQuotasRequest(quotas=pb.Quotas(owner_id=user.id))
    request.update_mask.paths.append("servers")
    bounded.admin.channel.quotas.SetQuotas(request)
    assert usage(user).servers == pb.ResourceUse(used=7, limit=5, near_limit=True, default_limit=True)


def test_a_default_is_exact_for_calls_at_once(bounded: Service) -> None:
    """Twelve first creations of a user at the same moment, and five of them succeed."""
    user = bounded.new_user()
    answers = together(12, lambda: a_server(user))
    assert sorted(answers) == ["OK"] * 5 + ["RESOURCE_EXHAUSTED"] * 7
    assert usage(user).servers.used == 5


def test_nothing_is_bounded_where_nothing_is_set(service: Service, user: User) -> None:
    """Without the settings there are no defaults, and who has no limits gets no row by adding something."""
    a_server(user)
    assert not _quotas(user).HasField("defaults")
    with service.database.unit_of_work() as uow:
        assert uow.exports.page(user.id, "quotas", None, 10) == []


@pytest.mark.parametrize("value", ["-1", "many", str(2**53 + 1)])
def test_what_is_no_limit_ends_the_start(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that is no whole number from 0 to 2^53 is refused by its name."""
    monkeypatch.setenv("MORAG_DEFAULT_QUOTA_SERVERS", value)
    with pytest.raises(ConfigurationError, match="MORAG_DEFAULT_QUOTA_SERVERS"):
        load()


def test_an_old_etag_sets_nothing(service: Service, user: User) -> None:
    """SetQuotas with the etag that was read succeeds, and once they were set it is ABORTED."""
    quotas = service.admin.channel.quotas
    read = quotas.GetQuotas(pb.GetQuotasRequest(owner_id=user.id))
    first = quotas.SetQuotas(
        pb.SetQuotasRequest(quotas=pb.Quotas(owner_id=user.id, servers=3, etag=read.etag))
    )
    assert first.etag != read.etag
    assert quotas.GetQuotas(pb.GetQuotasRequest(owner_id=user.id)) == first
    for other in (pb.Quotas(servers=4), pb.Quotas()):
        other.owner_id, other.etag = user.id, read.etag
        with refused("ABORTED", "ETAG_MISMATCH"):
            quotas.SetQuotas(pb.SetQuotasRequest(quotas=other))
    assert quotas.GetQuotas(pb.GetQuotasRequest(owner_id=user.id)) == first
    again = quotas.SetQuotas(
        pb.SetQuotasRequest(quotas=pb.Quotas(owner_id=user.id, servers=3, etag=first.etag))
    )
    assert again.etag != first.etag  # set anew, if to the same
