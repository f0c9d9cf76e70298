"""Failures of TLS in words: what the library says of a certificate, and the alerts of the peer."""

from __future__ import annotations

import ssl

_VERIFY_WORDS = {
    9: "its certificate is not valid yet: compare both clocks",
    10: "its certificate has expired: issue it again with 'controller pki issue --replace'",
    18: "its certificate was issued by another authority",
    19: "its certificate was issued by another authority",
    20: "its certificate was issued by another authority",
    21: "its certificate was issued by another authority",
    # X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION: no other identity has an extension that OpenSSL does not know.
    34: "its identity may only read (it was issued with --read-only): give it one that was issued without",
}
_ALERT_WORDS = {
    "CERTIFICATE_EXPIRED": "it reports that this machine's certificate has expired, or its own copy of the authority's: "
    "'controller pki renew' makes all of them anew",
    "UNKNOWN_CA": "it reports that this machine's certificate was issued by another authority",
    "CERTIFICATE_REQUIRED": "it requires a certificate: give --identity",
    "BAD_CERTIFICATE": "it refuses this machine's certificate (from another authority, or not valid yet?)",
    "CERTIFICATE_UNKNOWN": "it refuses this machine's certificate",
    "HTTP_REQUEST": "it does not speak TLS: was it started without --identity?",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: was it started without --identity?",
    "UNEXPECTED_MESSAGE": "it does not speak TLS: was it started without --identity?",
    "PROTOCOL_VERSION": "it does not speak TLS 1.3",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
}


def explain_tls_error(error: OSError, patience_s: float) -> str:
    """The failure of TLS as a sentence for the operator; ``patience_s`` is how long it was waited for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_WORDS.get(error.verify_code, f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | BrokenPipeError):
        return "it closed the connection instead of speaking TLS: was it started without --identity?"
    if isinstance(error, TimeoutError):
        return f"it did not speak TLS within {patience_s:g} seconds"
    if isinstance(error, ssl.SSLError):
        for word, sentence in _ALERT_WORDS.items():
            if word in (error.reason or ""):
                return sentence
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return error.strerror or str(error)
