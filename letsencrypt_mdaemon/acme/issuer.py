"""The story of RFC 8555: account, order, challenges, finalize, download."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.acme import certificate as certificates
from letsencrypt_mdaemon.acme.authorization import authorize
from letsencrypt_mdaemon.acme.order import Order
from letsencrypt_mdaemon.acme.problem import kind_of, may_pass
from letsencrypt_mdaemon.acme.transport import AccountSession, Deadline
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import key_pem, load_key, new_key
from letsencrypt_mdaemon.pki.checks import check
from letsencrypt_mdaemon.state.ledger import CLOCK_ERROR
from letsencrypt_mdaemon.state.memory import OpenOrder
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.acme.authorization import Present
    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.pki.certificate import Certificate, KeyType, PrivateKey
    from letsencrypt_mdaemon.state.advice import Window

_log = logging.getLogger(__name__)


class Issuer:
    """Obtains certificates from one CA.

    Args:
        present: Shows tokens to the CA.
        profiles: Those of the CA that are preferred, the best first; may be empty.
        require_profile: Whether it has to be one of these.
        preferred_chain: Of several chains the one that leads to this authority, by
            the common name of an issuer; "" = the CA's first.
        timeout: Seconds that all waiting for the CA may take, for one certificate.
        sleep: Waits for some seconds.
        clock: Seconds since any moment.
    """

    def __init__(  # noqa: PLR0913 - what an order needs
        self,
        accounts: Accounts,
        present: Present,
        *,
        key_type: KeyType,
        profiles: Sequence[str] = (),
        require_profile: bool = False,
        preferred_chain: str = "",
        timeout: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accounts = accounts
        self.session = accounts.session
        self.state = accounts.state
        self.present = present
        self.key_type = key_type
        self.profiles = profiles
        self.require_profile = require_profile
        self.preferred_chain = preferred_chain
        self.timeout = timeout
        self._sleep = sleep
        self._clock = clock

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return the CA's advice; see `certificate.suggested_window`."""
        return certificates.suggested_window(self.session, certificate)

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Revoke a certificate; see `certificate.revoke`."""
        certificates.revoke(self.accounts, certificate, reason, key)

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None = None,
        key: PrivateKey | None = None,
    ) -> Certificate:
        """Obtain a certificate for the names.

        Args:
            replaces: The certificate it succeeds (RFC 9773, 5); only a recommendation.
            key: The key it is for; None = a new one.

        Raises:
            ChallengeError: If names could not be validated.
            AcmeError: If the CA refuses otherwise, or what it returns is not usable.
            ConfigError: If its terms of service have to be agreed to first.
        """
        deadline = Deadline(self.timeout, self._sleep, self._clock)
        self._compare_clocks()
        session = AccountSession(self.session, self.accounts.signer(), deadline)
        resumed = self._resume(session, names, key)
        order, key = resumed or self._open(session, names, replaces, key)
        if order.status == "pending":
            authorize(order, self.present)
        if order.status == "ready":
            order.finalize(key, names)
        url = order.wait_for_certificate()
        self._count(names)
        try:
            chain = self.preferred_chain
            certificate = certificates.download(session, url, key, chain)
            check(certificate, names, now=self.session.now())
        except AcmeError as exc:
            if not may_pass(exc):
                # Resumed, the order would only lead to the same certificate.
                self.state.forget_order()
                exc.spent = True
            raise
        return certificate

    def _compare_clocks(self) -> None:
        """Refuse to order while this machine's clock is wrong by days.

        By one that is ahead each new certificate is due again at once, until the CA's
        limits are used up.
        """
        _ = self.session.directory  # else nothing may have been asked yet
        ours, theirs = self.session.clocks or (None, None)
        if ours is None or theirs is None or abs(ours - theirs) <= CLOCK_ERROR:
            return
        raise AcmeError(
            f"This machine's clock says {ours:%Y-%m-%d %H:%M} UTC, the CA's "
            f"{theirs:%Y-%m-%d %H:%M}: nothing is ordered.",
            hint="Set the clock and run again.",
        )

    def _count(self, names: Sequence[str]) -> None:
        """Write down that the CA has issued: it counts even if it is of no use to us.

        Before the certificate can get lost, and once: the order may be resumed.
        """
        left, now = self.state.order(), datetime.now(UTC)
        if left is None or not left.issued:
            self.state.save_ledger(self.state.ledger().settled(now).issued(names, now))
        if left is not None:
            self.state.save_order(replace(left, issued=True))

    # The order (RFC 8555, 7.4): one left open, or a new one

    def _resume(
        self,
        session: AccountSession,
        names: Sequence[str],
        wanted: PrivateKey | None,
    ) -> tuple[Order, PrivateKey] | None:
        """Return the order that an earlier run left open, if it still serves.

        One that does not is forgotten when another takes its place.
        """
        left = self.state.order()
        if left is None or left.key_type != self.key_type:
            return None
        if set(left.names) != set(names):
            return None
        order = Order(session, self.state, left.url, left.finalize)
        try:
            key = load_key(left.key_pem.encode())
            if wanted is not None and wanted.public_key() != key.public_key():
                return None
            order.refresh()
        except (AcmeError, ValueError) as exc:
            _log.info("The order left open cannot be resumed: %s", printable(exc))
            return None
        open_ = order.status in {"pending", "ready", "processing", "valid"}
        if not open_ or not self._has_profile(order):
            _log.info("The order left open is %s", printable(order.status, 40))
            return None
        _log.info("Resuming the order %s", printable(left.url, 300))
        return order, key

    def _open(
        self,
        session: AccountSession,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> tuple[Order, PrivateKey]:
        request: dict[str, object] = {
            "identifiers": [{"type": "dns", "value": name} for name in names]
        }
        with ThreadPoolExecutor(1) as aside:
            # An RSA key takes its time; the CA does, too.
            making = aside.submit(lambda: key or new_key(self.key_type))
            predecessor = certificates.ari_id(replaces) if replaces else None
            if predecessor and "renewalInfo" in self.session.directory:
                request["replaces"] = predecessor
            if profile := self._profile():
                request["profile"] = profile
            reply = self._request_order(session, request)
        key = making.result()
        order = Order(session, self.state, reply.location)
        order.update(reply)
        if not self._has_profile(order):
            message = f"The CA took the order and not the profile {profile}."
            raise AcmeError(message, hint="Take require-profile away.")
        if not order.url or not order.finalize_url:
            message = (
                f"{printable(reply.url, 300)} took the order but did not say where "
            )
            message += "it is, or where to finalize it."
            raise AcmeError(message, hint="Tell the CA's operators.")
        pem = key_pem(key).decode()
        names = tuple(names)
        left = OpenOrder(order.url, order.finalize_url, names, self.key_type, pem)
        self.state.save_order(left)
        _log.info(
            "Ordered a certificate for %s: %s", ", ".join(names), printable(order.url)
        )
        return order, key

    def _request_order(
        self, session: AccountSession, request: dict[str, object]
    ) -> Reply:
        """Ask for an order; if the CA takes exception, without what can be spared."""
        while True:
            try:
                return self._new_order(session, request)
            except AcmeError as exc:
                kind = kind_of(exc.problem)
                # CAs refuse `replaces` for many reasons (replaced already, another
                # account, unknown); it only spares limits.
                spare = "profile" if kind == "invalidProfile" else "replaces"
                needed = spare == "profile" and self.require_profile
                limited = kind in {"rateLimited", "badNonce"}
                if spare not in request or needed or limited:
                    raise
                _log.info("The order is sent again without `%s`: %s", spare, exc)
                del request[spare]

    def _new_order(self, session: AccountSession, request: dict[str, object]) -> Reply:
        url = self.session.directory["newOrder"]
        try:
            return session.post(url, request)
        except AcmeError as exc:
            kind = kind_of(exc.problem)
            if kind == "unauthorized":  # Most often the account was deactivated.
                file = self.state.folder / "account.json"
                exc.hint = f"Remove {file} to register a new account, and run again."
            if kind != "accountDoesNotExist":
                raise
            # The CA was set up anew, as test CAs are at every start.
            _log.warning("The CA does not know our account any more: %s", exc)
        session.signer = self.accounts.register(session.signer.key)
        return session.post(url, request)

    def _profile(self) -> str:
        """Return the profile to ask for; "" leaves the choice to the CA.

        The directory lists them (draft-aaron-acme-profiles, 3); a name that is not in
        it is refused, also one that was there yesterday.

        Raises:
            AcmeError: If one is required, and the CA offers none of those wanted.
        """
        offered = self.session.meta.get("profiles")
        offered = list(offered) if isinstance(offered, dict) else []
        for profile in self.profiles:
            if profile in offered:
                return profile
        if self.profiles:
            shown = printable(", ".join(offered), 300) or "none"
            message = f"The CA offers no profile {' or '.join(self.profiles)}; it "
            message += f"offers {shown}."
            if self.require_profile:
                hint = "Name one of these, or take require-profile away."
                raise AcmeError(message, hint=hint)
            _log.warning("%s It chooses.", message)
        return ""

    def _has_profile(self, order: Order) -> bool:
        """Whether the profile is one that is required, as far as the order tells."""
        shown = order.document.get("profile")
        return not self.require_profile or shown in (None, *self.profiles)
