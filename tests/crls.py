"""CRLs for tests, and a web server that has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.pki.certificate import PrivateKey
from letsencrypt_mdaemon.sandbox import mdaemon


def crl(  # noqa: PLR0913 - what a CRL is made of
    issuer: x509.Certificate,
    key: PrivateKey,
    serials: Iterable[int],
    *,
    at: datetime,
    until: datetime | None = None,
    reason: x509.ReasonFlags | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
) -> bytes:
    """Return a CRL that lists serial numbers as revoked a day before it was made.

    Args:
        until: When the next one is promised; None = a week later.
        reason: Given for each of them; None = none.
        extensions: All critical.
    """
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(at).next_update(until or at + timedelta(days=7))
    revoked = at - timedelta(days=1)
    for serial in serials:
        row = x509.RevokedCertificateBuilder().serial_number(serial)
        row = row.revocation_date(revoked)
        if reason is not None:
            row = row.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(row.build())
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@contextmanager
def serving(answer: Callable[[str], bytes], status: int = 200) -> Iterator[str]:
    """Answer every request with what a CRL's URL brings; yield that URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer(url))

        def log_message(self, *_: object) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        mdaemon.thread(partial(server.serve_forever, 0.005), server.shutdown),
    ):
        url = f"http://127.0.0.1:{server.server_port}/1.crl"
        yield url
