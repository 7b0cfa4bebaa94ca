"""Signed requests (RFC 8555, section 6.2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from acme import jws
from josepy.json_util import field as jose_field
from josepy.jwa import ES256, ES384, HS256, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA, JWKOct


class _Header(jws.Header):
    # A nonce is sent back as it came (RFC 8555, 6.5.1). Decoded and encoded again, as
    # acme does, it changes when its last character carries bits that nobody reads.
    nonce: str | None = jose_field("nonce", omitempty=True)  # type: ignore[assignment]


class _Signature(jws.Signature):
    __slots__ = jws.Signature._orig_slots  # noqa: SLF001 - how josepy is extended
    header_cls = _Header
    header: _Header = jose_field(
        "header", omitempty=True, default=_Header(), decoder=_Header.from_json
    )


class _Jws(jws.JWS):
    __slots__ = jws.JWS._orig_slots  # noqa: SLF001 - how josepy is extended
    signature_cls = _Signature


@dataclass
class Signer:
    """The key that signs requests, and the account's URL (`kid`) once it has one."""

    key: JWK = field(repr=False)
    kid: str = ""


def sign(url: str, body: bytes, signer: Signer, nonce: str = "") -> str:
    """Return a flattened JWS as JSON (RFC 8555, 6.2).

    Args:
        nonce: "" for a JWS inside another one: 7.3.4 and 7.3.5 forbid a nonce there.
    """
    signed = _Jws.sign(
        body,
        key=signer.key,
        alg=_algorithm(signer.key),
        nonce=nonce or None,  # type: ignore[arg-type] # see _Header
        url=url,
        kid=signer.kid or None,
    )
    return str(signed.json_dumps())


def _algorithm(key: JWK) -> JWASignature:
    if isinstance(key, JWKOct):
        return HS256  # 7.3.4
    # RFC 8555, 6.2: every CA accepts ES256; RFC 7518, 3.4 ties the others to the curve.
    if isinstance(key, JWKRSA):
        return RS256
    if isinstance(key, JWKEC) and key.key.curve.name == "secp384r1":
        return ES384
    return ES256
