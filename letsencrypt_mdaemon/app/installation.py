"""Read an MDaemon installation and this program's state."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import discovery, forms, host_name
from letsencrypt_mdaemon.mdaemon.folders import IniFiles, file_below
from letsencrypt_mdaemon.pki.certificate import OURS, thumbprint
from letsencrypt_mdaemon.state.memory import MAX_RUNS, Memory, Target, utc
from letsencrypt_mdaemon.verify import endpoints, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.mdaemon.discovery import Unseen
    from letsencrypt_mdaemon.mdaemon.shape import Shape
    from letsencrypt_mdaemon.renewal.store import Store
    from letsencrypt_mdaemon.state.folder import CaState, State
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

_log = logging.getLogger(__name__)


class Installation(NamedTuple):
    """One MDaemon, and this program's state for it.

    Args:
        files: The server's INI files, each read once.
        memory: The saved state.
        stored: Each certificate of the store with its friendly name.
        endpoints: The server's ports that speak TLS.
        observed: What the checked ports serve.
        greeted: Returns the SMTP greeting; connects when it is first called.
        scheduled: Whether a scheduler most likely started this run.
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
    greeted: Callable[[], host_name.Source | None]
    scheduled: bool = False

    @property
    def ca(self) -> CaState:
        """The state at this CA."""
        return self.state.ca(self.config.ca, staging=self.config.staging)

    @property
    def known(self) -> dict[str, x509.Certificate]:
        """The certificates of the store and the ports, by thumbprint."""
        leaves = [leaf for leaf, _ in self.stored]
        leaves += [served.leaf for served in self.observed.values() if served.leaf]
        return {thumbprint(leaf): leaf for leaf in leaves}

    @property
    def ours(self) -> set[str]:
        """The thumbprints of the certificates that this program obtained."""
        leaves = [leaf for leaf, name in self.stored if name.startswith(f"{OURS} ")]
        issued = [item.thumbprint for item in self.memory.issued]
        return {*map(thumbprint, leaves), *issued}

    @property
    def served(self) -> dict[str, str]:
        """The thumbprint that each port serves; one of our addresses that agree."""
        found: dict[tuple[str, ...], str] = {}
        for endpoint, served in self.observed.items():
            if served.leaf:
                where = endpoint.host if self.config.endpoint else ""
                port = endpoint.scheme, str(endpoint.port), where
                found.setdefault((*port, served.thumbprint), str(endpoint))
        return {endpoint: digest for (*_, digest), endpoint in found.items()}

    def look(
        self, names: Sequence[str], *, public: bool = False, briefly: bool = False
    ) -> Installation:
        """Return the installation with fresh answers of its ports.

        Args:
            names: The names to send as SNI.
            public: Also check the public addresses in DNS.
            briefly: Ask for the first name only.
        """
        more = endpoints.public(self.endpoints, names) if public else []
        at = [*self.endpoints, *more]
        return self._replace(observed=observe.observe(at, names, briefly=briefly))

    def issued_chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the issued chain of the leaf with this thumbprint, if it is kept."""
        pending = self.ca.pending()
        if pending is not None and pending.thumbprint == wanted:
            return pending.chain
        return self.store.chain(wanted)

    def discover(self, *, everywhere: bool = True) -> list[discovery.Found]:
        """Return every place in the server's files that names a known certificate.

        Args:
            everywhere: Also search folders that usually have no settings, which is slow
                where they have a million files.
        """
        skip, known = [self.state.folder], self.known.values()
        return discovery.discover(self.files, known, skip=skip, everywhere=everywhere)

    def shape(self) -> Shape:
        """Return what may be published of the server's files."""
        from letsencrypt_mdaemon.mdaemon import shape  # noqa: PLC0415 - seldom needed

        skip, used = [self.state.folder], self.config.reload_semaphores
        return shape.describe(self.files, self.known.values(), used, skip=skip)

    def targets(self) -> tuple[Target, ...]:
        """Return the targets that can be seen; see `known_targets`."""
        return self.known_targets()[0]

    def known_targets(
        self, *, search: bool = False
    ) -> tuple[tuple[Target, ...], tuple[Unseen, ...]]:
        """Return the targets of the config file, else the learned ones.

        A value that once named a certificate counts, even if it names none now.

        Args:
            search: Search all folders, even if each learned target names a certificate.

        Returns:
            Those that can be seen, and the known ones that cannot. None at all on a
            new server, where nobody has chosen a certificate yet.

        Raises:
            ConfigError: If the config file names an INI value that is not there.
        """
        if self.config.targets:
            given = {
                item.name: Target(
                    item.file.replace("\\", "/"), item.section, item.key, item.form
                )
                for item in self.config.targets
            }
            there, unseen = discovery.explicit(self.files, given)
            return tuple(there), tuple(unseen)
        known, sizes = self.memory.targets, self.memory.sizes
        there, unseen = discovery.look_at(self.files, known, sizes)
        is_enough = bool(there) and not unseen and self._are_fresh(there)
        found = self.discover(everywhere=search or not is_enough)
        learned = discovery.learned(found, there)
        return learned, tuple(unseen)

    def _are_fresh(self, targets: Sequence[Target]) -> bool:
        """Whether every value names a known certificate, as it did when learned."""
        known = self.known.values()
        values = [row.value for item in targets for row in self.files.lookup(item)]
        return all(forms.find(value, known) for value in values)

    def search(self) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
        """Search all folders; return the targets that can be seen, and the others."""
        if self.config.targets:
            return (), ()
        seen, unseen = self.known_targets(search=True)
        return seen, tuple(item.target for item in unseen)

    def noted(self, now: datetime) -> Installation:
        """Remember when a scheduled run began, to compute the usual interval.

        Of several within an hour, the first and the last are kept.
        """
        runs = [run for run in self.memory.runs if run <= now]
        if len(runs) > 1 and now - runs[-2] < timedelta(hours=1):
            runs.pop()
        runs = [*runs, utc(now)][-MAX_RUNS:]
        return self._remembering(self.memory._replace(runs=tuple(runs), exit_code=None))

    def learned(
        self, targets: Sequence[Target], unseen: Sequence[Unseen] = ()
    ) -> Installation:
        """Remember the targets, unless the config file names them."""
        kept = (*targets, *(item.target for item in unseen))
        if self.config.targets or self.config.dry_run:
            return self
        sizes = dict(self.memory.sizes)
        for target in targets:
            path = file_below(self.root, target.file)
            sizes[target.file] = len(self.files.data(path))
        is_new = set(kept) != set(self.memory.targets)
        if is_new:
            for target in targets:
                kind = {"sha1": "SHA-1 thumbprint", "sha256": "SHA-256 thumbprint"}
                what = kind.get(target.form.partition(":")[0], "serial number")
                _log.info("%s names the certificate by its %s", target, what)
        elif sizes == self.memory.sizes:
            return self
        return self._remembering(self.memory._replace(targets=kept, sizes=sizes))

    def forgotten(self, target: str) -> Installation:
        """Forget a target.

        Args:
            target: As messages show it: FILE [SECTION] KEY.

        Raises:
            ConfigError: If it is not known.
        """
        known = {str(item).lower(): item for item in self.memory.targets}
        gone = known.get(target.strip().lower())
        if gone is None:
            shown = "; ".join(map(str, self.memory.targets)) or "none"
            message = f"{target!r} is not a known INI value. Known are: {shown}."
            raise ConfigError(message, hint="Write it as it is shown, in quotes.")
        kept = tuple(item for item in self.memory.targets if item != gone)
        return self._remembering(self.memory._replace(targets=kept))

    def _remembering(self, memory: Memory) -> Installation:
        self.state.save(memory)
        return self._replace(memory=memory)

    def names(self) -> tuple[str, ...]:
        """Return the certificate's names, the server's own first.

        Raises:
            ConfigError: If the server's own name is unclear, or the names are too many.
        """
        names = self.wanted_names()
        limit = self.config.most_names
        if limit is not None and len(names) > limit:
            raise ConfigError(
                f"{len(names)} names exceed the CA's limit of {limit}.",
                hint="Remove some names from alternate-host-names.",
            )
        return names

    def wanted_names(self) -> tuple[str, ...]:
        """Return the names without checking their number.

        Raises:
            ConfigError: If the server's own name is unclear.
        """
        config = self.config
        first = config.host_name or host_name.host_name(
            host_name.witnesses(self.files, self._certified()), self.greeted
        )
        return tuple(dict.fromkeys([first, *config.alternate_host_names]))

    def server_name(self) -> str:
        """Return the SNI for the ports; "" if the server's name is unknown."""
        if self.config.host_name:
            return self.config.host_name
        try:
            return host_name.witnesses(self.files, self._certified()).decide() or ""
        except ConfigError as exc:
            _log.debug("%s", exc)
            return ""

    def _certified(self) -> str:
        """Return the first name of our certificate in use; "" if it is unknown."""
        memory = self.memory
        if memory.host_name:
            return memory.host_name
        # Earlier versions did not save it, and CAs change the order.
        issued = memory.find(memory.in_use)
        others = set(self.config.alternate_host_names)
        names = [name for name in issued.names if name not in others] if issued else []
        return names[0] if len(names) == 1 else ""


def open_installation(
    config: Config,
    root: Path,
    *,
    look: bool = True,
    scheduled: bool = False,
    read_only: bool = False,
) -> Installation:
    """Read an installation: its store, its ports.

    Args:
        look: Whether to check the ports.
        scheduled: Whether a scheduler most likely started this run.
        read_only: Leave damaged state files where they are.

    Raises:
        ConfigError: If the store or an endpoint cannot be used.
    """
    state = build.state_of(config, root, read_only=read_only)
    store = build.certificate_store(config, state, root)
    installation = Installation(
        config=config,
        root=root,
        files=IniFiles(root),
        state=state,
        memory=state.load(),
        store=store,
        stored=tuple(store.certificates()),
        endpoints=build.server_endpoints(config),
        observed={},
        greeted=cache(lambda: host_name.greeting(config.smtp_address)),
        scheduled=scheduled,
    )
    if not look:
        return installation
    return installation.look([installation.server_name()], briefly=True)
