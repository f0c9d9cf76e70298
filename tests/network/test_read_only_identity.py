"""An identity that may only read: no primary and no secondary is one, and none accepts one."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pydbt.cli.group import execute
from pydbt.controller import pki
from pydbt.core.errors import PeerError, UsageError
from pydbt.core.units import MIB
from pydbt.network.certificates import is_read_only, key_of
from pydbt.network.tls import Secure, load_identity
from pydbt.store.peer_pin import PeerPin
from tests.lab.disks import image, loop_over
from tests.network.test_tls import meet


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    pki.make_authority(tmp_path / "pki")
    return tmp_path / "pki"


def secure(path: Path, state: Path, *, reading: bool = False) -> Secure:
    return Secure(load_identity(path, reading=reading), PeerPin(state, None))


def test_a_read_only_identity_is_refused_where_a_primary_or_secondary_would_start_with_it(authority: Path) -> None:
    path = pki.issue(authority, "viewer", read_only=True)
    with pytest.raises(UsageError, match=r"may only read .* 'controller dashboard'"):
        load_identity(path)
    identity = load_identity(path, reading=True)
    assert is_read_only(identity.certificate)
    assert not is_read_only(load_identity(pki.issue(authority, "alpha")).certificate)


@pytest.mark.parametrize("as_primary", [True, False])
def test_a_peer_refuses_a_read_only_identity_in_either_role(tmp_path: Path, authority: Path, as_primary: bool) -> None:
    """Also a peer of an earlier version: OpenSSL itself does not accept a certificate with a mark that nobody looks for."""
    viewer = secure(pki.issue(authority, "viewer", read_only=True), tmp_path / "v", reading=True)
    alpha = secure(pki.issue(authority, "alpha"), tmp_path / "a")
    near, far = meet(viewer.client, alpha.server) if as_primary else meet(alpha.client, viewer.server)
    refusing = far if as_primary else near
    assert isinstance(refusing, PeerError) and "may only read" in str(refusing)


def test_openssl_alone_refuses_a_read_only_identity(authority: Path) -> None:
    """Without a line of this program: as every version does that was made before there were such identities."""
    path = pki.issue(authority, "viewer", read_only=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.issue(authority, "alpha"))
    server.load_verify_locations(authority / "authority.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_cert_chain(path)
    client.load_verify_locations(authority / "authority.pem")

    def serve(sock: object) -> object:
        try:
            return server.wrap_socket(sock, server_side=True)  # type: ignore[arg-type]
        except ssl.SSLError as error:
            raise PeerError(str(error)) from None

    _, far = meet(client.wrap_socket, serve)
    assert isinstance(far, PeerError) and "unhandled critical extension" in str(far)


def test_a_read_only_identity_stays_read_only_when_renewed_and_gets_a_new_key_when_its_kind_changes(
    authority: Path,
) -> None:
    path = pki.issue(authority, "viewer", read_only=True)
    key = key_of(load_identity(path, reading=True).certificate)
    pki.renew_authority(authority)
    renewed = load_identity(path, reading=True).certificate
    assert is_read_only(renewed) and key_of(renewed) == key
    again = load_identity(pki.issue(authority, "viewer", replace=True, read_only=True), reading=True).certificate
    assert key_of(again) == key
    machine = load_identity(pki.issue(authority, "viewer", replace=True)).certificate
    assert key_of(machine) != key, "who has the file of the viewer is no machine with it"


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_neither_role_starts_with_a_read_only_identity(
    tmp_path: Path, authority: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pki.issue(authority, "viewer", read_only=True)
    given = ["--state", str(tmp_path / "state"), "--identity", str(path), "--check"]
    with loop_over(image(tmp_path / "disk.img", MIB)) as device:
        words = (
            ["run", str(device), "--secondary", "127.0.0.1:1"]
            if role == "primary"
            else ["secondary", str(device), "--listen", "127.0.0.1:0"]
        )
        assert execute([*words, *given]) == 2
    said = capsys.readouterr().err
    assert "may only read" in said and said.count("\n") == 1 and not (tmp_path / "state").exists()
