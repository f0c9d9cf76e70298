"""Mutual TLS 1.3 under the frames: both sides prove their identity, and two threads may use the socket at once.

One thread sends while another receives, which a single OpenSSL object does not allow. Therefore the object works on memory,
under a lock, and the threads move its bytes to and from the socket. No thread holds the lock while it waits for the network.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydbt.core.errors import NoAnswer, PeerError, UsageError
from pydbt.core.identity_expiry import IdentityState
from pydbt.core.protocol.frames import Refuse
from pydbt.core.protocol.peer_identity import Machine, PeerObjection, objection_to_revoked, objection_to_twin
from pydbt.network.certificates import is_read_only, key_of, lifetime_of, revoked_beside
from pydbt.network.connection import FramedConnection, StreamSocket
from pydbt.network.tls_errors import explain_tls_error
from pydbt.posix.ownership import Unsafe, file_intruder, read_safely

TLS_HANDSHAKE_S = 10.0
TURN_AWAY_S = 3.0
"""How long a machine that is turned away may take to read why, before the connection is cut."""
_RECEIVE_BYTES = 256 * 1024
# Bytes that are encrypted in one call: many, so that calls cost little, and few enough to be copied within the cache.
_SEND_BYTES = 256 * 1024
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class Pin(Protocol):
    """The machine that is expected at the other end of a volume."""

    def objection(self, proved: Machine) -> PeerObjection | None:
        """The reason why a machine is not the peer; None when it may be."""
        ...

    def remember(self, accepted: Machine) -> None:
        """Record that this machine was accepted."""
        ...


class NotThePeer(PeerError):
    """The peer has proved who it is, and may not be the peer. It was told so, and the connection is closed."""

    def __init__(self, machine: Machine, objection: PeerObjection) -> None:
        super().__init__(objection.why)
        self.machine, self.code = machine, objection.code


@dataclass(frozen=True, slots=True)
class Identity:
    """The content of one identity file, as TLS contexts for both roles; ``certificate`` is its own (DER).

    ``revoked``: keys that are accepted from nobody, of the file ``revoked`` beside it.
    """

    path: Path
    certificate: bytes
    as_client: ssl.SSLContext
    as_server: ssl.SSLContext
    state: IdentityState
    revoked: frozenset[str]


def load_identity(path: Path, *, reading: bool = False) -> Identity:
    """Read an identity file. UsageError when it is wrong, or when other users may read it.

    One that may only read is refused, too, but for ``reading``: it is never that of a primary or secondary.
    """
    try:
        text, status = read_safely(path)
    except OSError as error:
        raise UsageError(f"the identity {path} cannot be read: {error.strerror}") from error
    except Unsafe as error:
        raise UsageError(f"the identity {path} is not safe from other users: {error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not an identity: make one with 'controller pki issue'") from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(
            f"the identity {path} holds a private key and can be read by other users: run chmod 600 {path}"
        )
    if wrong := file_intruder(path, status):
        raise UsageError(f"the identity {path} is not safe from other users: {wrong}")
    if "ENCRYPTED" in text:
        raise UsageError(
            f"the key in the identity {path} is encrypted, and nobody is asked for a passphrase: keep it without one, in a file "
            "that only its user may read, as 'controller pki issue' makes it"
        )
    certificates = _CERTIFICATE.findall(text)
    if len(certificates) < 2 or "PRIVATE KEY" not in text:
        raise UsageError(
            f"{path} is not an identity, which has a key and two certificates: make one with 'controller pki issue'"
        )
    try:
        roles = ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER
        own = ssl.PEM_cert_to_DER_cert(certificates[0])
        if not reading and is_read_only(own):
            raise UsageError(
                f"the identity {path} may only read (it was issued with --read-only), and is neither a primary's nor a "
                "secondary's: give it to 'controller dashboard', and issue another one for this machine"
            )
        as_client, as_server = (_context(path, certificates[-1], role) for role in roles)
        revoked = revoked_beside(path)
        lifetimes = lifetime_of(certificates[0]), lifetime_of(certificates[-1])
        state = IdentityState(*lifetimes, is_revoked=key_of(own) in revoked)
        return Identity(path, own, as_client, as_server, state, revoked)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(f"the identity {path} cannot be used: {error}") from error


def _context(path: Path, authority: str, role: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(role)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a machine is known by its name and not by its address: see Secure
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(path, password=lambda: b"")  # else a key that asks for one asks on the terminal
    context.load_verify_locations(cadata=authority)
    if role is ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


class Secure:
    """Makes sockets of one side secure: both sides prove that the same authority issued their certificates, and their names."""

    def __init__(self, identity: Identity, pin: Pin) -> None:
        self._identity, self._pin = identity, pin

    @property
    def state(self) -> IdentityState:
        """What decides whether others accept this machine's identity."""
        return self._identity.state

    def reload(self) -> None:
        """Take the identity and the list of revoked keys from their files, for connections made from now on.

        UsageError, and the earlier ones stay in use.
        """
        self._identity = load_identity(self._identity.path)

    def is_revoked(self, peer: StreamSocket) -> bool:
        """Whether the key that the peer of a connection has proved was revoked since."""
        return isinstance(peer, TlsSocket) and peer.machine.key in self._identity.revoked

    def client(self, sock: socket.socket) -> TlsSocket:
        """The connecting side. PeerError (NotThePeer for a proven machine) gives the reason; the socket is closed then."""
        return self._shake_hands(sock, self._identity.as_client, server_side=False)

    def server(self, sock: socket.socket) -> TlsSocket:
        """The listening side. PeerError as above."""
        return self._shake_hands(sock, self._identity.as_server, server_side=True)

    def remember(self, peer: StreamSocket) -> None:
        """Record that this peer was accepted for the volume; no other machine will be. StateError when it cannot be written."""
        assert isinstance(peer, TlsSocket), "a connection that this object made secure"
        self._pin.remember(peer.machine)

    def _shake_hands(self, sock: socket.socket, context: ssl.SSLContext, server_side: bool) -> TlsSocket:
        secured = TlsSocket(sock, context, server_side)
        try:
            secured.shake_hands(TLS_HANDSHAKE_S)
            if (found := self._objection(secured)) is not None:
                _turn_away(secured, found)
                raise NotThePeer(secured.machine, found)
        except (ssl.SSLError, OSError) as error:
            secured.close()
            ended = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or not isinstance(error, ssl.SSLError)
            raise (NoAnswer if ended else PeerError)(explain_tls_error(error, TLS_HANDSHAKE_S)) from None
        except BaseException:
            secured.close()
            raise
        return secured

    def _objection(self, peer: TlsSocket) -> PeerObjection | None:
        if peer.peer_certificate == self._identity.certificate:
            return objection_to_twin(peer.machine)
        if peer.machine.key in self._identity.revoked:
            return objection_to_revoked(peer.machine)
        return self._pin.objection(peer.machine)


