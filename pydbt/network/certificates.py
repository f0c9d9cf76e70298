"""What the program reads in certificates: the key that a machine has, when they are valid, and which keys are revoked.

The library is loaded only when a certificate is read: most commands never do.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

from pydbt.core.errors import UsageError
from pydbt.core.identity_expiry import Lifetime
from pydbt.posix.ownership import Unsafe, file_intruder, read_safely

REVOKED_FILE_NAME = "revoked"
READ_ONLY_OID = "1.3.6.1.3.7039661.1"
"""The extension of an identity that may only read, in IANA's arc for experiments: no other program has to know it.

It is critical, so that every version of this program that does not look for it refuses the certificate as a whole (RFC 5280,
4.2), in the place of a primary and in that of a secondary.
"""
_KEY = re.compile(r"sha256:[0-9a-f]{64}")


def key_of(certificate: bytes) -> str:
    """The fingerprint of the key in a certificate (DER): ``sha256:`` and 64 hexadecimal digits of its SubjectPublicKeyInfo.

    It stays when the certificate is issued again for the same key (RFC 7469, 2.4).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    return f"sha256:{hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()}"


def is_read_only(certificate: bytes) -> bool:
    """Whether an identity may only read, by its certificate (DER)."""
    from cryptography import x509

    extensions = x509.load_der_x509_certificate(certificate).extensions
    return any(extension.oid.dotted_string == READ_ONLY_OID for extension in extensions)


def lifetime_of(certificate: str) -> Lifetime:
    """The time in which a certificate (PEM) is valid. ValueError when it is none."""
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(certificate.encode())
    # From version 42 on with its zone; before it, UTC without one.
    begin: datetime = getattr(loaded, "not_valid_before_utc", None) or loaded.not_valid_before.replace(tzinfo=UTC)
    end: datetime = getattr(loaded, "not_valid_after_utc", None) or loaded.not_valid_after.replace(tzinfo=UTC)
    return Lifetime(begin, end)


def revoked_beside(identity: Path) -> frozenset[str]:
    """The keys in the file ``revoked`` in the folder of an identity; none without it. UsageError names a line that is no key.

    One key per line, with what follows it, and lines that begin with #, for people.
    """
    path = identity.with_name(REVOKED_FILE_NAME)
    try:
        text, status = read_safely(path)
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list of revoked keys {path} cannot be read: {error}") from None
    except Unsafe as error:
        raise UsageError(f"the list of revoked keys {path} is not safe from other users: {error}") from None
    if wrong := file_intruder(path, status):
        raise UsageError(f"the list of revoked keys {path} is not safe from other users: {wrong}")
    lines = text.splitlines()
    words = [(number, line.split()[0]) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    for number, word in words:
        if not _KEY.fullmatch(word):
            raise UsageError(f"line {number} of {path} names no key: write sha256: and 64 hexadecimal digits")
    return frozenset(word for _, word in words)
