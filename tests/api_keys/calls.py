"""Calls about API keys, as short as tests want them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import users_pb2
from tests.service import Channel

ME = users_pb2.GetUserRequest(id="me")


def seconds_from_now(seconds: float) -> Timestamp:
    """Give a time so many seconds ahead."""
    time_ = Timestamp()
    time_.FromDatetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))
    return time_


def create(
    channel: Channel, name: str = "new", *, owner_id: str = "", request_id: str = "", **fields: Any
) -> pb.CreateApiKeyResponse:
    """Make a key."""
    return channel.api_keys.CreateApiKey(
        pb.CreateApiKeyRequest(
            api_key=pb.ApiKey(name=name, **fields), owner_id=owner_id, request_id=request_id
        )
    )


def update(channel: Channel, id: str, *paths: str, **fields: Any) -> pb.ApiKey:
    """Change a key: the fields in the mask, or those given."""
    return channel.api_keys.UpdateApiKey(
        pb.UpdateApiKeyRequest(api_key=pb.ApiKey(id=id, **fields), update_mask=FieldMask(paths=paths))
    )


def rotate(channel: Channel, id: str, grace: float | None = None, **fields: Any) -> pb.RotateApiKeyResponse:
    """Replace a key, whose grace is in seconds."""
    request = pb.RotateApiKeyRequest(id=id, **fields)
    if grace is not None:
        request.grace.FromMilliseconds(round(grace * 1000))
    return channel.api_keys.RotateApiKey(request)


def get(channel: Channel, id: str) -> pb.ApiKey:
    """Look at a key."""
    return channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=id))


def names_of(channel: Channel, **filters: Any) -> list[str]:
    """List keys by name, as the list orders them."""
    return [key.name for key in channel.api_keys.ListApiKeys(pb.ListApiKeysRequest(**filters)).api_keys]
