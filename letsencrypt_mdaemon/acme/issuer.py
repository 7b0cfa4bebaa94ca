"""The story of RFC 8555: account, order, challenges, finalize, download."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from letsencrypt_mdaemon.acme.authorization import (
    FIRST_LOOK,
    GRACE,
    IN_FLIGHT,
    Authorization,
    Solver,
    is_answerable,
)
from letsencrypt_mdaemon.acme.certificate import (
    ALTERNATES,
    ari_id,
    ari_moment,
    b64,
    jwk_of,
    leads_to,
)
from letsencrypt_mdaemon.acme.jws import Signer
from letsencrypt_mdaemon.acme.order import Order, may_pass
from letsencrypt_mdaemon.acme.problem import HINTS, describe, kind_of
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    KeyType,
    PrivateKey,
    key_pem,
    load_key,
    new_key,
    signing_request,
)
from letsencrypt_mdaemon.pki.checks import check
from letsencrypt_mdaemon.state.advice import Window
from letsencrypt_mdaemon.state.ledger import CLOCK_ERROR
from letsencrypt_mdaemon.state.memory import OpenOrder
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.acme.http import Reply


_log = logging.getLogger(__name__)


_T = TypeVar("_T")


_U = TypeVar("_U")


class Issuer:
    """Obtains certificates from one CA.

    Args:
        profiles: Those of the CA that are preferred, the best first; may be empty.
        require_profile: Whether it has to be one of these.
        preferred_chain: Of several chains the one that leads to this authority, by
            the common name of an issuer; "" = the CA's first.
        patience: Seconds that all waiting for the CA may take, for one certificate.
        sleep: Waits for some seconds.
        clock: Seconds since any moment.
    """

    def __init__(  # noqa: PLR0913 - what an order needs
        self,
        accounts: Accounts,
        solver: Solver,
        *,
        key_type: KeyType,
        profiles: Sequence[str] = (),
        require_profile: bool = False,
        preferred_chain: str = "",
        patience: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accounts = accounts
        self.session = accounts.session
        self.state = accounts.state
        self.solver = solver
        self.key_type = key_type
        self.profiles = profiles
        self.require_profile = require_profile
        self.preferred_chain = preferred_chain
        self.patience = patience
        self._sleep = sleep
        self._clock = clock
        self._deadline = 0.0
        self._signer: Signer

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Ask when the CA suggests to renew a certificate (RFC 9773, 4).

        Returns:
            The window, None if the CA has no advice or a senseless one; and the seconds
            until it may be asked again (4.3), from a minute to a day.
        """
        url = self.session.directory.get("renewalInfo")
        identifier = ari_id(certificate)
        if not isinstance(url, str) or identifier is None:
            return None, 86400.0
        try:
            reply = self.session.get(f"{url.rstrip('/')}/{identifier}")
            advice = reply.document()
            window = advice["suggestedWindow"]
            start, end = ari_moment(window["start"]), ari_moment(window["end"])
        except (AcmeError, KeyError, TypeError, ValueError, OverflowError) as exc:
            _log.info(
                "The CA gave no advice on when to renew (ARI): %s", printable(exc)
            )
            return None, 6 * 3600.0
        wait = 6 * 3600.0 if reply.retry_after is None else reply.retry_after
        wait = min(max(wait, 60.0), 86400.0)
        if end <= start:
            _log.info(
                "The CA suggests to renew in a window that ends as it starts (ARI)"
            )
            return None, wait
        explanation = printable(advice.get("explanationURL") or "", 300)
        return Window(start=start, end=end, explanation_url=explanation), wait

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
        self._deadline = self._clock() + self.patience
        self._compare_clocks()
        self._signer = self.accounts.signer()
        order, key = self._resume(names, key) or self._open(names, replaces, key)
        if order.status == "pending":
            self._authorize(order)
        if order.status == "ready":
            self._finalize(order, key, names)
        url = self._wait_for_certificate(order)
        self._count(names)
        try:
            certificate = self._download(url, key)
            check(certificate, names, now=self._time())
        except AcmeError as exc:
            if not may_pass(exc):
                # Resumed, the order would only lead to the same certificate.
                self.state.forget_order()
                exc.spent = True
            raise
        return certificate

    def _count(self, names: Sequence[str]) -> None:
        """Write down that the CA has issued: it counts even if it is of no use to us.

        Before the certificate can get lost, and once: the order may be resumed.
        """
        left, now = self.state.order(), datetime.now(UTC)
        if left is None or not left.issued:
            self.state.save_ledger(self.state.ledger().settled(now).issued(names, now))
        if left is not None:
            self.state.save_order(replace(left, issued=True))

    # Order (7.4)

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

    def _resume(
        self, names: Sequence[str], wanted: PrivateKey | None
    ) -> tuple[Order, PrivateKey] | None:
        """Return the order that an earlier run left open, if it still serves.

        One that does not is forgotten when another takes its place.
        """
        left = self.state.order()
        if left is None or left.key_type != self.key_type:
            return None
        if set(left.names) != set(names):
            return None
        try:
            key = load_key(left.key_pem.encode())
            if wanted is not None and wanted.public_key() != key.public_key():
                return None
            order = Order(left.url, {}, left.finalize)
            order.update(self._post(left.url))
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
            predecessor = ari_id(replaces) if replaces is not None else None
            if predecessor and "renewalInfo" in self.session.directory:
                request["replaces"] = predecessor
            if profile := self._profile():
                request["profile"] = profile
            reply = self._request_order(request)
        key = making.result()
        order = Order(reply.location, {})
        order.update(reply)
        if not self._has_profile(order):
            message = f"The CA took the order and not the profile {profile}."
            raise AcmeError(message, hint="Take require-profile away.")
        if not order.url or not order.finalize:
            message = (
                f"{printable(reply.url, 300)} took the order but did not say where "
            )
            message += "it is, or where to finalize it."
            raise AcmeError(message, hint="Tell the CA's operators.")
        pem = key_pem(key).decode()
        left = OpenOrder(order.url, order.finalize, tuple(names), self.key_type, pem)
        self.state.save_order(left)
        _log.info(
            "Ordered a certificate for %s: %s", ", ".join(names), printable(order.url)
        )
        return order, key

    def _request_order(self, request: dict[str, object]) -> Reply:
        """Ask for an order; if the CA takes exception, without what can be spared."""
        while True:
            try:
                return self._new_order(request)
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

    def _new_order(self, request: Mapping[str, object]) -> Reply:
        url = self.session.directory["newOrder"]
        try:
            return self._post(url, request)
        except AcmeError as exc:
            kind = kind_of(exc.problem)
            if kind == "unauthorized":  # Most often the account was deactivated.
                file = self.state.folder / "account.json"
                exc.hint = f"Remove {file} to register a new account, and run again."
            if kind != "accountDoesNotExist":
                raise
            # The CA was set up anew, as test CAs are at every start.
            _log.warning("The CA does not know our account any more: %s", exc)
        self._signer = self.accounts.register(self._signer.key)
        return self._post(url, request)

    # Challenges (7.5, 8.3)

    def _authorize(self, order: Order) -> None:
        """Prove every name that the CA has not seen proven yet."""
        urls = order.document.get("authorizations")
        urls = urls if isinstance(urls, list) else []
        urls = [url for url in urls if isinstance(url, str)]
        found = self._each(self._authorization, urls)
        todo = [item for item in found if item.status == "pending"]
        if others := [x.name for x in todo if not is_answerable(x.challenge)]:
            self.state.forget_order()
            raise ChallengeError(
                f"The CA offers no http-01 challenge for {', '.join(others)}.",
                hint="No other is available: leave them out, or choose another CA.",
                names=dict.fromkeys(others, "no http-01 challenge is offered"),
            )
        # A pending one may still carry the error of an earlier try.
        decided = (item for item in found if item.status != "pending")
        if failed := {item.name: said for item in decided if (said := item.failure())}:
            self._fail(failed, {})
        thumbprint = b64(self._signer.key.thumbprint())
        tokens = {item.challenge["token"]: item for item in todo}
        texts = {token: f"{token}.{thumbprint}" for token in tokens}
        with self.solver.present(texts) if texts else nullcontext():
            started = self._clock()
            names = ", ".join(item.name for item in todo)
            _log.info("The CA is asked to validate %s", names or "nothing new")
            refused = self._each(self._answer, todo)
            failed = {
                item.name: said
                for item, said in zip(todo, refused, strict=True)
                if said is not None
            }
            self._settle(order, todo, failed)
            _log.info("Validated in %.1f s", self._clock() - started)

    def _authorization(self, url: str) -> Authorization:
        return Authorization(url, self._post(url).document())

    def _answer(self, item: Authorization) -> str | None:
        """Tell the CA to look; return why it would not, if it says so at once."""
        if item.challenge.get("status", "pending") != "pending":
            return None
        try:
            self._post(item.challenge["url"], {})
        except AcmeError as exc:
            if not exc.problem or may_pass(exc):
                raise
            # The authorization may have been decided already; it knows better.
            item.document = self._authorization(item.url).document
            if item.status == "valid":
                return None
            return item.failure() or describe(exc.problem)
        return None

    def _settle(
        self,
        order: Order,
        todo: Sequence[Authorization],
        failed: dict[str, str],
    ) -> None:
        """Wait until the CA has judged every name.

        The order alone is asked first; the authorizations only when it takes longer,
        as not every CA lets an order follow an authorization that failed.
        """
        started = self._clock()
        until = self._deadline
        waiting = [item for item in todo if item.name not in failed]
        tokens = {item.name: str(item.challenge.get("token")) for item in todo}
        pause = FIRST_LOOK
        while True:
            self._pause(pause, order.retry_after)
            pause = min(pause * 2, 5.0)
            order.update(self._post(order.url))
            if order.status in {"ready", "processing", "valid"}:
                return
            now = self._clock()
            if order.status == "invalid" or failed or now - started > 1:
                waiting = self._sift(waiting, failed)
            if failed:
                until = min(until, now + GRACE)
            elif order.status == "invalid":
                self._fail_order(order)
            if now > until or (failed and not waiting):
                if now > self._deadline:
                    late = f"the CA had not looked at it after {self.patience:.0f} s"
                    failed |= {item.name: late for item in waiting}
                if failed:
                    self._fail(failed, tokens)
                self._give_up(order, "had proof of every name and did not go on")
            _log.info(
                "waiting for the CA to validate %s (%.0f s)",
                ", ".join(item.name for item in waiting) or "the order",
                now - started,
                extra={"progress": True},
            )

    def _sift(
        self, waiting: Sequence[Authorization], failed: dict[str, str]
    ) -> list[Authorization]:
        """Ask how each name fares; add those that failed, return those that may yet."""
        fresh = self._each(lambda item: self._authorization(item.url), waiting)
        failed |= {item.name: said for item in fresh if (said := item.failure())}
        undecided = [item for item in fresh if item.status == "pending"]
        return [item for item in undecided if item.name not in failed]

    def _fail(self, failed: Mapping[str, str], tokens: Mapping[str, str]) -> NoReturn:
        self.state.forget_order()
        lines = []
        for name, said in failed.items():
            url = f"http://{name}/.well-known/acme-challenge/{tokens.get(name)}"
            where = f"{printable(url, 400)}: " if name in tokens else ""
            lines.append(f"\n  - {name}: {where}{said}")
        count = "1 name" if len(failed) == 1 else f"{len(failed)} names"
        raise ChallengeError(
            f"The CA could not validate {count}; nothing was changed:{''.join(lines)}",
            hint="Each name must lead, on port 80 and from everywhere, to the web "
            "server that serves the webroot; or leave the name out.",
            names=dict(failed),
        )

    def _fail_order(self, order: Order) -> NoReturn:
        self.state.forget_order()
        error = order.document.get("error")
        problem = error if isinstance(error, dict) else {}
        said = describe(problem) or "no reason given"
        hint = HINTS.get(kind_of(problem), "Run again; if it stays so, ask the CA.")
        message = f"The CA made the order invalid: {said}."
        raise AcmeError(message, hint=hint, problem=problem)

    # Issuance (7.4)

    def _finalize(self, order: Order, key: PrivateKey, names: Sequence[str]) -> None:
        request = {"csr": b64(signing_request(key, names))}
        pause = 0.1
        while True:
            try:
                order.update(self._post(order.finalize, request))
            except AcmeError as exc:
                # Perhaps it was taken and only the answer was lost: the order tells.
                order.update(self._post(order.url))
                if order.status in {"processing", "valid"}:
                    return
                if order.status == "invalid":
                    self._fail_order(order)
                not_ready = kind_of(exc.problem) == "orderNotReady"
                if not not_ready or self._clock() > self._deadline:
                    if not may_pass(exc):
                        self.state.forget_order()
                    raise
                self._pause(pause, exc.retry_after)
                pause = min(pause * 1.6, 5.0)
            else:
                return

    def _wait_for_certificate(self, order: Order) -> str:
        """Return the certificate's URL once the order is valid."""
        started = self._clock()
        pause = FIRST_LOOK
        while True:
            url = order.document.get("certificate")
            if order.status == "valid" and isinstance(url, str):
                return url
            if order.status == "invalid":
                self._fail_order(order)
            if self._clock() > self._deadline:
                self._give_up(order, "had not issued")
            _log.info(
                "waiting for the CA to issue (%.0f s)",
                self._clock() - started,
                extra={"progress": True},
            )
            self._pause(pause, order.retry_after)
            pause = min(pause * 2, 5.0)
            order.update(self._post(order.url))

    def _give_up(self, order: Order, what: str) -> NoReturn:
        message = f"The CA {what} after {self.patience:.0f} s: the order "
        message += f"{printable(order.url, 300)} is {printable(order.status, 40)!r}."
        raise AcmeError(message, hint="The next run resumes this very order.")

    def _download(self, url: str, key: PrivateKey) -> Certificate:
        try:
            reply = self._fetch(url)
        except AcmeError as exc:
            if may_pass(exc):
                raise
            # It may reach all of a CA's servers a moment later.
            self._pause(2.0, exc.retry_after)
            reply = self._fetch(url)
        try:
            chain = tuple(x509.load_pem_x509_certificates(reply.body))
        except ValueError as exc:
            message = f"{printable(url, 300)} holds no certificate chain in PEM: "
            message += f"{printable(exc, 200)}."
            raise AcmeError(message, hint="Tell the CA's operators.") from exc
        return self._preferred(Certificate(chain, key), reply)

    def _fetch(self, url: str) -> Reply:
        return self._post(url, accept="application/pem-certificate-chain")

    def _preferred(self, first: Certificate, reply: Reply) -> Certificate:
        """Return it with the chain preferred, among the alternates too (7.4.2)."""
        wanted = self.preferred_chain
        if not wanted or leads_to(first.chain, wanted):
            return first
        for url in reply.alternates[:ALTERNATES]:
            try:
                chain = tuple(x509.load_pem_x509_certificates(self._fetch(url).body))
                other = Certificate(chain, first.key)
                if other.leaf == first.leaf and leads_to(chain, wanted):
                    check(other, first.names, now=self._time())
                    return other
            except (AcmeError, ValueError) as exc:
                _log.info("An alternate chain cannot be had: %s", printable(exc))
        _log.warning(
            "The CA has no chain that leads to %s (preferred-chain); its own is used.",
            wanted,
        )
        return first

    # Revocation (7.6)

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Revoke a certificate; one that is revoked already is fine.

        By the account; if there is none, or if the CA says that it is another's, by its
        own key.

        Args:
            reason: RFC 5280, 5.3.1.
            key: The certificate's key, if it is at hand.

        Raises:
            AcmeError: If the CA refuses.
            ConfigError: If it offers no revocation.
        """
        url = self.session.directory.get("revokeCert")
        if not isinstance(url, str):
            message = f"{printable(self.session.directory_url, 300)} revokes nothing."
            raise ConfigError(message, hint="Ask the CA's operators.")
        der = certificate.public_bytes(serialization.Encoding.DER)
        request = {"certificate": b64(der), "reason": reason}
        account = self.state.account()
        own = Signer(jwk_of(key)) if key is not None else None
        # No account is made for this if there is another way.
        by_account = own is None or (account is not None and bool(account.url))
        try:
            try:
                by = self.accounts.signer() if own is None or by_account else own
                self.session.post(url, request, by)
            except AcmeError as exc:
                strange = {"unauthorized", "accountDoesNotExist"}
                if own is None or not by_account or kind_of(exc.problem) not in strange:
                    raise
                _log.info("Revoking by the certificate's own key: %s", exc)
                self.session.post(url, request, own)
        except AcmeError as exc:
            if kind_of(exc.problem) != "alreadyRevoked":
                raise
            _log.info("It is revoked already: %s", exc)

    # Small parts

    def _time(self) -> datetime:
        """Return the time, by our clock or by the CA's, whichever is ahead.

        What it has just issued may not be valid yet by ours, and is by others'.
        """
        ours = datetime.now(UTC)
        return max(ours, *self.session.clocks or (ours,))

    def _post(self, url: str, payload: object = None, *, accept: str = "") -> Reply:
        return self.session.post(url, payload, self._signer, accept=accept)

    def _pause(self, seconds: float, asked: float | None) -> None:
        left = max(self._deadline - self._clock(), 0.05)
        self._sleep(min(max(seconds, min(asked or 0.0, 30.0)), left))

    def _each(self, act: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
        """Do the same for every item, a few at once; return the results in order."""
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(act, items))
