"""The client's wheel works where there is nothing but grpcio and protobuf."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
# What installing grpcio and protobuf brings along.
_NEEDED = ("grpc", "google.protobuf", "google._upb._message", "typing_extensions")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(_ROOT / "clients/python")], check=True, stdout=subprocess.DEVNULL)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, and what it asks for, into a folder that holds nothing else."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in _NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        link = site.joinpath(*name.split(".")[:-1], source.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    return site


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_asks_for_grpcio_and_protobuf_alone(wheel: Path) -> None:
    """Its metadata names these two."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        wanted = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    assert sorted(line.split("<")[0].split(">")[0] for line in wanted) == ["grpcio", "protobuf"]


def test_wheel_carries_client_config_and_every_stub(wheel: Path) -> None:
    """The client, its service config, both type markers and all stubs are in it, and nothing else."""
    names = _names(wheel)
    kept = {f"moragmeta/v1/{path.name}" for path in (_ROOT / "generated/python/moragmeta/v1").glob("*.py*")}
    own = {"morag_client/service_config.json", "morag_client/py.typed", "moragmeta/py.typed"}
    assert kept | own <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"morag_client", "moragmeta"}


def test_wheel_imports_beside_nothing_else(bare: Path, tmp_path: Path) -> None:
    """Client and stubs import where nothing else is installed, the service config included."""
    code = (
        f"import sys; sys.path.insert(0, {str(bare)!r})\n"
        "import json, morag_client, moragmeta.v1.workers_pb2_grpc as stubs\n"
        "strangers = ('morag_meta', 'google.rpc', 'grpc_status')\n"
        "strange = [name for name in sys.modules if name.startswith(strangers)]\n"
        "morag_client.connect('127.0.0.1:1', 'key').close()\n"
        "print(json.dumps([morag_client.__file__, stubs.__file__, strange]))\n"
    )
    # Without site-packages, and without the environment's own path.
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    client, stubs, strange = json.loads(done.stdout)
    assert Path(client).is_relative_to(bare)
    assert Path(stubs).is_relative_to(bare)
    assert strange == []
