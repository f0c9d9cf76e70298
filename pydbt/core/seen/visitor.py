"""Who may read the dashboard: what a request claims, judged before anything is looked up for it.

Any user of the machine reaches its loopback, and so does any page in a browser that runs there. A page of another site cannot
set ``Host`` or leave out ``Origin`` and ``Sec-Fetch-Site`` (Fetch Standard, 2.2.2), and a name that it points at this machine
(DNS rebinding) is none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

READING = ("GET", "HEAD")
_LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")
_OWN_SITE = ("same-origin", "none")


@dataclass(frozen=True, slots=True)
class VisitObjection:
    """Why a request is not answered: the status of HTTP, and one sentence for whoever sent it."""

    status: int
    words: str


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request tells of itself, with the names of its headers in small letters."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def is_opened(self) -> bool:
        """Whether a person opens the page itself, by a link of any place: that reads nothing for the place with the link."""
        navigates = (
            self.headers.get("sec-fetch-mode") == "navigate" and self.headers.get("sec-fetch-dest") == "document"
        )
        return navigates and self.path == "/"

    @property
    def is_from_elsewhere(self) -> bool:
        """Whether the browser says that a page of another site, or another port, began it."""
        return self.headers.get("sec-fetch-site", "none") not in _OWN_SITE


def objection_to_visit(visit: Visit, own_names: frozenset[str] | None) -> VisitObjection | None:
    """The reason why a request is not looked at; None when it may be, by whoever proves that he may read.

    ``own_names``: host names of this server, in small letters, beside loopback and addresses; None where a proxy has looked.
    """
    if visit.method not in READING:
        return VisitObjection(405, "the dashboard can change nothing: it answers GET and HEAD alone")
    host = visit.headers.get("host", "")
    if own_names is not None and not is_own_host(host, own_names):
        return VisitObjection(403, "this server has another name: use its address, or name it with --name at its start")
    origin = visit.headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return VisitObjection(403, "a page of another site may not read the dashboard")
    if visit.is_from_elsewhere and not visit.is_opened:
        return VisitObjection(403, "a page of another site may not read the dashboard")
    return None


def is_own_host(host: str, own_names: frozenset[str]) -> bool:
    """Whether a ``Host`` names this server. An address is never a name that somebody else has pointed here."""
    name = host_name_of(host)
    if name is None:
        return False
    if name in _LOOPBACK_NAMES or name in own_names:
        return True
    try:
        ip_address(name.partition("%")[0])
        return True
    except ValueError:
        return False


def host_name_of(host: str) -> str | None:
    """The name or address in ``NAME[:PORT]`` or ``[V6ADDRESS][:PORT]``, in small letters; None for anything else."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        well = bool(bracket) and ":" in name
    else:
        name, colon, port = host.partition(":")
        well, rest = bool(name), colon + port
    if not well or (rest and not (rest.startswith(":") and rest[1:].isascii() and rest[1:].isdigit())):
        return None
    return name.lower().removesuffix(".")


def bearer_token(authorization: str) -> str:
    """The token in ``Authorization: Bearer TOKEN`` (RFC 6750, 2.1); empty for anything else."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def cookie_value(header: str, name: str) -> str:
    """One cookie of a ``Cookie`` header (RFC 6265, 4.2.1); empty without it."""
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return ""
