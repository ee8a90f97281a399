"""Who takes part in a run: the key's user, and with an ADMIN's key two users made for the run.

With users of its own a run leaves nothing behind, because they are deleted with all that is theirs.
"""

from __future__ import annotations

import itertools
import re
import secrets
import threading
from dataclasses import dataclass

import grpc

from morag_meta.conformance import expect
from morag_meta.conformance.caller import Caller, with_key
from morag_meta.conformance.waits import all_that_ended
from moragmeta.v1 import api_keys_pb2, jobs_pb2, options_pb2, users_pb2

NEEDS_ADMIN = "needs an ADMIN key"
NEEDS_REGISTRATION = "needs registration to be enabled"
_SHORTEST_SECRET = 8  # shorter ones are parts of other words
_SECRET_FORM = re.compile(r"morag_[A-Za-z0-9_-]{43}|eyJ[\w-]+\.[\w-]+\.[\w-]+")


@dataclass(frozen=True)
class Member:
    """A user who takes part; the password is empty where it is not known."""

    id: str
    email: str
    password: str
    secret: str
    caller: Caller


class World:
    """The endpoint, and the users of one run; safe to share between threads."""

    def __init__(self, channel: grpc.Channel, secret: str) -> None:
        """Take the key that the run was given; ``open`` begins."""
        self.channel = channel
        self.run = secrets.token_hex(4)
        self.lacks = ""
        """Why cases that need an ADMIN cannot run; empty where they can."""
        self.left: list[str] = []
        """What could not be removed."""
        self._given = Caller(channel, with_key(secret))
        self._secret = secret
        self._secrets = {secret}
        self._numbers = itertools.count(1)
        self._made: list[str] = []
        self._ended: set[tuple[Caller, str, str]] = set()
        self._lock = threading.Lock()
        self._me: Member | None = None
        self._other: Member | None = None

    def open(self) -> None:
        """Find out whose the key is, and make the users of the run where it is an ADMIN's.

        Raises:
            grpc.RpcError: the endpoint is away, or refuses the key.
        """
        user = self._given.users.GetUser(users_pb2.GetUserRequest(id="me"))
        self._me = Member(user.id, user.email, "", self._secret, self._given)
        if user.role != options_pb2.ROLE_ADMIN:
            self.lacks = NEEDS_ADMIN
            return
        try:
            self._me = self.new_member()
        except grpc.RpcError as error:
            if expect.read(error).reason != "REGISTRATION_DISABLED":
                raise
            self.lacks = NEEDS_REGISTRATION
        else:
            self._other = self.new_member()

    def close(self) -> None:
        """Delete the users of the run; or, where it had none, the jobs that its cases made.

        Jobs go last of all, as their removal ends streams of their owner that have not yet passed them.
        """
        for caller, kind, document_id in self._ended:
            try:
                caller.jobs.PurgeJobs(all_that_ended(kind, document_id))
            except grpc.RpcError:
                self.left.append(f"jobs of the kind {kind}")
        for user_id in reversed(self._made):
            try:
                self.remove(user_id)
            except grpc.RpcError:
                self.left.append(f"user {user_id}")

    @property
    def me(self) -> Member:
        """Who most calls are made by."""
        return self._present(self._me)

    @property
    def other(self) -> Member:
        """Somebody else; only in cases that need an ADMIN."""
        return self._present(self._other)

    @property
    def admin(self) -> Caller:
        """The ADMIN whose key was given; only in cases that need one."""
        return self._given

    def new_name(self) -> str:
        """Give a name that nothing else has."""
        return f"conformance-{self.run}-{next(self._numbers)}"

    def new_secret(self) -> str:
        """Give a secret, of which no name is a part, nor it of any."""
        return self.conceal(secrets.token_urlsafe(12))

    def new_member(self, role: options_pb2.Role.ValueType = options_pb2.ROLE_USER) -> Member:
        """Register a user, and make a key of every scope for it."""
        name, password = self.new_name(), self.new_secret()
        email = f"{name}@example.com"
        request = users_pb2.RegisterUserRequest(name=name, email=email, password=password)
        user = Caller(self.channel).users.RegisterUser(request)
        with self._lock:
            self._made.append(user.id)
        if user.role != role:
            self._given.users.SetUserRole(users_pb2.SetUserRoleRequest(id=user.id, role=role))
        wanted = api_keys_pb2.CreateApiKeyRequest(
            api_key=api_keys_pb2.ApiKey(name="conformance"), owner_id=user.id
        )
        secret = self.conceal(self._given.api_keys.CreateApiKey(wanted).secret)
        return Member(user.id, email, password, secret, Caller(self.channel, with_key(secret)))

    def remove(self, user_id: str) -> None:
        """Delete a user with everything that is the user's; one that is gone already is no failure."""
        try:
            self._given.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=user_id))
            self._given.users.DeleteUser(users_pb2.DeleteUserRequest(id=user_id))
        except grpc.RpcError as error:
            if expect.read(error).code != "NOT_FOUND":
                raise

    def purge_at_end(self, caller: Caller, job: jobs_pb2.Job) -> None:
        """Remove a job at the end of the run, unless it goes with its owner."""
        if self.lacks:
            with self._lock:
                self._ended.add((caller, job.kind, job.document_id))

    def conceal(self, secret: str) -> str:
        """Remember a secret, so that no report shows it; give it back."""
        if len(secret) >= _SHORTEST_SECRET:
            with self._lock:
                self._secrets.add(secret)
        return secret

    def concealed(self, text: str) -> str:
        """Return a text without the secrets that the run knows, or that have the form of one."""
        with self._lock:
            known = sorted(self._secrets, key=len, reverse=True)
        for secret in known:
            text = text.replace(secret, "[secret]")
        return _SECRET_FORM.sub("[secret]", text)

    def _present(self, member: Member | None) -> Member:
        if member is None:
            raise LookupError("nobody of that part in this run")
        return member