def _turn_away(peer: TlsSocket, found: PeerObjection) -> None:
    """Tell a proven machine why, and let it read that: a client of TLS 1.3 takes itself for accepted, and has sent its HELLO."""
    with contextlib.suppress(PeerError, OSError):  # it is gone
        FramedConnection(peer, silence_s=TURN_AWAY_S).send_frames([Refuse(found.code, found.told)])
        peer.finish_and_close(TURN_AWAY_S)


class TlsSocket:
    """A TLS connection with the face of a socket (``StreamSocket``). One thread may send while another receives."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_side: bool) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._encrypted = memoryview(b"")
        self._owed = 0
        self.machine = Machine()
        self.peer_certificate = b""

    # --- handshake ----------------------------------------------------------------------------------------
    def shake_hands(self, seconds: float) -> None:
        """Authenticate both sides, before one deadline. Raises OSError, which includes ssl.SSLError."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                self._fetch(deadline)
                continue
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the alert that gives the peer the reason
                    self._flush(deadline)
                raise
            self._flush(deadline)
            break
        self.peer_certificate = self._tls.getpeercert(binary_form=True) or b""
        self.machine = Machine(common_name(self._tls.getpeercert()), key_of(self.peer_certificate))

    def _flush(self, deadline: float) -> None:
        data = self._outgoing.read()
        if data:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(data)

    def _fetch(self, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        data = self._socket.recv(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    # --- data ---------------------------------------------------------------------------------------------
    def recv_into(self, view: memoryview) -> int:
        """As of a socket; 0 at the end, also of a stream that was cut off: an incomplete frame shows that."""
        while True:
            with self._lock:
                try:
                    return int(self._tls.read(len(view), view))  # with a buffer it returns how many bytes it read
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
                except ssl.SSLError as error:
                    raise OSError(0, explain_tls_error(error, TLS_HANDSHAKE_S)) from error
            count = self._socket.recv_into(self._buffer)
            with self._lock:
                if count:
                    self._incoming.write(memoryview(self._buffer)[:count])
                else:
                    self._incoming.write_eof()

    def sendmsg(self, views: list[memoryview]) -> int:
        """As of a socket. After TimeoutError call it again with the same data; encrypted bytes are sent first."""
        with self._sending:
            if not self._encrypted:
                self._encrypt(views)
            while self._encrypted:
                sent = self._socket.send(self._encrypted)
                self._encrypted = self._encrypted[sent:]
            return self._owed

    def _encrypt(self, views: list[memoryview]) -> None:
        if len(views[0]) >= _SEND_BYTES:
            data: bytes | memoryview = views[0][:_SEND_BYTES]
        else:
            pieces, size = [], 0
            for view in views:
                if size + len(view) > _SEND_BYTES:
                    break
                pieces.append(view)
                size += len(view)
            data = b"".join(pieces)
        with self._lock:
            try:
                self._owed = self._tls.write(data)
            except ssl.SSLError as error:
                raise OSError(0, explain_tls_error(error, TLS_HANDSHAKE_S)) from error
            self._encrypted = memoryview(self._outgoing.read())

    # --- the rest of a socket -----------------------------------------------------------------------------
    @property
    def family(self) -> socket.AddressFamily:
        return self._socket.family

    def settimeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._socket.setsockopt(level, name, value)

    def getsockopt(self, level: int, name: int, length_bytes: int) -> bytes:
        return self._socket.getsockopt(level, name, length_bytes)

    def getpeername(self) -> Any:
        return self._socket.getpeername()

    def getsockname(self) -> Any:
        return self._socket.getsockname()

    def shutdown(self, how: int) -> None:
        """Shut down the TCP connection only: the end of a TLS stream would also end receiving."""
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def finish_and_close(self, seconds: float) -> None:
        """Send nothing more, and close when the peer has read everything and closed, or when the time is over.

        Closed at once, with something of the peer unread, it could lose what was sent last.
        """
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while True:
                self._socket.settimeout(_left(deadline))
                if not self._socket.recv(65536):
                    break
        self._socket.close()

    @property
    def peer_name(self) -> str:
        """The name that the peer has proved."""
        return self.machine.name


def common_name(certificate: Mapping[str, Any] | None) -> str:
    """The name in a certificate, as ``getpeercert`` of ``ssl`` gives it; empty without one."""
    subject: Iterable[Iterable[tuple[str, str]]] = (certificate or {}).get("subject", ())
    return next((value for row in subject for key, value in row if key == "commonName"), "")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
