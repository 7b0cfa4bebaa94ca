"""The parts of a run, made from a `Config`."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app.build import (
    certificate_store,
    external,
    server_endpoints,
    server_name,
    state_of,
    web_site,
    windows_service,
)
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import discovery, folders, host_name
from letsencrypt_mdaemon.mdaemon.bindings import Bindings
from letsencrypt_mdaemon.mdaemon.semaphores import Semaphores
from letsencrypt_mdaemon.mdaemon.server import MailServer
from letsencrypt_mdaemon.pki.certificate import OURS, thumbprint
from letsencrypt_mdaemon.pki.chain import Roots
from letsencrypt_mdaemon.renewal import lifetime
from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
from letsencrypt_mdaemon.state.memory import RUNS, Memory, Target, utc
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import endpoints, observe, verdict
from letsencrypt_mdaemon.verify.observe import Ports
from letsencrypt_mdaemon.verify.verdict import Verification

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.acme.issuer import Issuer
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Store
    from letsencrypt_mdaemon.state.folder import CaState, State
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Installation:
    """One MDaemon and what this program keeps beside it.

    Args:
        known: Certificates of the store and those that ports serve, by thumbprint.
        endpoints: Its ports that speak TLS.
        observed: What they serve, as far as they were looked at.
        greeted: What the mail server greets with, if it does.
        scheduled: Whether this is most likely a job of the schedule.
    """

    config: Config
    root: Path
    state: State
    memory: Memory
    store: Store
    known: Mapping[str, x509.Certificate]
    endpoints: Sequence[Endpoint]
    observed: Mapping[Endpoint, Served]
    greeted: host_name.Source | None
    scheduled: bool = False

    @property
    def ca(self) -> CaState:
        """What is remembered at the CA."""
        return self.state.ca(self.config.ca, staging=self.config.staging)

    @property
    def ours(self) -> set[str]:
        """The thumbprints of the certificates that this program obtained."""
        named = {
            thumbprint(leaf)
            for leaf, name in self.store.certificates()
            if name.startswith(f"{OURS} ")
        }
        return named | {item.thumbprint for item in self.memory.issued}

    @property
    def served(self) -> dict[str, str]:
        """Which port serves which certificate; of our addresses that agree, one."""
        found: dict[tuple[str, ...], str] = {}
        for endpoint, served in self.observed.items():
            if served.leaf:
                where = endpoint.host if self.config.endpoint else ""
                port = endpoint.scheme, str(endpoint.port), where
                found.setdefault((*port, served.thumbprint), str(endpoint))
        return {endpoint: digest for (*_, digest), endpoint in found.items()}

    def look(self, names: Sequence[str], *, public: bool = False) -> Installation:
        """Return it with what its ports serve now.

        Args:
            names: What the ports are asked for (SNI).
            public: Look at them through DNS as well.
        """
        asked = [*self.endpoints]
        if public:
            asked += endpoints.public(self.endpoints, names)
        observed = observe.observe(asked, names)
        known = dict(self.known)
        for served in observed.values():
            if served.leaf:
                known.setdefault(served.thumbprint, served.leaf)
        return replace(self, known=known, observed=observed)

    def verify(self, *, now: datetime) -> Verification:
        """Look at the ports, and compare them with what the server's files name.

        Raises:
            ConfigError: If the settings do not allow it.
        """
        config = self.config
        try:
            roots = Roots(config.ca_bundle, now=now)
        except ValueError as exc:
            hint = "Name a PEM file of roots."
            raise ConfigError(f"ca-bundle: {exc}.", hint=hint) from exc
        try:
            names = self.names()
        except ConfigError as exc:
            _log.warning("%s The ports are asked without a name.", exc.message)
            names = ()
        seen = self.look(names, public=config.public)
        right = seen.named(names)
        ports = verdict.judge(
            seen.observed,
            expected=None if right is None else {thumbprint(leaf) for leaf in right},
            given=self.endpoints if config.endpoint else (),
            roots=roots,
            issued=self.issued_chain,
            require_trusted=config.require_trusted,
        )
        return Verification(
            names=names,
            right=right,
            ports=tuple(ports),
            now=now,
            require_trusted=config.require_trusted,
        )

    def named(self, names: Collection[str]) -> tuple[x509.Certificate, ...] | None:
        """Return the known certificates that the server's files name.

        None if it is not known where they name any.
        """
        try:
            found = self.targets()
        except ConfigError:
            if self.config.targets:
                raise
            return None
        named = self.server(found).named(names).values()
        return tuple(leaf for leaf in dict.fromkeys(named) if leaf is not None)

    def issued_chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the chain that the CA issued, by its leaf; empty if it is not kept."""
        pending = self.ca.pending()
        if pending is not None and pending.thumbprint == wanted:
            return pending.chain
        return self.store.chain(wanted)

    def warn_of_what_is_missing(self) -> None:
        """Say what was asked for and is not available here."""
        if self.config.iis_site_name and sys.platform != "win32":
            _log.warning(
                "IIS is only on Windows: there are no bindings of the site %r to "
                "change here.",
                printable(self.config.iis_site_name),
            )

    def discover(self) -> list[discovery.Found]:
        """Return every place in the server's files that names a known certificate."""
        return discovery.discover(
            self.root, self.known.values(), skip=self._own_folders()
        )

    def targets(self) -> tuple[Target, ...]:
        """Return the targets: those of the config file, else those learned.

        Raises:
            ConfigError: If there are none.
        """
        if self.config.targets:
            given = {
                item.name: Target(
                    item.file.replace("\\", "/"), item.section, item.key, item.form
                )
                for item in self.config.targets
            }
            return discovery.explicit(self.root, given)
        found = self.discover()
        # A value that named a certificate once still counts, whatever it names now.
        remembered = discovery.still_there(self.root, self.memory.targets)
        learned = discovery.merged(discovery.learned(found), remembered)
        if learned:
            return learned
        raise ConfigError(
            f"It is not known where the server keeps its choice of certificate: no INI "
            f"file below {self.root} names one of the {len(self.known)} certificates "
            "that are in the store or served by a port.",
            hint="Choose any certificate of the store once in MDaemon's SSL & TLS "
            "dialog (mail, Webmail, Remote Administration) and run again; or name the "
            "INI values in [target …] sections of the config file.",
        )

    def note_run(self, now: datetime) -> None:
        """Remember when a scheduled run began: this tells how often there is one."""
        runs = [run for run in self.memory.runs if run <= now]
        if not runs or now - runs[-1] >= timedelta(hours=1):
            runs = [*runs, utc(now)][-RUNS:]
        memory = replace(self.state.load(), runs=tuple(runs), exit_code=None)
        self.state.save(memory)

    def learn(self) -> tuple[Target, ...]:
        """Return the targets, and remember those that were learned."""
        found = self.targets()
        if self.config.targets or self.config.dry_run or found == self.memory.targets:
            return found
        for target in found:
            _log.info("The certificate is named in %s as %s", target, target.form)
        self.state.save(replace(self.state.load(), targets=found))
        return found

    def names(self) -> tuple[str, ...]:
        """Return the certificate's names, the server's own first.

        Raises:
            ConfigError: If that one is not clear, or if there are too many.
        """
        names = self.wanted_names()
        most = self.config.most_names
        if most is not None and len(names) > most:
            message = f"{len(names)} names are more than the CA's {most}."
            hint = "Remove some names from alternate-host-names."
            raise ConfigError(message, hint=hint)
        return names

    def wanted_names(self) -> tuple[str, ...]:
        """Return the names, however many.

        Raises:
            ConfigError: If the server's own one is not clear.
        """
        config = self.config
        first = config.host_name or host_name.host_name(
            host_name.configured_names(self.root), self.greeted
        )
        return tuple(dict.fromkeys([first, *config.alternate_host_names]))

    def server(self, targets_: Iterable[Target]) -> MailServer:
        """Return the server as the workflow sees it."""
        config = self.config
        bindings = Bindings(
            self.root,
            tuple(targets_),
            list(self.known.values()),
            ours=self.ours,
            backups=self.state.backups,
        )
        semaphores = Semaphores(
            folders.child(self.root, "App"),
            self._ladder(),
            patience=config.reload_timeout,
        )
        return MailServer(
            bindings,
            semaphores,
            running=self.greeted is not None,
            own_folders=self._own_folders(),
            site=web_site(self),
            service=windows_service(self.root),
            may_restart=config.allow_restart and not config.no_reload,
        )

    def parts(self, server: MailServer) -> Adapters:
        """Return what a run works with, beside the CA."""
        return Adapters(
            store=self.store,
            server=server,
            verifier=Ports(self.endpoints, server_name(self.config, self.greeted)),
            state=self.state,
            ca=self.ca,
        )

    def accounts(self) -> Accounts:
        """Return the way to our account at the CA."""
        from letsencrypt_mdaemon.acme.account import Accounts  # noqa: PLC0415 - slow
        from letsencrypt_mdaemon.acme.transport import Session  # noqa: PLC0415

        config = self.config
        delay = config.longest_delay if self.scheduled else 0.0
        return Accounts(
            Session(config.ca, ca_bundle=config.ca_bundle, delay=delay),
            self.ca,
            contact=config.contact,
            agree_tos=config.agree_tos,
            external=lambda: external(config),
        )

    def issuer(self) -> Issuer:
        """Return the way to the CA.

        Raises:
            ConfigError: If a profile is required, and it is not said which.
        """
        from letsencrypt_mdaemon.acme.issuer import Issuer  # noqa: PLC0415 - slow to import
        from letsencrypt_mdaemon.mdaemon.webroot import Webroot  # noqa: PLC0415

        config = self.config
        if config.require_profile and not config.profile:
            message = "A profile is required, and it is not said which."
            raise ConfigError(message, hint="Name it by profile.")
        folder = config.webroot or folders.child(self.root, "WorldClient", "HTML")
        is_iis = bool(config.iis_site_name) and sys.platform == "win32"
        journal = self.ca.folder / "presented.json"
        webroot = Webroot(folder, journal, web_config=is_iis)
        if not config.dry_run:
            # What a run that was killed showed; its order may need no token any more.
            webroot.sweep()
        return Issuer(
            self.accounts(),
            webroot,
            key_type=config.key_type,
            profiles=config.profile,
            require_profile=config.require_profile,
            preferred_chain=config.preferred_chain,
            patience=config.validation_timeout,
        )

    def order(self, names: tuple[str, ...]) -> Request:
        """Return what is wanted."""
        config = self.config
        return Request(
            names=names,
            key_type=config.key_type,
            directory_url=config.ca,
            reuse_key=config.key_policy == "reuse",
            days_left=config.renew_days,
            interval=lifetime.interval(self.memory.runs) or lifetime.INTERVAL,
            limits=authorities.at(config.ca).limits,
            force=config.force,
            dry_run=config.dry_run,
            drop=config.on_name_failure == "drop",
            rehearse=config.staging,
            issue_only=config.no_activate,
            reload=not config.no_reload,
            given=bool(config.endpoint),
            patience=config.verify_timeout,
            remove_old=config.remove_old_certificates,
        )

    def _ladder(self) -> tuple[str, ...]:
        """Return the semaphores of a reload, gentlest first."""
        config = self.config
        if config.no_reload:
            return ()
        restart = ("RESTART.SEM",) if config.allow_restart else ()
        return tuple(dict.fromkeys([*config.reload_semaphores, *restart]))

    def _own_folders(self) -> list[Path]:
        return [self.state.folder]


def open_installation(
    config: Config, root: Path, *, look: bool = True, scheduled: bool = False
) -> Installation:
    """Look at an installation: its store, its greeting, its ports.

    Args:
        look: Also at the ports.
        scheduled: Whether this is most likely a job of the schedule.

    Raises:
        ConfigError: If the store or an endpoint cannot be used.
    """
    state = state_of(config, root)
    store = certificate_store(config, state, root)
    greeted = host_name.greeting(config.smtp_address)
    known = {thumbprint(leaf): leaf for leaf, _ in store.certificates()}
    installation = Installation(
        config=config,
        root=root,
        state=state,
        memory=state.load(),
        store=store,
        known=known,
        endpoints=server_endpoints(config),
        observed={},
        greeted=greeted,
        scheduled=scheduled,
    )
    return installation.look([server_name(config, greeted)]) if look else installation
