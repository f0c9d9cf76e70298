"""Certificates for mutual TLS: one authority for all machines, and one identity file per machine.

An identity file holds a private key, its certificate and the authority's certificate (PEM), so that one file is all that
a machine needs. Keys are of the curve P-256; times are UTC.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pydbt.core.errors import BusyError, StateError, UsageError
from pydbt.core.machine_name import name_problem
from pydbt.network.certificates import (
    READ_ONLY_OID,
    REVOKED_FILE_NAME,
    is_read_only,
    key_of,
    lifetime_of,
    revoked_beside,
)
from pydbt.network.tls import Identity, load_identity
from pydbt.posix.atomic import replace_file
from pydbt.posix.files import try_lock
from pydbt.posix.ownership import Unsafe, folder_intruder, make_folder

AUTHORITY_KEY, AUTHORITY_CERTIFICATE = "authority.key", "authority.pem"
AUTHORITY_DAYS = 3650
IDENTITY_DAYS = 1825
_NAMES_SHOWN = 10
# A list is written in a moment.
_TURN_S, _LOOK_S = 20.0, 0.05
# A clock that is a little behind must not find a new certificate not valid yet.
_SKEW = timedelta(hours=1)
_NULL = b"\x05\x00"  # NULL in DER: the mark says everything by being there


def make_authority(folder: Path) -> Path:
    """Make an authority in a folder; the path of its certificate. UsageError when there is one already.

    A key alone, with which nothing was issued, is of one that was killed here: it is completed.
    """
    torn = (folder / AUTHORITY_KEY).exists() and not (folder / AUTHORITY_CERTIFICATE).exists()
    torn = torn and not any(folder.glob("*.identity"))
    if (folder / AUTHORITY_KEY).exists() and not torn:
        raise UsageError(f"{folder} holds an authority already: issue identities with it, or name another folder")
    try:
        make_folder(folder)
    except Unsafe as error:
        raise UsageError(f"the folder {folder} is not safe from other users: {error}") from None
    except OSError as error:
        raise StateError(f"the folder {folder} cannot be made: {error.strerror}") from None
    key = _authority_key(folder) if torn else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pydbt authority {os.urandom(4).hex()}")])
    if not torn:
        replace_file(folder / AUTHORITY_KEY, _private(key))
    replace_file(folder / AUTHORITY_CERTIFICATE, _public(_of_authority(key, name)))
    return folder / AUTHORITY_CERTIFICATE


def _of_authority(key: ec.EllipticCurvePrivateKey, name: x509.Name) -> x509.Certificate:
    builder = _certificate(name, name, key.public_key(), timedelta(days=AUTHORITY_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Renewed:
    """What ``renew_authority`` made: the authority's certificate with its end and the end of the one before, and the identities.

    ``revoked``: machines whose identity was left as it is, because its key is revoked.
    """

    certificate: Path
    ends: datetime
    ended: datetime
    identities: list[Path]
    revoked: list[str]


def renew_authority(folder: Path, days: float = IDENTITY_DAYS) -> Renewed:
    """Make a new certificate for an authority, and with it the identities in its folder; each key stays, and each name.

    So an identity of before and one of now accept each other until the earlier certificate of the authority ends: signatures of
    one key are valid under both (RFC 5280, 6.1: a trust anchor is a name and a key), and volumes know the machines by keys.
    UsageError and StateError with nothing changed. When it is interrupted, the next one makes everything again.
    """
    key, before = _authority(folder)
    found = {path: _renewable(path, before) for path in sorted(folder.glob("*.identity"))}
    certificate = _of_authority(key, before.subject)
    replace_file(folder / AUTHORITY_CERTIFICATE, _public(certificate))
    made = [
        issue(folder, path.stem, days, replace=True, read_only=is_read_only(one.certificate))
        for path, one in found.items()
        if not one.state.is_revoked
    ]
    return Renewed(
        folder / AUTHORITY_CERTIFICATE,
        lifetime_of(_public(certificate).decode()).ends,
        lifetime_of(_public(before).decode()).ends,
        made,
        [path.stem for path, one in found.items() if one.state.is_revoked],
    )


def _renewable(path: Path, authority: x509.Certificate) -> Identity:
    """The identity in a file. UsageError when another one would take its place."""
    identity = load_identity(path, reading=True)
    own = x509.load_der_x509_certificate(identity.certificate)
    public = authority.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey), "_authority() has looked at it"
    try:
        assert own.signature_hash_algorithm is not None, "ECDSA has one"
        public.verify(own.signature, own.tbs_certificate_bytes, ec.ECDSA(own.signature_hash_algorithm))
    except InvalidSignature:
        raise UsageError(
            f"{path} was issued by another authority than the one in {path.parent}: move it elsewhere, or issue it by this one "
            f"with 'controller pki issue --replace {path.parent} {path.stem}'"
        ) from None
    names = [str(entry.value) for entry in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [path.stem] or name_problem(path.stem):
        raise UsageError(
            f"{path} is the identity of {names[0] if names else ''!r}: an identity is called NAME.identity"
        )
    read_only = is_read_only(identity.certificate)
    if not identity.state.is_revoked and _kept_key(path, read_only) is None:
        raise UsageError(f"{path} has a key of another kind than 'controller pki issue' makes: issue it with --replace")
    return identity


def issue(
    folder: Path,
    name: str,
    days: float = IDENTITY_DAYS,
    begins: datetime | None = None,
    *,
    replace: bool = False,
    read_only: bool = False,
) -> Path:
    """Make an identity for a machine; the path of its one file. UsageError when there is one, unless it is to be replaced.

    It ends with its authority, if not before. The key of one that is replaced stays unless it was revoked, or may do something
    else from now on: other machines know the key. With ``read_only`` it may look at dashboards, and do nothing else.
    """
    if problem := name_problem(name):
        raise UsageError(problem)
    path = folder / f"{name}.identity"
    if path.exists() and not replace:
        raise UsageError(
            f"{path} is there already: copy that one to {name}, or make another one in its place with --replace"
        )
    key, certificate = _authority(folder)
    path = folder / f"{name}.identity"
    own = _kept_key(path, read_only) or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _certificate(
        subject, certificate.subject, own.public_key(), timedelta(days=days), begins, _end_of(folder, certificate)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    # Both: after a failover the sides change places. Who may only read is no server.
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([] if read_only else [ExtendedKeyUsageOID.SERVER_AUTH])]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if read_only:
        mark = x509.UnrecognizedExtension(x509.ObjectIdentifier(READ_ONLY_OID), _NULL)
        builder = builder.add_extension(mark, critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    signed = builder.sign(key, hashes.SHA256())
    replace_file(path, _private(own) + _public(signed) + _public(certificate))
    return path


def _end_of(folder: Path, authority: x509.Certificate) -> datetime:
    end = lifetime_of(_public(authority).decode()).ends
    if end <= datetime.now(UTC):
        raise UsageError(
            f"the authority in {folder} expired at {end.isoformat(timespec='seconds')}, and nobody accepts what it issues: renew "
            f"it, and the identities of all machines, with 'controller pki renew {folder}'"
        )
    return end


def _require_safe(folder: Path) -> None:
    """Who can put another authority there can make any identity."""
    if folder.is_dir() and (wrong := folder_intruder(folder)):
        raise UsageError(f"the folder {folder} is not safe from other users: {wrong}")


def revoke_key(folder: Path, name: str) -> tuple[Path, str]:
    """Enter the key of a machine's identity into the list of revoked keys: the path of the list, and the key."""
    if problem := name_problem(name):
        raise UsageError(problem)
    _require_safe(folder)
    path = folder / f"{name}.identity"
    if not path.exists():
        raise UsageError(f"{folder} has no identity of {name!r} whose key could be revoked: {_issued_in(folder)}")
    try:
        certificate = path.read_text(encoding="ascii").split("-----BEGIN CERTIFICATE-----")[1]
        der = x509.load_pem_x509_certificate(f"-----BEGIN CERTIFICATE-----{certificate}".encode())
    except OSError as error:
        raise UsageError(f"the identity {path} cannot be read: {error.strerror}") from None
    except (IndexError, ValueError):
        raise UsageError(
            f"{path} is no identity: put back the one that was issued for {name}, from that machine for example"
        ) from None
    key = key_of(der.public_bytes(serialization.Encoding.DER))
    revoked = folder / REVOKED_FILE_NAME
    with _alone_in(folder):
        if key not in revoked_beside(path):
            before = revoked.read_bytes() if revoked.exists() else b""
            # An editor or echo -n may have left the last line without an end.
            end = b"" if not before or before.endswith(b"\n") else b"\n"
            replace_file(revoked, before + end + f"{key} {name}\n".encode())
            if key not in revoked_beside(path):
                raise StateError(
                    f"{revoked} does not list the key of {name}, although it was written: look at that file"
                )
    return revoked, key


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One command at a time: each writes the list anew, with what was in it. BusyError when it is not its turn for a while.

    Whoever may read the folder can lock it, and so keep everybody else out.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _TURN_S
        while not try_lock(descriptor):
            if time.monotonic() > until:
                raise BusyError(
                    f"another program holds a lock on the folder {folder}: try again when it has ended; if it is another user's, "
                    f"run 'chmod go-rx {folder}' and end it"
                )
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)


