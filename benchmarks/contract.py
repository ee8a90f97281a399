"""The benchmarks' own service, in descriptors made at start: the rivals that the service is measured against.

They are called under the messages and the access rules of the methods that they stand beside, so that
the dispatcher treats both alike. What they do stands in ``rivals.py``.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from moragmeta.v1 import documents_pb2, jobs_pb2, options_pb2

PACKAGE: Final = "benchmarks"
DISPATCHED: Final = f"{PACKAGE}.Dispatched"
"""The service whose methods go through the dispatcher, as the real ones do."""
BARE: Final = f"{PACKAGE}.Bare"
"""The service whose methods are bare handlers of gRPC: no key, no rules, no log."""

_METHODS: Final[dict[str, tuple[type[Message], type[Message], str]]] = {
    "Authenticated": (documents_pb2.GetDocumentRequest, documents_pb2.Document, "documents:read"),
    "RawGetDocument": (documents_pb2.GetDocumentRequest, documents_pb2.Document, "documents:read"),
    "OrmGetDocument": (documents_pb2.GetDocumentRequest, documents_pb2.Document, "documents:read"),
    "RawListDocuments": (
        documents_pb2.ListDocumentsRequest,
        documents_pb2.ListDocumentsResponse,
        "documents:read",
    ),
    "RawUpdateJobProgress": (
        jobs_pb2.UpdateJobProgressRequest,
        jobs_pb2.UpdateJobProgressResponse,
        "jobs:write",
    ),
}


def register() -> None:
    """Make the service known to this process, as the import of a generated module would."""
    file = FileDescriptorProto(name="benchmarks/rivals.proto", package=PACKAGE, syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in (documents_pb2, jobs_pb2, options_pb2))
    service = file.service.add(name=DISPATCHED.removeprefix(f"{PACKAGE}."))
    for name, (request, response, scope) in _METHODS.items():
        method = service.method.add(name=name)
        method.input_type = f".{request.DESCRIPTOR.full_name}"
        method.output_type = f".{response.DESCRIPTOR.full_name}"
        access: Any = method.options.Extensions[options_pb2.access]
        access.minimum_role = options_pb2.ROLE_USER
        access.scopes.append(scope)
        access.narrowed_keys = options_pb2.NARROWED_KEYS_ADMITTED
    Default().Add(file)
