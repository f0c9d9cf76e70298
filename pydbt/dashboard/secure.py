"""TLS of a dashboard: what it shows to browsers and scrapers, and how machines of one authority prove that they may read."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydbt.core.errors import UsageError
from pydbt.core.protocol.peer_identity import Machine
from pydbt.network.certificates import key_of, revoked_beside
from pydbt.network.tls import common_name, load_identity
from pydbt.posix.ownership import Unsafe, file_intruder, read_safely

# X509_V_FLAG_IGNORE_CRITICAL of OpenSSL's x509_vfy.h, for which Python has no name: the mark of an identity that may only read
# is the one extension of our authority that OpenSSL does not know.
_IGNORE_CRITICAL = ssl.VerifyFlags(0x10)


def server_tls(identity: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Shows the certificate, or else the identity's, whose authority's machines may prove themselves. UsageError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        _load(context, certificate, key or certificate)
    if identity is not None:
        # Who serves with its identity has to be able to: one that may only read is no server.
        load_identity(identity, reading=certificate is not None)
        if certificate is None:
            context.load_cert_chain(identity)
        _trust(context, identity)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_tls(identity: Path) -> ssl.SSLContext:
    """For looking at dashboards of other machines, which are known by their names in the certificate and not by addresses."""
    load_identity(identity, reading=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_cert_chain(identity)
    _trust(context, identity, marked=False)
    return context


def _trust(context: ssl.SSLContext, identity: Path, *, marked: bool = True) -> None:
    text, _ = read_safely(identity)
    context.load_verify_locations(cadata=text[text.rindex("-----BEGIN CERTIFICATE-----") :])
    if marked:
        context.verify_flags |= _IGNORE_CRITICAL


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        _, status = read_safely(key)
        if status.st_mode & 0o077:
            raise UsageError(f"the key {key} can be read by other users: run chmod 600 {key}")
        if wrong := file_intruder(key, status):
            raise UsageError(f"the key {key} is not safe from other users: {wrong}")
        context.load_cert_chain(
            certificate, key, password=lambda: b""
        )  # else a key that asks for one asks on the terminal
    except Unsafe as error:
        raise UsageError(f"the key {key} is not safe from other users: {error}") from None
    except (OSError, ValueError) as error:
        words = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UsageError(f"the certificate {certificate} with the key {key} cannot be used: {words}") from None


def proved_machine(connection: ssl.SSLObject | ssl.SSLSocket) -> Machine | None:
    """Name and key that the other end has proved; None when it has shown no certificate."""
    certificate = connection.getpeercert(binary_form=True)
    if not certificate:
        return None
    return Machine(common_name(connection.getpeercert()), key_of(certificate))


def reader_of(identity: Path, connection: ssl.SSLObject) -> str:
    """The machine at the other end, if it may read: its identity is of the same authority, and not revoked. Else empty."""
    machine = proved_machine(connection)
    if machine is None:
        return ""
    try:
        revoked = revoked_beside(identity)
    except UsageError:  # who may come is not known any more, until somebody mends that list
        return ""
    return "" if machine.key in revoked else machine.name