def _issued_in(folder: Path) -> str:
    names = sorted(path.stem for path in folder.glob("*.identity"))
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {len(names) - _NAMES_SHOWN} more" if names[_NAMES_SHOWN:] else "")
    return f"name one of {shown}" if names else "name the folder in which it was issued"


def _kept_key(path: Path, read_only: bool) -> ec.EllipticCurvePrivateKey | None:
    """The key of the identity that is there, if there is one, its key was not revoked, and it may do the same."""
    try:
        content = path.read_bytes()
        key = serialization.load_pem_private_key(content, None)
        own = x509.load_pem_x509_certificate(content).public_bytes(serialization.Encoding.DER)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or is_read_only(own) != read_only:
        return None
    return None if f"sha256:{hashlib.sha256(_of_key(key.public_key())).hexdigest()}" in revoked_beside(path) else key


def _authority_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """FileNotFoundError, StateError."""
    try:
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise StateError(f"the authority in {folder} cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StateError(f"the authority in {folder} is not one that 'controller pki init' made")
    return key


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    _require_safe(folder)
    try:
        key = _authority_key(folder)
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY_CERTIFICATE).read_bytes())
    except FileNotFoundError:
        present = [name for name in (AUTHORITY_KEY, AUTHORITY_CERTIFICATE) if (folder / name).exists()]
        if len(present) == 1:
            (missing,) = {AUTHORITY_KEY, AUTHORITY_CERTIFICATE} - {*present}
            raise StateError(f"the authority in {folder} is not whole: {missing} is missing; put it back") from None
        raise UsageError(f"{folder} holds no authority: make one with 'controller pki init {folder}'") from None
    except (OSError, ValueError) as error:
        raise StateError(f"the authority in {folder} cannot be read: {error}") from error
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or _of_key(public) != _of_key(key.public_key()):
        raise StateError(
            f"{AUTHORITY_KEY} and {AUTHORITY_CERTIFICATE} in {folder} do not belong together: put back the one that was exchanged"
        )
    return key, certificate


def _of_key(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    lasts: timedelta,
    begins: datetime | None = None,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    begins = begins or datetime.now(UTC) - _SKEW
    ends = begins + _SKEW + lasts
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends if latest is None else min(ends, latest))
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
