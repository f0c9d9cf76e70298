"""Before every answer: whether the request may be looked at, and by whom; and the headers that every answer has."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pydbt.core.seen.visitor import READING, Visit, VisitObjection, bearer_token, cookie_value, objection_to_visit
from pydbt.dashboard.house import DENIED, PEER, TRUSTED, House

# No script, style, or connection but of this server; nothing of it in a frame of another page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_NO_TOKEN = VisitObjection(
    401,
    "this needs the token of the dashboard: open the link that 'controller dashboard' has printed, or send the token as bearer",
)
_NOT_ALLOWED = VisitObjection(
    403, "this user may not use the socket of the dashboard: name it with --allow at its start"
)
_SINGLE = ("host", "origin", "authorization", "cookie", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")

_log = logging.getLogger(__name__)


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app, self._house = app, house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._answer_to(scope)
        try:
            await (answer or self._app)(scope, receive, send_with_headers)
        except Exception as error:
            _log.error("a request for %s failed, which is a bug: %r", scope.get("path"), error, exc_info=error)
            if started:
                raise
            await refusal_to(scope, VisitObjection(500, "this dashboard has a fault: see its log"))(
                scope, receive, send_with_headers
            )

    def _answer_to(self, scope: Scope) -> Response | None:
        """The answer to a request that the application does not see; None for one that it does."""
        if scope.get(DENIED):
            return refusal_to(scope, _NOT_ALLOWED)
        headers = _headers_of(scope)
        if headers is None:
            return refusal_to(scope, VisitObjection(400, "a header that tells who asks comes once"))
        visit = Visit(scope["method"], scope["path"], headers)
        if (found := objection_to_visit(visit, self._house.own_names)) is not None:
            return refusal_to(scope, found)
        if scope["path"] == "/" and (given := _token_in(scope)) is not None:
            return self._welcome(scope, given, visit)
        if not self._may_read(scope, visit):
            return refusal_to(scope, _NO_TOKEN)
        scope[TRUSTED] = True
        return None

    def _may_read(self, scope: Scope, visit: Visit) -> bool:
        if scope.get(PEER):
            return True
        token = self._house.token
        if (told := bearer_token(visit.headers.get("authorization", ""))) and token.is_told_by(told):
            return True
        cookie = cookie_value(visit.headers.get("cookie", ""), self._house.cookie_name)
        return bool(cookie) and token.is_in_cookie(cookie)

    def _welcome(self, scope: Scope, given: str, visit: Visit) -> Response:
        """The link with the token: the browser keeps a cookie, and goes on without the token in its address."""
        if not self._house.token.is_told_by(given):
            return refusal_to(
                scope,
                VisitObjection(
                    401, "this link is of an earlier start: open the one that 'controller dashboard' has printed last"
                ),
            )
        scope[TRUSTED] = True
        # A relative address, so that a proxy may have the dashboard under a path of its own.
        onward = {"location": "./"}
        if visit.is_from_elsewhere:
            # A browser sends the cookie along only with what this page itself begins (SameSite, RFC 6265bis, 5.2).
            answer: Response = PlainTextResponse("one moment", 200, {"refresh": "0; url=./"})
        else:
            answer = Response(status_code=303, headers=onward)
        answer.set_cookie(
            self._house.cookie_name, self._house.token.cookie, path="/", secure=self._house.is_secure, httponly=True,
            samesite="strict",
        )  # fmt: skip
        return answer


def refusal_to(scope: Scope, objection: VisitObjection) -> Response:
    """One sentence: as JSON for programs, as text for people."""
    headers = {}
    if objection.status == 405:
        headers["allow"] = ", ".join(READING)
    if objection.status == 401:
        headers["www-authenticate"] = 'Bearer realm="pydbt"'
    if scope["path"].startswith("/api/"):
        return JSONResponse({"problem": objection.words}, objection.status, headers)
    return PlainTextResponse(f"{objection.words}\n", objection.status, headers)


def _headers_of(scope: Scope) -> dict[str, str] | None:
    """Those that tell who asks; None when one of them comes twice, and two programs could take another one."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key not in _SINGLE:
            continue
        if key in found and key != "cookie":
            return None
        text = value.decode("latin-1")
        found[key] = f"{found[key]}; {text}" if key in found else text
    return found


def _token_in(scope: Scope) -> str | None:
    """None also where there is more than a link with a token has."""
    try:
        query: dict[str, list[Any]] = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
    except ValueError:
        return None
    return query["token"][0] if "token" in query else None
