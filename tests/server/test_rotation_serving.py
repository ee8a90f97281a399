"""Changing the secrets under two serving processes: clients of both notice nothing but a forced end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import grpc
import pytest

from morag_meta.auth import private_file
from morag_meta.auth.secret_files import RingFile, RootFile
from morag_meta.exits import ExitCode
from moragmeta.v1 import api_keys_pb2, documents_pb2, jobs_pb2, servers_pb2, users_pb2
from tests.refusals import refused
from tests.server.processes import Served, run, served
from tests.service import Channel

PASSWORD = "correct horse battery"
EMAIL = "jo@rotation.test"


@contextmanager
def two_served(url: str, folder: Path) -> Iterator[tuple[Served, Served, dict[str, str]]]:
    """Serve a database by two processes whose secrets stand in files; give the variables for commands too."""
    variables = {"LOGIN_ADDRESS_FAILURES": "0"}
    if not url.startswith("sqlite"):
        root, ring = folder / "root", folder / "ring"
        private_file.write_once(root, RootFile.fresh().text)
        private_file.write_once(ring, RingFile.fresh().text)
        variables |= {"SECRET_KEY_FILE": str(root), "CREDENTIAL_KEYS_FILE": str(ring)}
        variables |= {"SECRET_KEY": "", "CREDENTIAL_KEYS": ""}
    with served(folder, url, **variables) as one, served(folder, url, **variables) as other:
        yield one, other, variables | {"DATABASE_URL": url}


class Holder:
    """A client that holds one of everything, and shows whether it is still taken."""

    def __init__(self, service: Served) -> None:
        """Register, log in, and get a key, tokens, pages, and a record, at one of the processes."""
        anybody = Channel(service.target, ())
        anybody.users.RegisterUser(users_pb2.RegisterUserRequest(name="Jo", email=EMAIL, password=PASSWORD))
        opened = anybody.users.Login(users_pb2.LoginRequest(email=EMAIL, password=PASSWORD))
        self.access_token, self.refresh_token = opened.access_token, opened.refresh_token
        by_token = Channel(service.target, (("authorization", f"Bearer {self.access_token}"),))
        made = by_token.api_keys.CreateApiKey(
            api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name="k", scopes=["*"]))
        )
        self.key = made.secret
        channel = self.keyed(service)
        for number in range(3):
            document = documents_pb2.Document(name=f"d{number}", type="text")
            channel.documents.CreateDocument(
                documents_pb2.CreateDocumentRequest(document=document, request_id=f"r{number}")
            )
        secret = servers_pb2.Server(
            name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1, password=PASSWORD
        )
        channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=secret))
        page = channel.documents.ListDocuments(documents_pb2.ListDocumentsRequest(page_size=1))
        self.page_token = page.next_page_token
        stream = channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=20)
        self.resume_token = next(each.resume_token for each in stream if each.resume_token)
        stream.cancel()

    def keyed(self, service: Served) -> Channel:
        """Give the stubs of the API key at a process."""
        return Channel(service.target, (("x-api-key", self.key),))

    def use_key(self, service: Served) -> None:
        """Call with the API key."""
        self.keyed(service).users.GetUser(users_pb2.GetUserRequest(id="me"))

    def use_access_token(self, service: Served) -> None:
        """Call with the access token."""
        use_access_token(service, self.access_token)

    def go_on(self, service: Served) -> None:
        """Take the next page, go on with the stream, and repeat a request."""
        channel = self.keyed(service)
        wanted = documents_pb2.ListDocumentsRequest(page_size=1, page_token=self.page_token)
        assert len(channel.documents.ListDocuments(wanted).documents) == 1
        stream = channel.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(resume_token=self.resume_token), timeout=20)
        assert next(iter(stream)) is not None
        stream.cancel()
        self.repeat(service)

    def repeat(self, service: Served) -> None:
        """Repeat a request that was made before, and be told what it made."""
        document = documents_pb2.Document(name="d0", type="text")
        wanted = documents_pb2.CreateDocumentRequest(document=document, request_id="r0")
        assert self.keyed(service).documents.CreateDocument(wanted).document.name == "d0"

    def refresh(self, service: Served) -> None:
        """Replace the tokens."""
        answer = refreshed(service, self.refresh_token)
        self.access_token, self.refresh_token = answer.access_token, answer.refresh_token

    def use_everything(self, service: Served) -> None:
        """Use all of it."""
        for use in (self.use_key, self.use_access_token, self.go_on, self.refresh, self.use_access_token):
            use(service)


def use_access_token(service: Served, token: str) -> None:
    """Call with an access token."""
    channel = Channel(service.target, (("authorization", f"Bearer {token}"),))
    channel.users.GetUser(users_pb2.GetUserRequest(id="me"))


def _wait_for_refusal(service: Served, token: str) -> None:
    """Wait until a process takes an access token no more."""
    end = time.monotonic() + 20
    with contextlib.suppress(grpc.RpcError):
        while True:
            use_access_token(service, token)
            assert time.monotonic() < end
            time.sleep(0.1)


def refreshed(service: Served, token: str) -> users_pb2.RefreshTokenResponse:
    """Replace a refresh token."""
    return Channel(service.target, ()).users.RefreshToken(users_pb2.RefreshTokenRequest(refresh_token=token))


class Busy:
    """Calls both processes without a pause, log-ins and refreshes among it, from a thread of its own."""

    def __init__(self, holder: Holder, *services: Served) -> None:
        """Call for the length of a block; ``faults`` are what was refused."""
        self._holder, self._services = holder, services
        self.faults: list[str] = []
        self.rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        first, second = self._services
        while not self._stop.is_set():
            try:
                login = users_pb2.LoginRequest(email=EMAIL, password=PASSWORD)
                opened = Channel(first.target, ()).users.Login(login)
                goes_on = refreshed(second, opened.refresh_token)
                for service in (first, second):
                    self._holder.use_key(service)
                    use_access_token(service, goes_on.access_token)
            except Exception as fault:  # noqa: BLE001 - kept for the test to show
                self.faults.append(repr(fault))
            first, second = second, first
            self.rounds += 1

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def test_clients_of_two_processes_notice_nothing(database_url: str, tmp_path: Path) -> None:
    """Both processes take all that either made before, during and after; the end cuts only what it says."""
    with two_served(database_url, tmp_path) as (one, other, variables):
        holder = Holder(one)
        holder.use_everything(other)
        with Busy(holder, one, other) as busy:
            rotated = run("secrets", "rotate", folder=tmp_path, **variables)
        assert rotated.returncode == ExitCode.OK, rotated.stderr
        assert "renewed" in rotated.stdout
        assert "to finish, or with --cut-off" in rotated.stdout
        assert (busy.faults, busy.rounds > 2) == ([], True)
        holder.use_access_token(other)
        holder.go_on(one)
        holder.go_on(other)
        old_access, old_refresh = holder.access_token, holder.refresh_token
        holder.refresh(one)
        holder.refresh(other)
        ended = run("secrets", "rotate", "--cut-off", "--pause", "3", folder=tmp_path, **variables)
        assert "done: there is one generation" in ended.stdout
        for service in (one, other):
            _wait_for_refusal(service, old_access)  # for each process looks at the files when it does
            holder.use_key(service)
            holder.use_access_token(service)
            holder.repeat(service)
            with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
                use_access_token(service, old_access)
            with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
                refreshed(service, old_refresh)
            with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
                holder.go_on(service)
        holder.refresh(other)
        holder.use_access_token(one)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_of_an_open_session_nothing_is_lost_by_the_end(database_url: str, tmp_path: Path) -> None:
    """A session that was refreshed since goes on beyond the end; one that was not is ended and counted."""
    with two_served(database_url, tmp_path) as (one, other, variables):
        holder = Holder(one)
        login = users_pb2.LoginRequest(email=EMAIL, password=PASSWORD)
        idle = Channel(one.target, ()).users.Login(login)
        run("secrets", "rotate", "--pause", "3", folder=tmp_path, **variables)
        holder.refresh(other)
        ended = run("secrets", "rotate", "--cut-off", "--pause", "3", folder=tmp_path, **variables)
        assert "ended 1 session\n" in ended.stdout
        holder.refresh(one)
        with refused("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID"):
            refreshed(one, idle.refresh_token)
