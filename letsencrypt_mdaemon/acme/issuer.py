"""The flow of RFC 8555: account, order, challenges, finalize, download."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from letsencrypt_mdaemon.acme import certificate as certificates
from letsencrypt_mdaemon.acme.authorization import authorize, renounce
from letsencrypt_mdaemon.acme.exchange import check_url
from letsencrypt_mdaemon.acme.order import Order
from letsencrypt_mdaemon.acme.problem import about_names, may_pass
from letsencrypt_mdaemon.acme.transport import AccountSession, Deadline
from letsencrypt_mdaemon.errors import AcmeError, after_issuance
from letsencrypt_mdaemon.pki.certificate import key_pem, load_key, new_key
from letsencrypt_mdaemon.state.ledger import CLOCK_ERROR
from letsencrypt_mdaemon.state.memory import OpenOrder
from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.acme.authorization import Present
    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.pki.certificate import Certificate, KeyType, PrivateKey
    from letsencrypt_mdaemon.state.memory import Window

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Issuer:
    """Obtains certificates from one CA.

    Args:
        present: Shows tokens to the CA.
        profiles: Preferred profiles of the CA, best first; may be empty.
        require_profile: Whether to accept only these.
        preferred_chain: Prefer the chain that leads to this issuer (its common name);
            "" = the CA's default.
        timeout: Seconds for the whole conversation about one certificate.
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
        """Ask when to renew; see `acme.certificate.suggested_window`."""
        return certificates.suggested_window(self.session, certificate)

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Revoke a certificate; see `acme.certificate.revoke`."""
        certificates.revoke(self.accounts, certificate, reason, key)

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None = None,
        key: PrivateKey | None = None,
    ) -> Certificate:
        """Obtain a certificate for the names.

        Args:
            replaces: The certificate's predecessor (RFC 9773, 5).
            key: The key to certify; None = a new one.

        Raises:
            ChallengeError: If the CA could not validate names, or refuses them.
            AcmeError: If the CA refuses otherwise, or its certificate is not usable.
            ConfigError: If the CA's terms of service have to be agreed to first.
        """
        return self._within(
            names, lambda deadline: self._obtain(names, replaces, key, deadline)
        )

    def _within(self, names: Sequence[str], act: Callable[[Deadline], _T]) -> _T:
        """Act until a deadline; say which names a refusal is about."""
        self._compare_clocks()
        deadline = Deadline(self.timeout, self._sleep, self._clock)
        self.session.deadline = deadline
        try:
            return act(deadline)
        except AcmeError as exc:
            # The names may be refused with the order, with the CSR, or in between.
            refusal = about_names(exc, names)
            if refusal is exc:
                raise
            raise refusal from exc
        finally:
            self.session.deadline = None

    def validate(self, names: Sequence[str]) -> None:
        """Let the CA validate every name afresh; no certificate is issued.

        Raises:
            ChallengeError: If the CA could not validate names, or refuses them.
            AcmeError: If it fails otherwise.
            ConfigError: If the CA's terms of service have to be agreed to first.
        """
        self._within(names, lambda deadline: self._validate(names, deadline))

    def _validate(self, names: Sequence[str], deadline: Deadline) -> None:
        session = AccountSession(self.session, self.accounts.signer(), deadline)
        key, most = new_key("p256"), len(names)  # nothing is certified
        order, _ = self._place(session, names, None, key)
        try:
            if renounce(order, most):
                # The CA would have taken former validations for new ones.
                order, _ = self._place(session, names, None, key)
            if order.status == "pending":
                authorize(order, self.present, most)
        finally:
            self.state.forget_order()
            with suppress(AcmeError):
                renounce(order, most)

    def _obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
        deadline: Deadline,
    ) -> Certificate:
        signer = self.accounts.signer()
        self.accounts.update_contact(signer)
        session = AccountSession(self.session, signer, deadline)
        resumed = self._resume(session, names, key)
        order, key = resumed or self._place(session, names, replaces, key)
        if order.status == "pending":
            authorize(order, self.present, len(names))
        if order.status == "ready":
            order.finalize(key, names)
        url = order.wait_for_certificate()
        self._count(names)
        try:
            chain = self.preferred_chain
            certificate = certificates.download(session, url, key, names, chain)
        except AcmeError as exc:
            if not may_pass(exc):
                # Resumed, the order would only lead to the same certificate.
                self.state.forget_order()
                exc.spent = True
            raise
        if added := [name for name in certificate.names if name not in names]:
            _log.info("The CA added %s to the certificate.", ", ".join(added))
        return certificate

    def _compare_clocks(self) -> None:
        """Refuse to order while this machine's clock is wrong by days.

        If it is ahead, each new certificate is due again at once, until the CA's limits
        are used up.
        """
        _ = self.session.directory  # any answer of the CA shows its time
        ours, theirs = self.session.clocks or (None, None)
        if ours is None or theirs is None or abs(ours - theirs) <= CLOCK_ERROR:
            return
        raise AcmeError(
            f"This machine's clock shows {ours.astimezone():%Y-%m-%d %H:%M}, but the "
            f"CA's shows {when(theirs, ours)}; no order was placed.",
            hint="Set the clock and run again.",
        )

    def _count(self, names: Sequence[str]) -> None:
        """Record that the CA has issued: for its limits, even an unusable one counts.

        This comes before the download, and happens once, though the order may be
        resumed.
        """
        with after_issuance():
            saved, now = self.state.order(), datetime.now(UTC)
            if saved is None or not saved.issued:
                self.state.save(self.state.ledger().settled(now).issued(names, now))
            if saved is not None:
                self.state.save(saved._replace(issued=True))

    # The order (RFC 8555, 7.4): an open one, or a new one

    def _resume(
        self, session: AccountSession, names: Sequence[str], key: PrivateKey | None
    ) -> tuple[Order, PrivateKey] | None:
        """Return the open order of an earlier run and its key, if it is still usable.

        Otherwise it is replaced when the next order is saved.
        """
        saved = self.state.order()
        if saved is None or saved.key_type != self.key_type:
            return None
        if set(saved.names) != set(names):
            return None
        order = Order(session, self.state, saved.url, saved.finalize)
        try:
            saved_key = load_key(saved.key_pem.encode())
            if key is not None and key.public_key() != saved_key.public_key():
                return None
            order.refresh()
        except (AcmeError, ValueError) as exc:
            _log.info("Could not resume the open order: %s", printable(exc))
            return None
        is_open = order.status in {"pending", "ready", "processing", "valid"}
        if not is_open or not self._has_profile(order):
            state = printable(order.status, 40)
            _log.info("Could not resume the open order: its status is %s", state)
            return None
        _log.info("Resuming the order %s", printable(order.url, 300))
        return order, saved_key

    def _place(
        self,
        session: AccountSession,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> tuple[Order, PrivateKey]:
        """Place a new order, and save it with its key."""
        request: dict[str, object] = {
            "identifiers": [{"type": "dns", "value": name} for name in names]
        }
        with ThreadPoolExecutor(1) as aside:
            # An RSA key takes time, and so does the CA.
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
        for url in filter(None, (order.url, order.finalize_url)):
            check_url(url, self.session.directory_url)
        if not self._has_profile(order):
            message = f"The CA accepted the order but not the profile {profile}."
            raise AcmeError(message, hint="Remove require-profile.")
        if not order.url or not order.finalize_url:
            message = f"{printable(reply.url, 300)} accepted the order but did not "
            message += "send its URL, or the URL to finalize it."
            raise AcmeError(message, hint="Report this to the CA.")
        pem, urls = key_pem(key).decode(), (order.url, order.finalize_url)
        self.state.save(OpenOrder(*urls, tuple(names), self.key_type, pem))
        shown = ", ".join(names)
        _log.info("Ordered a certificate for %s: %s", shown, printable(order.url))
        return order, key

    def _request_order(
        self, session: AccountSession, request: dict[str, object]
    ) -> Reply:
        """Request an order; if the CA objects, without what can be left out."""
        while True:
            try:
                return self._new_order(session, request)
            except AcmeError as exc:
                # CAs refuse `replaces` for many reasons (already replaced, another
                # account, unknown); it only spares limits.
                optional = "profile" if exc.kind == "invalidProfile" else "replaces"
                needed = optional == "profile" and self.require_profile
                limited = exc.kind in {"rateLimited", "badNonce"}
                if optional not in request or needed or limited:
                    raise
                left_out = "the certificate that it replaces"
                left_out = "the profile" if optional == "profile" else left_out
                text = "The CA refused the order; sending it again without %s: %s"
                _log.info(text, left_out, exc)
                del request[optional]

    def _new_order(self, session: AccountSession, request: dict[str, object]) -> Reply:
        """Send the request; register again if the CA does not know the account."""
        url = self.session.directory["newOrder"]
        try:
            return self.accounts.post(url, request, session.signer)
        except AcmeError as exc:
            if exc.kind != "accountDoesNotExist":
                raise
            # The CA was set up anew, as test CAs are at every start.
            message = "The CA no longer knows our account; registering it again: %s"
            _log.warning(message, exc)
        session.signer = self.accounts.register(session.signer.key)
        return session.post(url, request)

    def _profile(self) -> str:
        """Return the profile to ask for; "" leaves the choice to the CA.

        The directory lists the profiles (draft-aaron-acme-profiles, 3). A CA refuses a
        profile that it does not list, even one that it listed yesterday.

        Raises:
            AcmeError: If one is required, and the CA offers none of the preferred ones.
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
                hint = "Choose one of these, or remove require-profile."
                raise AcmeError(message, hint=hint)
            _log.warning("%s Using the CA's default.", message)
        return ""

    def _has_profile(self, order: Order) -> bool:
        """Whether the order has a required profile, as far as it shows one."""
        shown = order.document.get("profile")
        return not self.require_profile or shown in (None, *self.profiles)
