"""The calls with which tests reset passwords."""

from __future__ import annotations

from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Channel, Service

NEW = "another horse battery"


def ask(service: Service, email: str) -> pb.RequestPasswordResetResponse:
    """Ask for a token, as anybody may."""
    return service.channel().users.RequestPasswordReset(pb.RequestPasswordResetRequest(email=email))


def take(deliverer: Channel) -> dict[str, pb.PasswordReset]:
    """Take what was asked for, by email."""
    taken = deliverer.users.TakePasswordResets(pb.TakePasswordResetsRequest())
    return {reset.email: reset for reset in taken.resets}


def create(deliverer: Channel, email: str) -> str:
    """Have a token made."""
    return deliverer.users.CreatePasswordReset(pb.CreatePasswordResetRequest(email=email)).token


def reset(service: Service, token: str, password: str = NEW, **fields: str) -> None:
    """Use a token."""
    request = pb.ResetPasswordRequest(token=token, new_password=password, **fields)
    service.channel().users.ResetPassword(request)


def reset_refused(service: Service, token: str) -> str:
    """Expect a token to be refused, and give the words."""
    with refused("UNAUTHENTICATED", "RESET_TOKEN_INVALID") as refusal:
        reset(service, token)
    assert token not in refusal.message
    return refusal.message


def login(service: Service, email: str, password: str) -> pb.LoginResponse:
    """Log in."""
    return service.channel().users.Login(pb.LoginRequest(email=email, password=password))
