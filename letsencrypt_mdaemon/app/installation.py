"""What is found of an MDaemon, and of what this program keeps beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app.build import (
    certificate_store,
    server_endpoints,
    server_name,
    state_of,
)
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import discovery, host_name
from letsencrypt_mdaemon.mdaemon.folders import IniFiles
from letsencrypt_mdaemon.pki.certificate import OURS, thumbprint
from letsencrypt_mdaemon.state.memory import RUNS, Memory, Target, utc
from letsencrypt_mdaemon.text import CHOOSE_ONCE
from letsencrypt_mdaemon.verify import endpoints, observe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

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
        files: The server's INI files, as they are read for the first time.
        memory: What is remembered of the installation.
        stored: Each certificate of the store with its friendly name.
        endpoints: The server's ports that speak TLS.
        observed: What they serve, as far as they were looked at.
        greeted: What the mail server greets with, if it does.
        scheduled: Whether the schedule most likely started this run.
    """

    config: Config
    root: Path
    files: IniFiles
    state: State
    memory: Memory
    store: Store
    stored: Sequence[tuple[x509.Certificate, str]]
    endpoints: Sequence[Endpoint]
    observed: Mapping[Endpoint, Served]
    greeted: host_name.Source | None
    scheduled: bool = False

    @property
    def ca(self) -> CaState:
        """What is remembered at the CA."""
        return self.state.ca(self.config.ca, staging=self.config.staging)

    @property
    def own_folders(self) -> list[Path]:
        """The folders of this program, which name certificates for other reasons."""
        return [self.state.folder]

    @property
    def known(self) -> dict[str, x509.Certificate]:
        """The certificates of the store and those that ports serve, by thumbprint."""
        leaves = [leaf for leaf, _ in self.stored]
        leaves += [served.leaf for served in self.observed.values() if served.leaf]
        return {thumbprint(leaf): leaf for leaf in leaves}

    @property
    def ours(self) -> set[str]:
        """The thumbprints of the certificates that this program obtained."""
        named = {
            thumbprint(leaf)
            for leaf, name in self.stored
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
        return replace(self, observed=observe.observe(asked, names))

    def issued_chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the chain that the CA issued, by its leaf; empty if it is not kept."""
        pending = self.ca.pending()
        if pending is not None and pending.thumbprint == wanted:
            return pending.chain
        return self.store.chain(wanted)

    def discover(self) -> list[discovery.Found]:
        """Return every place in the server's files that names a known certificate."""
        known = self.known.values()
        return discovery.discover(self.files, known, skip=self.own_folders)

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
            return discovery.explicit(self.files, given)
        found = self.discover()
        # A value that named a certificate once still counts, whatever it names now.
        remembered = discovery.still_there(self.files, self.memory.targets)
        learned = discovery.merged(discovery.learned(found), remembered)
        if learned:
            return learned
        raise ConfigError(
            f"It is not known where the server keeps its choice of certificate: no INI "
            f"file below {self.root} names one of the {len(self.known)} certificates "
            "that are in the store or served by a port.",
            hint=f"{CHOOSE_ONCE} and run again; or name the INI values in "
            "[target ...] sections of the config file.",
        )

    def noted(self, now: datetime) -> Installation:
        """Remember when a scheduled run began: this tells how often there is one."""
        runs = [run for run in self.memory.runs if run <= now]
        if not runs or now - runs[-1] >= timedelta(hours=1):
            runs = [*runs, utc(now)][-RUNS:]
        return self._remembering(self.memory._replace(runs=tuple(runs), exit_code=None))

    def learned(self, targets: tuple[Target, ...]) -> Installation:
        """Remember the targets that were found, unless the config file names them."""
        known = self.config.targets or targets == self.memory.targets
        if known or self.config.dry_run:
            return self
        for target in targets:
            _log.info("The certificate is named in %s as %s", target, target.form)
        return self._remembering(self.memory._replace(targets=targets))

    def _remembering(self, memory: Memory) -> Installation:
        self.state.save(memory)
        return replace(self, memory=memory)

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
            host_name.configured_names(self.files), self.greeted
        )
        return tuple(dict.fromkeys([first, *config.alternate_host_names]))


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
    installation = Installation(
        config=config,
        root=root,
        files=IniFiles(root),
        state=state,
        memory=state.load(),
        store=store,
        stored=tuple(store.certificates()),
        endpoints=server_endpoints(config),
        observed={},
        greeted=host_name.greeting(config.smtp_address),
        scheduled=scheduled,
    )
    if not look:
        return installation
    return installation.look([server_name(config, installation.greeted)])
