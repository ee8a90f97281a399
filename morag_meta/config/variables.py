"""The ``MORAG_`` variables that are no settings of the service: a caller's own, and misspelled ones.

They are read by the command line alone. The settings stand in ``settings.py``; nothing else reads the
environment.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from morag_meta.config.setting import PREFIX
from morag_meta.config.settings import ENV_FILE, Settings

KEY_VARIABLE = "MORAG_API_KEY"
TARGET_VARIABLE = "MORAG_TARGET"
CA_VARIABLE = "MORAG_CA_FILE"
CLIENT_CERT_VARIABLE = "MORAG_CLIENT_CERT_FILE"
CLIENT_KEY_VARIABLE = "MORAG_CLIENT_KEY_FILE"

CLIENT_VARIABLES = {
    KEY_VARIABLE: "The API key to call with.",
    TARGET_VARIABLE: "The server to call, `<host>:<port>`; what `MORAG_GRPC_ADDRESS` says if not set.",
    CA_VARIABLE: "PEM: the authorities that may vouch for the server. With it, calls are by TLS.",
    CLIENT_CERT_VARIABLE: "PEM: the caller's own certificate, for a server that asks for one.",
    CLIENT_KEY_VARIABLE: "PEM: the private key of that certificate.",
}


def client_key() -> str:
    """Return the API key that a command calls a server with; empty if the environment has none."""
    return os.environ.get(KEY_VARIABLE, "")


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return one warning for each ``MORAG_`` variable that is no setting, with the nearest name.

    ``environ`` is the process's environment unless given; ``.env`` is looked at too.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | set(CLIENT_VARIABLES)
    names = {name.upper() for name in (os.environ if environ is None else environ)}
    if Path(ENV_FILE).is_file():
        names |= {name.upper() for name in dotenv_values(ENV_FILE)}
    warnings = []
    for name in sorted(n for n in names if n.startswith(PREFIX) and n not in known):
        near = difflib.get_close_matches(name, known, n=1)
        warnings.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return warnings
