"""Deliberate faults: one line of the package made wrong, and the test that notices.

python -m tests.faults [NAME…]

Each is tried on a copy, with the tests that should notice it and no others. The table
that is printed says which test did; the exit code is 1 if a fault passed unnoticed, if
its text does not stand exactly once in the package, or if its tests fail without it.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.limits import HANG_SECONDS

CHECKOUT = Path(__file__).parents[1]
PACKAGE = "letsencrypt_mdaemon"
AT_ONCE = 2
ELSEWHERE = (
    *(
        "integration",
        "mail_servers",
        "metrics/",
        "shells/",
        "browser",
        "policy/senders",
    ),
    *("windows/test_", "windows/across"),
)
"""Folders of tests that need more than Python."""


class Fault(NamedTuple):
    """One line made wrong.

    Args:
        text: What stands exactly once in the package.
        wrong: What takes its place.
        tests: Files, by their names without folders, and options of pytest.
    """

    name: str
    text: str
    wrong: str
    tests: str


FAULTS = (
    # What was scheduled by an earlier version
    Fault(
        "a-removed-option-ends-a-scheduled-run",
        "self.options = {k: v for k, v in options.items() if k not in load.REMOVED}",
        "self.options = {**options}",
        "test_commands.py -k removed_option",
    ),
    Fault(
        "powershell-gets-paths-to-choose-from",
        'return [item for item in found if item.type == "plain"]',
        "return found",
        "test_completion.py",
    ),
    # What the pages show
    Fault(
        "the-pages-show-a-message-that-is-no-more",
        'heading = "Names found:"',
        'heading = "Names seen:"',
        "test_shown.py -k README",
    ),
    Fault(
        "a-recording-shows-a-word-that-is-no-more",
        "Expected: {digest}, valid until {until}",
        "Expected: {digest}, good until {until}",
        "test_shown.py -k recordings",
    ),
    Fault(
        "a-program-that-the-account-may-not-look-at-is-gone",
        "not path.exists()\n    except PermissionError:\n        return False",
        "not path.exists()\n    except PermissionError:\n        return True",
        "test_check.py -k may_not_look",
    ),
    # What ports serve
    Fault(
        "a-person-who-asks-the-ca-hears-what-it-said-before",
        "if kept.holds(now) and not request.ask_ca:",
        "if kept.holds(now):",
        "test_renew.py -k mass_revocation",
    ),
    Fault(
        "a-person-who-asks-the-ca-gets-the-crl-of-this-morning",
        "(is_fresh and not snapshot.request.ask_ca)",
        "is_fresh",
        "test_run.py -k crl",
    ),
    Fault(
        "verify-an-expired-certificate-is-good",
        "leaf.not_valid_after_utc <= now for leaf",
        "False for leaf",
        "test_verify_command.py",
    ),
    Fault(
        "verify-a-chain-without-its-intermediate-is-good",
        "chain.is_complete is False",
        "chain.is_complete == 7",
        "test_verify_command.py",
    ),
    Fault(
        "verify-nobody-listens-is-good",
        "if message or self.is_listening or not self.is_running:",
        "if True:",
        "test_verify_command.py",
    ),
    Fault(
        "a-malformed-issuer-is-a-bug",
        "    except MALFORMED:\n        return False\n\n\n# Renewal information",
        "    except KeyError:\n        return False\n\n\n# Renewal information",
        "test_issuer_choices.py -k malformed",
    ),
    Fault(
        "notify-a-redirect-is-good",
        "if not 200 <= status < 300:",
        "if not 200 <= status < 400:",
        "test_notifications.py -k redirect",
    ),
    Fault(
        "notify-a-warning-quotes-the-url",
        "raise Error(address.without(text, url), hint=hint)",
        "raise Error(exc.message, hint=hint)",
        "test_notifications.py -k secret",
    ),
    Fault(
        "notify-the-signature-has-no-time",
        'f"{identifier}.{timestamp}.{body}"',
        'f"{identifier}.{body}"',
        "test_webhook.py",
    ),
    Fault(
        "notify-an-empty-key-signs-nothing",
        "        if not key:\n            what =",
        "        if None:\n            what =",
        "test_notifications.py -k no_use",
    ),
    Fault(
        "notify-http-leaves-the-machine",
        '*["http"] * local}',
        '"http"}',
        "test_address.py",
    ),
    Fault(
        "notify-an-answer-has-no-limit",
        "MAX_ANSWER_BYTES = 64 << 10",
        "MAX_ANSWER_BYTES = 1 << 40",
        "test_notifications.py -k gigabyte",
    ),
    Fault(
        "notify-all-together-have-no-limit",
        "ask_all(ask, acts, timeout=ALL_SECONDS)",
        "ask_all(ask, acts, timeout=600)",
        "test_notifications.py -k all_together",
    ),
    Fault(
        "notify-what-failed-is-told",
        "return warn(found) or is_sent",
        "return not warn(found) or True",
        "test_notifications.py -k next_run",
    ),
    Fault(
        "notify-test-hides-what-failed",
        "if failure is None and problems:",
        "if False:",
        "test_notifications.py -k notify_test",
    ),
    Fault(
        "apprise-follows-redirects",
        "http_redirects=False",
        "http_redirects=True",
        "test_apprise.py -k redirect",
    ),
    Fault(
        "apprise-logs-urls",
        'logging.getLogger("apprise").propagate = False',
        "pass",
        "test_apprise.py -k secret",
    ),
    Fault(
        "heartbeat-of-a-person",
        "config.staging or context.is_typed:",
        "config.staging:",
        "test_notifications.py -k person",
    ),
    Fault(
        "heartbeat-of-a-busy-run",
        "self._heartbeat is not None and exit_code != BusyError.exit_code",
        "self._heartbeat is not None",
        "test_notifications.py -k busy",
    ),
    Fault(
        "heartbeat-without-the-log",
        "self._heartbeat.end(exit_code, self._lines)",
        "self._heartbeat.end(exit_code, [])",
        "test_notifications.py -k beats",
    ),
    Fault(
        "hook-what-it-starts-lives-on",
        "os.killpg(self._process.pid, signal.SIGKILL)",
        "self._process.kill()",
        "test_hook.py -k ended",
    ),
    Fault(
        "hook-a-flood-is-kept",
        "del output[:-MAX_OUTPUT_BYTES]",
        "pass",
        "test_hook.py -k flood",
    ),
    Fault(
        "hook-its-failure-is-forgotten",
        "if memory.in_use != digest or memory.hooked == digest:",
        "if memory.in_use != digest or memory.hooked:",
        "test_after_activation.py",
    ),
    Fault(
        "hook-gets-our-secrets",
        "if not k.upper().startswith(PREFIX)}",
        "if k}",
        "test_after_activation.py -k facts",
    ),
    Fault(
        "hook-others-may-put-files-beside-it",
        "list(dict.fromkeys([path, path.parent, real.parent]))",
        "[path]",
        "test_after_activation.py test_trust.py -k hook",
    ),
    Fault(
        "hook-waits-while-the-ca-fails",
        "            self._catch_up()\n            raise",
        "            raise",
        "test_after_activation.py -k failure_of_the_ca",
    ),
    Fault(
        "metrics-a-link-is-replaced",
        "if is_link or not stat.S_ISREG(found.st_mode):",
        "if is_link:",
        "test_metrics.py",
    ),
    Fault(
        "metrics-others-cannot-read-them",
        "content.encode(), mode=PUBLIC, durable=False",
        "content.encode(), durable=False",
        "test_metrics.py -k every_account",
    ),
    Fault(
        "metrics-a-failed-run-writes-none",
        "self._measure(error.exit_code)",
        "pass",
        "test_metrics.py -k failed",
    ),
    Fault(
        "metrics-a-busy-run-writes-them",
        "if self._mails and exit_code != BusyError.exit_code:",
        "if self._mails:",
        "test_metrics.py -k busy",
    ),
    Fault(
        "metrics-a-quote-ends-a-label",
        "_ESCAPES.get(c, c) for c",
        "c for c",
        "test_metrics.py -k labels",
    ),
    Fault(
        "check-by-the-metrics-file-looks-for-settings",
        'if self.command == "check" and "metrics-file" in self.options:',
        "if False:",
        "test_metrics.py -k may_not_enter",
    ),
    Fault(
        "check-without-rights-does-not-read-the-metrics-file",
        "if isinstance(error, PermissionError):",
        "if isinstance(error, KeyError):",
        "test_metrics.py -k without_rights",
    ),
    Fault(
        "demo-as-root-beside-an-mdaemon",
        'account = "" if os.geteuid() else "root"',
        'account = ""',
        "test_commands.py -k refuses_root",
    ),
    Fault(
        "lack-of-memory-is-a-bug",
        "isinstance(error, MemoryError) or ",
        "",
        "test_bad_input.py -k lack",
    ),
    Fault(
        "tasks-that-exist-are-no-suspects",
        "key=lambda each: (not found.get(each), each != first)",
        "key=lambda each: each != first",
        "test_put_back.py -k crontab",
    ),
    Fault(
        "verify-an-unknown-public-chain-may-be-short",
        "claims_public_rules(leaf) or any(",
        "any(",
        "test_verify_command.py test_chain.py",
    ),
    Fault(
        "verify-an-intermediate-of-another-port-is-not-known",
        "issued(leaf), sent)",
        "issued(leaf))",
        "test_verify_command.py",
    ),
    Fault(
        "crl-a-compromised-key-is-like-any-other",
        "return reason is x509.ReasonFlags.key_compromise",
        "return False",
        "test_put_back.py -k crl",
    ),
    Fault(
        "lack-of-memory-is-a-broken-port",
        "if is_lack(exc):",
        "if False:",
        "test_proof.py -k open_files",
    ),
    Fault(
        "other-key-not-asked-for-in-tls-1.3",
        "lib.SSL_CTX_set1_sigalgs_list(context._context, _SIGNATURES[key])",
        "context.set_max_proto_version(SSL.TLS1_2_VERSION)",
        "test_observe.py -k kinds_of_key",
    ),
    # The doctor
    Fault(
        "doctor-https-only-is-told-to-bind-port-80",
        "_explain(server, notes.values())",
        "pass",
        "test_examination.py -k webmail",
    ),
    Fault(
        "doctor-a-cause-once-a-name",
        "cause in said or finding",
        "finding",
        "test_doctor_command.py",
    ),
    Fault(
        "doctor-a-cluster-is-many-causes",
        "if finding is None or address in missing:",
        "if finding is None:",
        "test_examination.py",
    ),
    Fault(
        "doctor-unchecked-is-good",
        "tuple(examined), probe is not None)",
        "tuple(examined), fetched=True)",
        "test_doctor_command.py",
    ),
    # Where targets are searched
    Fault(
        "search-everywhere-always",
        "everywhere=search or not is_enough",
        "everywhere=True",
        "test_targets.py",
    ),
    Fault(
        "search-never-for-a-stale-target",
        "and not unseen and self._are_fresh(there)",
        "and not unseen",
        "test_targets.py",
    ),
    Fault(
        "search-not-before-binding",
        "snapshot = snapshot.searched(adapters)\n    request, attempt",
        "request, attempt",
        "test_targets.py",
    ),
    # Threads
    Fault(
        "pool-unbounded",
        "range(min(len(questions), MAX_THREADS))",
        "range(len(questions))",
        "test_parallel.py",
    ),
    Fault(
        "pool-asks-after-the-timeout",
        "while time.monotonic() <= deadline:",
        "while True:",
        "test_parallel.py",
    ),
    # The server's name
    Fault(
        "host-name-of-another-domain",
        "[source for source in hosts if source.domain in domains]",
        "[source for source in hosts if source.domain in domains] or list(hosts)",
        "test_host_name.py",
    ),
    Fault(
        "host-name-of-the-certificate-first",
        "return ours if ours in names or not names else None",
        "return ours",
        "test_host_name.py",
    ),
    Fault(
        "host-name-not-saved",
        "in_use=thumbprint(leaf), host_name=host, proven",
        "in_use=thumbprint(leaf), proven",
        "test_bad_input.py -k default_domain",
    ),
    # A person's choice of certificate
    Fault(
        "hold-never-ends",
        "return held if snapshot.now < held.until else None",
        "return held",
        "test_hold.py",
    ),
    Fault(
        "hold-counts-though-nobody-names-it",
        "if held and thumbprint(x) == held.thumbprint), None)",
        "if held), None)",
        "test_hold.py",
    ),
    Fault(
        "hold-of-an-expired-certificate",
        "if fault(alone) or rules",
        "if rules",
        "test_hold.py",
    ),
    Fault(
        "hold-orders-though-one-waits",
        "if at <= now and not waits:",
        "if at <= now:",
        "test_hold.py",
    ),
    Fault(
        "hold-is-lost-by-a-choice-that-fails",
        "memory._replace(hold=former)",
        "memory._replace(hold=None)",
        "test_hold.py",
    ),
    Fault(
        "hold-begins-after-the-change",
        "    adapters.state.save(snapshot.memory)\n    try:\n        yield",
        "    try:\n        yield",
        "test_hold.py",
    ),
    Fault(
        "hold-is-not-ended-by-another-activation",
        "held if held and held.thumbprint == thumbprint(leaf) else None",
        "held",
        "test_hold.py",
    ),
    Fault(
        "hold-lets-superseded-certificates-be-removed",
        "proof.new and not proof.unproven and held is None",
        "proof.new and not proof.unproven",
        "test_hold.py",
    ),
    Fault(
        "hold-makes-a-rejected-certificate-ours",
        'if issued is None and leaf is not None and name.startswith(f"{OURS} "):',
        "if issued is None and leaf is not None:",
        "test_hold.py",
    ),
    Fault(
        "hold-does-not-continue-an-unfinished-choice",
        "return leaf if is_left or snapshot.in_use is None else None",
        "return None",
        "test_hold.py",
    ),
    Fault(
        "hold-begins-by-the-schedule",
        "if leaf is not None and not snapshot.request.scheduled:",
        "if leaf is not None:",
        "test_hold.py",
    ),
    # Certificates of the store
    Fault(
        "certificates-remove-what-a-port-serves",
        "    found += [at for at, each in installation.served.items() "
        "if each == digest]\n",
        "",
        "test_certificates.py",
    ),
    Fault(
        "certificates-remove-what-some-file-names",
        "if not found and (user := server.references().get(digest)):",
        'if not found and (user := server.references().get("")):',
        "test_certificates.py",
    ),
    Fault(
        "certificates-ambiguous",
        "if len(found) > 1:\n        listed",
        "if False:\n        listed",
        "test_certificates.py",
    ),
    Fault(
        "certificates-without-consent",
        "if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr)):",
        "if False:",
        "test_certificates.py test_use.py",
    ),
    Fault(
        "use-a-certificate-with-a-flaw",
        "flaw = certificates.flaw(installation, leaf, now=now, has_usable_key=can_use)",
        "flaw = ''",
        "test_certificates.py",
    ),
    Fault(
        "remove-what-a-roll-back-needs",
        "is_former = digest in self.attempt.before.values()",
        "is_former = False",
        "test_certificates.py",
    ),
    Fault(
        "use-until-is-ignored-for-a-self-signed-one",
        "if moment is not None and is_self_signed(leaf):",
        "if moment is not None and not leaf:",
        "test_use.py",
    ),
    Fault(
        "check-misses-a-run-that-is-not-due-yet",
        "return span if timedelta() <= span <= scheduling.MAX_PAUSE else None",
        "return None",
        "test_check.py",
    ),
    Fault(
        "check-takes-any-renewal-for-a-run",
        "return span if timedelta() <= span <= scheduling.MAX_PAUSE else None",
        "return span",
        "test_check.py",
    ),
    Fault(
        "a-renewal-says-its-result-twice",
        'if self._holds and getattr(record, "result", False):',
        'if not self._holds and getattr(record, "result", False):',
        "test_terminals.py test_log.py",
    ),
    Fault(
        "use-an-untrusted-one-without-consent",
        'found.append(f"Clients do not trust it: {why}.")',
        "pass",
        "test_use.py",
    ),
    Fault(
        "reload-restarts-unasked",
        "if restart and ladder.is_restart(each)]:",
        "if ladder.is_restart(each)]:",
        "test_by_hand.py",
    ),
    Fault(
        "reload-of-nothing-is-good",
        "    if not taken:\n        return DeployError(",
        "    if False:\n        return DeployError(",
        "test_use.py",
    ),
    Fault(
        "self-signed-with-a-short-key",
        "if weak and int(weak[1]) < 2048:",
        "if False:",
        "test_use.py",
    ),
    # The ACME client
    Fault(
        "order-certificate-unchecked",
        "found, cut = check(offered, names, now=session.session.now())",
        'found, cut = offered, ""',
        "test_issuer.py",
    ),
    Fault(
        "order-alternates-after-a-path-cut-short",
        "usable.append((bool(cut), strays, offered, found, cut))",
        "usable.append((False, strays, offered, found, cut))",
        "test_issuer_choices.py",
    ),
    Fault(
        "chain-expired-member-kept",
        "good = [one for one in issuers if not faults[one]]",
        "good = issuers",
        "test_certificate.py",
    ),
    Fault(
        "chain-root-kept",
        "above = [one for one in good if not is_issued_by(one, one)]",
        "above = good",
        "test_certificate.py",
    ),
    Fault(
        "order-refused-names-unnoticed",
        "refusal = about_names(exc, names)",
        "refusal = exc",
        "test_issuer_orders.py",
    ),
    Fault(
        "order-limit-taken-for-a-refusal",
        "if waits or not refused:",
        "if not refused:",
        "test_problem.py test_issuer_orders.py",
    ),
    Fault(
        "due-drops-a-name-that-is-only-limited",
        "return set(failed) <= {item.name for item in snapshot.dropped}",
        "return True",
        "test_patience.py",
    ),
    Fault(
        "obtain-drops-only-once",
        "if rest == names or not may:",
        "if rest == names or names != tried or not may:",
        "test_patience.py",
    ),
    Fault(
        "order-not-counted",
        "self._count(names)",
        "list(names)",
        "test_patience.py",
    ),
    Fault(
        "order-not-kept",
        "self.state.save(OpenOrder(*urls, tuple(names), self.key_type, pem))",
        "del pem, urls",
        "test_issuer_resuming.py",
    ),
    Fault(
        "order-for-other-names-resumed",
        "if set(saved.names) != set(names):",
        "if False:",
        "test_issuer_resuming.py test_issuer_orders.py",
    ),
    Fault(
        "order-without-replaces",
        'request["replaces"] = predecessor',
        "del predecessor",
        "test_issuer_advice.py test_issuer_choices.py",
    ),
    Fault(
        "order-by-a-wrong-clock",
        "abs(ours - theirs) <= CLOCK_ERROR",
        "abs(ours - theirs)",
        "test_issuer.py",
    ),
    Fault(
        "order-asks-too-soon",
        "max(seconds, min(retry_after or 0.0, MAX_PAUSE_SECONDS))",
        "seconds",
        "test_issuer_orders.py test_issuer_challenges.py",
    ),
    Fault(
        "challenge-without-thumbprint",
        '{token: f"{token}.{thumbprint}" for token in tokens}',
        "{token: token for token in tokens}",
        "test_issuer.py test_issuer_challenges.py",
    ),
    Fault(
        "challenge-old-error-counts",
        'if item.status != "pending")',
        "if item.status)",
        "test_issuer_challenges.py",
    ),
    Fault(
        "ari-identifier-without-zero",
        'number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)',
        'number.to_bytes((number.bit_length() + 7) // 8, "big")',
        "test_issuer_advice.py",
    ),
    Fault(
        "ari-window-that-ends-as-it-starts",
        "if end <= start:",
        "if end < start:",
        "test_issuer_advice.py",
    ),
    Fault(
        "revoked-already-is-an-error",
        '!= "alreadyRevoked":',
        '!= "":',
        "test_issuer_orders.py test_issuer_choices.py test_revoke.py",
    ),
    Fault(
        "revoked-or-not-left-open",
        'state = "is NOT revoked"',
        'state = "may not be revoked"',
        "test_revoke.py",
    ),
    Fault(
        "account-without-terms",
        "if terms and not self.agree_tos:",
        "if not terms and not self.agree_tos:",
        "test_account.py test_issuer.py",
    ),
    Fault(
        "account-contact-kept",
        "self.accounts.update_contact(signer)",
        "list(signer.kid)",
        "test_issuer.py",
    ),
    Fault(
        "account-contact-of-a-known-account-believed",
        "if reply.status == HTTPStatus.CREATED else ()",
        "",
        "test_issuer.py",
    ),
    Fault(
        "account-binding-in-one-alphabet",
        'str.maketrans("+/", "-_")',
        "{}",
        "test_account.py",
    ),
    Fault(
        "account-new-key-not-kept-first",
        "self.state.save(account)",
        "del account",
        "test_account.py",
    ),
    Fault(
        "account-closed-and-still-used",
        """self.state.retire_account()
        return signer.kid""",
        "return signer.kid",
        "test_account.py",
    ),
    Fault(
        "http-cause-beside-the-context-overlooked",
        "for inner in (exc.__context__, exc.__cause__):",
        "for inner in (exc.__cause__, exc.__context__):",
        "test_transport_unreachable.py",
    ),
    Fault(
        "http-goes-on-in-parallel-after-a-failure",
        "self._turn = Lock()",
        "self._turn = nullcontext()",
        "test_issuer_orders.py",
    ),
    Fault(
        "challenges-all-at-once",
        "_let_pass(undecided, session.deadline)",
        "list(undecided)",
        "test_issuer_orders.py test_weak_servers.py",
    ),
    Fault(
        "http-nonce-not-tried-again",
        'if problem_kind(reply.problem) != "badNonce":',
        "if reply:",
        "test_transport.py",
    ),
    Fault(
        "challenges-never-one-by-one",
        "self._turn = Lock()",
        "self._turn = nullcontext()",
        "test_weak_servers.py",
    ),
    Fault(
        "http-follows-redirects-for-ever",
        "for _ in range(MAX_REDIRECTS):",
        "while True:",
        "hostile/test_transport.py",
    ),
    Fault(
        "http-reads-the-body-of-a-redirect",
        "if reply.redirect:\n                return reply",
        "if not reply:\n                return reply",
        "hostile/test_transport.py",
    ),
    Fault(
        "http-answer-without-limit",
        'message = f"{printable(url, 300)} sent more than {most} bytes."',
        "break",
        "test_transport.py",
    ),
    Fault(
        "http-head-without-limit",
        "if self._received > self.most:",
        "if self.most < 0:",
        "hostile/test_transport.py",
    ),
    Fault(
        "http-each-byte-has-its-own-timeout",
        "self._connection.settimeout(seconds_left(self._deadline))",
        "self._connection.settimeout(before)",
        "hostile/test_transport.py",
    ),
    Fault(
        "http-url-without-tls",
        'schemes = {"https", "http"} if local else {"https"}',
        'schemes = {"https", "http"}',
        "hostile/test_transport.py",
    ),
    Fault(
        "http-encoded-answer",
        'if coding.strip().lower() not in {"", "identity"}:',
        "if not coding:",
        "hostile/test_transport.py",
    ),
    Fault(
        "http-conversation-without-end",
        "if left <= 0:\n            message",
        "if limit is None:\n            message",
        "hostile/test_transport.py",
    ),
    Fault(
        "authorizations-without-limit",
        "if len(urls) > most:",
        "if most < 0:",
        "hostile/test_transport.py",
    ),
    Fault(
        "http-503-is-final",
        "{429, 500, 502, 503, 504}",
        "{429, 500, 502, 504}",
        "test_transport.py",
    ),
    Fault(
        "http-retry-after-of-years",
        "min(max(seconds, 0.0), 86400.0)",
        "max(seconds, 0.0)",
        "test_transport.py test_problem.py",
    ),
    Fault(
        "jws-nonce-encoded-anew",
        "header_cls = _Header",
        "header_cls = jws.Header",
        "test_transport.py",
    ),
    Fault(
        "jws-p384-as-p256",
        '== "secp384r1":',
        '== "secp521r1":',
        "test_issuer.py",
    ),
    # What was spent at a CA
    Fault(
        "ledger-never-waits",
        "return max(waits, key=lambda wait: wait.until or now, default=None)",
        "return None",
        "test_ledger.py",
    ),
    Fault(
        "ledger-never-waits-in-the-stories",
        "return max(waits, key=lambda wait: wait.until or now, default=None)",
        "return None",
        "test_simulation.py",
    ),
    Fault(
        "ledger-first-rung-for-ever",
        "delays[min(len(self.times), len(delays)) - 1]",
        "delays[0]",
        "test_ledger.py",
    ),
    Fault(
        "ledger-urgent-waits-a-day",
        "RETRY_DELAYS[-1] if urgent else RETRY_INTERVAL",
        "RETRY_INTERVAL",
        "test_ledger.py",
    ),
    Fault(
        "ledger-forgets-the-ca-asked",
        "at if self.until is None else max(at, self.until)",
        "at",
        "test_ledger.py",
    ),
    Fault(
        "ledger-believes-the-future",
        "tuple(at for at in item.times if at <= now)",
        "item.times",
        "test_ledger.py",
    ),
    Fault(
        "ledger-one-order-too-many",
        "len(used) >= limits.exact_set",
        "len(used) > limits.exact_set",
        "test_ledger.py",
    ),
    Fault(
        "ledger-forgets-this-week",
        "if at - old.at < WEEK + CLOCK_ERROR]",
        "if at < old.at]",
        "test_ledger.py",
    ),
    # Certificates that are there already
    Fault(
        "spare-rolled-back-used-again",
        "is_barred = has_failed or is_rolled_back(memory, digest)",
        "is_barred = has_failed",
        "test_spare.py test_run.py",
    ),
    Fault(
        "spare-that-failed-used-again",
        "is_barred = has_failed or is_rolled_back(memory, digest)",
        "is_barred = is_rolled_back(memory, digest)",
        "test_spare.py",
    ),
    Fault(
        "spare-without-key",
        "if adapters.store.is_key_usable(thumbprint(leaf))",
        "if thumbprint(leaf)",
        "test_run.py",
    ),
    Fault(
        "spare-older-than-the-one-in-use",
        "if end >= last}",
        "if end != last}",
        "test_spare.py",
    ),
    Fault(
        "spare-not-seen-forgotten",
        "return is_left and is_same and _would_do(snapshot, in_use)",
        "return False",
        "test_run.py",
    ),
    Fault(
        "put-back-never-said",
        "if times < MAX_RETURNS:",
        "if times < 2 * MAX_RETURNS:",
        "test_spare.py test_put_back.py",
    ),
    Fault(
        "put-back-for-ever",
        "if timedelta() <= now - row.at < WEEK]",
        "if row.at]",
        "test_spare.py",
    ),
    Fault(
        "advice-at-every-run",
        "if due.is_advised and (until := advised_until(snapshot)):",
        "if not due.due and (until := advised_until(snapshot)):",
        "test_spare.py test_run.py",
    ),
    Fault(
        "issued-and-unused-is-a-recovery",
        "or outcome.pending is not None or outcome.fault",
        "or False",
        "test_notice.py",
    ),
    Fault(
        "waiting-after-a-rollback-is-a-recovery",
        "pending=snapshot.pending.leaf if snapshot.pending else None,",
        "pending=None,",
        "test_notice.py",
    ),
    Fault(
        "check-keeps-a-rollback-to-itself",
        'text = f"a new certificate was rolled back on {at:%Y-%m-%d}"',
        "pass",
        "test_notice.py -k rollback",
    ),
    Fault(
        "bad-certificate-is-good",
        "if not bad or request.dry_run or request.issue_only:",
        "if bad or request.dry_run or request.issue_only:",
        "test_put_back.py test_patience.py",
    ),
    Fault(
        "crl-of-anybody",
        "if not signed or crl.issuer != leaf.issuer:",
        "if crl.issuer != leaf.issuer:",
        "test_crl.py",
    ),
    Fault(
        "crl-of-other-certificates",
        "url in [name.value for name in scope.full_name]",
        "bool(url)",
        "test_crl.py",
    ),
    Fault(
        "crl-of-last-year",
        "if following is None or following <= now:",
        "if following is None:",
        "test_crl.py",
    ),
    Fault(
        "crl-asked-at-every-run",
        "fresh = [row for row in memory.checked if timedelta() <= now - row.at < DAY]",
        "fresh = [row for row in memory.checked if row.at > now]",
        "test_run.py",
    ),
    # When a certificate is due
    Fault(
        "due-ten-days-are-no-short-life",
        "(2 if span <= SHORT_LIVED else 3)",
        "(2 if span < SHORT_LIVED else 3)",
        "test_due.py",
    ),
    Fault(
        "due-promised-in-the-past",
        "return None if due.due else due.at",
        "return due.at",
        "test_use.py",
    ),
    Fault(
        "hold-begins-when-it-is-over",
        "if is_self_signed(leaf) or until <= now:",
        "if is_self_signed(leaf):",
        "test_hold.py",
    ),
    Fault(
        "dry-run-agrees-to-terms",
        "outcome = outcome._replace(error=self._disagreement())",
        "pass",
        "test_renew.py -k dry_run",
    ),
    Fault(
        "dry-run-changes-though-it-only-issues",
        'if not (document["no_activate"] or document["held"]):',
        "if True:",
        "test_renew.py -k dry_run",
    ),
    Fault(
        "restart-of-today-not-said",
        "if request.scheduled and last and snapshot.now - last < RESTART_INTERVAL:",
        "if False:",
        "test_proof.py -k restart",
    ),
    Fault(
        "used-again-said-to-be-renewed",
        "return outcome._replace(ordered=pending is not None)",
        "return outcome._replace(ordered=True)",
        "test_put_back.py -k again",
    ),
    Fault(
        "due-window-missed",
        "return min(self.at, now) if following > self.end else self.at",
        "return self.at",
        "test_due.py",
    ),
    Fault(
        "due-window-missed-in-the-stories",
        "return min(self.at, now) if following > self.end else self.at",
        "return self.at",
        "test_simulation.py",
    ),
    Fault(
        "due-advice-held-for-years",
        "now < self.ask_again < now + timedelta(days=2)",
        "now < self.ask_again",
        "test_due.py",
    ),
    Fault(
        "due-name-taken-away-unnoticed",
        'changes += [f"without {name}" for name in sorted(held - added - set(names))]',
        "changes += []",
        "test_due.py",
    ),
    Fault(
        "due-name-that-the-ca-added-is-a-change",
        "added = twins(known.names if known else names)",
        "added = set(known.names[:0] if known else ())",
        "test_bad_input.py test_due.py",
    ),
    Fault(
        "due-name-taken-away-taken-for-added",
        "added = twins(known.names if known else names)",
        "added = twins(names)",
        "test_due.py",
    ),
    Fault(
        "due-other-key-unnoticed",
        "if key_type(certificate) != key:",
        "if not key_type(certificate):",
        "test_due.py",
    ),
    Fault(
        "due-at-every-run",
        "max(asked, earliest(certificate))",
        "asked",
        "test_due.py",
    ),
    Fault(
        "due-drops-a-name-that-works",
        "LOSABLE = timedelta(days=7)",
        "LOSABLE = timedelta(days=70)",
        "test_patience.py",
    ),
    Fault(
        "due-backstop-at-the-last-moment",
        "certificate.not_valid_after_utc - slack(lifetime(certificate))",
        "certificate.not_valid_after_utc - slack(lifetime(certificate)) / 30",
        "test_simulation.py",
    ),
    Fault(
        "plan-nothing-is-urgent",
        "URGENT = timedelta(days=3)",
        "URGENT = timedelta(0)",
        "test_run.py test_patience.py test_name_failure.py",
    ),
    Fault(
        "plan-nothing-is-urgent-in-the-stories",
        "URGENT = timedelta(days=3)",
        "URGENT = timedelta(0)",
        "test_simulation.py",
    ),
    Fault(
        "plan-other-certificate-unnoticed",
        "if memory.in_use and digest != memory.in_use:",
        "if memory.in_use and not digest:",
        "test_run.py test_revoke.py test_patience.py",
    ),
    Fault(
        "plan-pending-of-another-kind",
        "and key_type(pending.leaf) == request.key_type",
        "and key_type(pending.leaf) != ''",
        "test_run.py test_patience.py",
    ),
    Fault(
        "plan-compromised-key-used",
        "and not is_compromised(pending.leaf, snapshot.memory)",
        "",
        "test_revoke.py -k compromised",
    ),
    Fault(
        "plan-rolled-back-and-tried-at-once",
        "again = failed + RETRY_INTERVAL",
        "again = failed",
        "test_run.py test_deploy.py test_patience.py",
    ),
    Fault(
        "plan-failed-name-asked-at-once",
        "(item.paused or item.not_before(urgent=urgent) > now)",
        "item.paused",
        "test_name_failure.py test_patience.py",
    ),
    # Obtaining and revoking
    Fault(
        "obtain-certificate-not-kept",
        "adapters.ca.keep(certificate)",
        "adapters.ca.pending()",
        "test_run.py",
    ),
    Fault(
        "obtain-failure-not-written-down",
        "ca.save(ledger)",
        "ca.ledger()",
        "test_patience.py",
    ),
    Fault(
        "obtain-force-resumes",
        "_log_budget(snapshot)\n        adapters.ca.forget_order()",
        "_log_budget(snapshot)",
        "test_patience.py",
    ),
    Fault(
        "revoke-pending-kept",
        "public_key_hash(pending.leaf) == public_key_hash(leaf):",
        "not compromised:",
        "test_revoke.py",
    ),
    # Putting into use, and back
    Fault(
        "deploy-rollback-forgets-its-rungs",
        "snapshot = snapshot._replace(memory=adapters.state.load())",
        "_ = adapters.state.load()",
        "test_run.py -k learned",
    ),
    Fault(
        "deploy-without-a-note",
        "adapters.state.save(saved[-1])",
        "adapters.state.attempt()",
        "test_run.py test_deploy.py test_killed.py",
    ),
    Fault(
        "deploy-note-outlives-it",
        "adapters.state.forget_attempt()",
        "adapters.state.attempt()",
        "test_run.py test_deploy.py",
    ),
    Fault(
        "deploy-never-verified",
        "seen = utc(snapshot.now) if is_proven else issued.verified",
        "seen = issued.verified",
        "test_run.py test_deploy.py",
    ),
    Fault(
        "proof-banned-is-broken",
        "if not before or served.outcome is Answer.TURNED_AWAY:",
        "if not before:",
        "test_climb.py",
    ),
    Fault(
        "proof-unseen-before-is-broken",
        "if not before or served.outcome is Answer.TURNED_AWAY:",
        "if served.outcome is Answer.TURNED_AWAY:",
        "test_climb.py test_proof.py",
    ),
    Fault(
        "proof-stale-name-is-new",
        "if shown == {self.new}:",
        "if self.new in shown:",
        "test_climb.py test_proof.py",
    ),
    Fault(
        "proof-removes-while-unproven",
        "proof and proof.new and not proof.unproven and held is None",
        "proof and proof.new and held is None",
        "test_proof.py",
    ),
    Fault(
        "proof-named-port-may-be-unproven",
        "if request.given and proof and proof.unproven else None",
        "if not request and proof and proof.unproven else None",
        "test_proof.py",
    ),
    Fault(
        "ladder-waits-for-others",
        "return gentle if progress.old & set(rung.kinds) else Patience(0)",
        "return gentle",
        "test_ladder.py test_climb.py",
    ),
    Fault(
        "ladder-restarts-too-early",
        "return gentle if progress.changed else full",
        "return gentle",
        "test_ladder.py test_climb.py",
    ),
    Fault(
        "ladder-silent-restart-is-broken",
        "if progress.silent and is_restart(rung.name):",
        "if progress.silent and not rung.name:",
        "test_ladder.py test_climb.py",
    ),
    Fault(
        "climb-restarts-at-every-run",
        "(ladder.is_restart(name) and (recently or name in taken))",
        "(ladder.is_restart(name) and recently)",
        "test_climb.py",
    ),
    Fault(
        "climb-restarts-twice-a-day",
        "(ladder.is_restart(name) and (recently or name in taken))",
        "(ladder.is_restart(name) and name in taken)",
        "test_climb.py",
    ),
    Fault(
        "climb-connects-without-end",
        "and self._connections[at] < MAX_CONNECTIONS",
        "and self._connections[at] < 1000",
        "test_climb.py",
    ),
    Fault(
        "climb-counts-refused-connections",
        "self._connections[at] += served.is_listening",
        "self._connections[at] += 1",
        "test_climb.py",
    ),
    Fault(
        "observe-one-name",
        "MAX_NAMES if at in leaders.values() else 1",
        "1",
        "test_observe.py",
    ),
    Fault(
        "observe-one-kind-of-key",
        "return answer.leaf not in (None, usual.leaf)",
        "return False",
        "test_observe.py",
    ),
    Fault(
        "handshake-greeting-in-ten-seconds",
        "line.allow(timeout * GREETING_TIMEOUTS)",
        "line.allow(timeout)",
        "test_observe.py -k silent_ports",
    ),
    Fault(
        "deploy-broken-is-old",
        '"old" if shown <= {self.new, *self.ours} else "broken"',
        '"old" if shown <= {self.new, *self.ours} else "old"',
        "test_deploy.py",
    ),
    Fault(
        "deploy-others-ports-count",
        "(given or served.shown & set(ours))",
        "(snapshot.request.given or ours is not None)",
        "test_deploy.py test_run.py",
    ),
    Fault(
        "deploy-goes-on-when-broken",
        "return proof.is_complete or bool(wrong)",
        "return proof.is_complete",
        "test_deploy.py",
    ),
    Fault(
        "deploy-restarts-without-need",
        "if proof.is_complete and not blind:",
        "if blind:",
        "test_deploy.py",
    ),
    Fault(
        "rollback-killed-is-forgotten",
        "attempt._replace(undoing=True, rungs=())",
        "attempt._replace(undoing=False)",
        "test_run.py test_deploy.py test_killed.py",
    ),
    Fault(
        "remove-what-another-value-names",
        "            if digest not in used:",
        "            if used is not None:",
        "test_run.py",
    ),
    Fault(
        "intermediates-that-a-certificate-needs-are-removed",
        "if one not in needed or one.not_valid_after_utc <= now",
        "if True",
        "test_chain.py",
    ),
    Fault(
        "intermediates-added-are-not-remembered",
        "    known = tuple(dict.fromkeys([*before, *added]))",
        "    known = before",
        "test_removal.py",
    ),
    Fault(
        "compromised-removed-before-the-ca-is-told",
        "return is_told and due.is_compromised",
        "return due.is_compromised",
        "test_removal.py",
    ),
    Fault(
        "an-older-issuer-is-as-good-as-the-issued-one",
        "for sent in path[1:] if _is_twin(sent, one)",
        "for sent in path[:0] if _is_twin(sent, one)",
        "test_verdict.py",
    ),
    Fault(
        "a-bought-certificate-whose-key-the-server-cannot-read",
        "    adapters.store.let_read(thumbprint(leaf))\n",
        "",
        "test_hold.py test_removal.py",
    ),
    Fault(
        "selftest-task-is-python-alone",
        'tasks.install([*scheduling.isolated(), "--version"])',
        'tasks.install([sys.executable, "--version"])',
        "test_selftest.py",
    ),
    Fault(
        "selftest-task-queued-is-a-result",
        'job.last_result in {"", QUEUED, RUNNING}',
        'job.last_result in {"", RUNNING}',
        "test_selftest.py",
    ),
    Fault(
        "selftest-whatever-the-task-ends-with",
        "if job.last_code != 0:",
        "if False:",
        "test_selftest.py",
    ),
    Fault(
        "remove-what-is-not-ours",
        "        and is_ours\n        and leaf.not_valid_before",
        "        and leaf.not_valid_before",
        "test_run.py",
    ),
    # What is remembered
    Fault(
        "state-history-without-end",
        "[*others, item][-MAX_ISSUED:]",
        "[*others, item]",
        "test_folder.py",
    ),
    Fault(
        "state-key-not-sealed",
        "data = SEALED + self.seal.close(data)",
        "pass",
        "test_seal.py",
    ),
    Fault(
        "state-pending-with-another-key",
        "certificate.leaf.public_key() != certificate.key.public_key():",
        "not certificate.leaf:",
        "test_folder.py",
    ),
    Fault(
        "state-two-cas-mixed",
        'hashlib.sha256(directory_url.encode("utf-8", "replace"))',
        'hashlib.sha256(b"")',
        "test_folder.py",
    ),
    Fault(
        "state-rehearsals-mixed",
        'self.folder / "staging" if staging else self.folder',
        "self.folder",
        "test_folder.py",
    ),
    # Files and locks
    Fault(
        "files-readable-by-others",
        "PRIVATE, PUBLIC = 0o600, 0o644",
        "PRIVATE, PUBLIC = 0o644, 0o644",
        "test_handles.py",
    ),
    Fault(
        "files-link-of-another-account-followed",
        "link.st_uid not in {0, os.geteuid()}",
        "link.st_uid < 0",
        "test_files.py -k 'link'",
    ),
    Fault(
        "files-mode-depends-on-the-umask",
        "os.fchmod(handle, mode)  # in spite",
        "os.fstat(handle)  # in spite",
        "test_handles.py",
    ),
    Fault(
        "files-folder-depends-on-the-umask",
        "former = os.umask(0)",
        "former = os.umask(0o077)",
        "test_handles.py",
    ),
    Fault(
        "files-status-of-another-file",
        "if content == self.expected:",
        "if like:",
        "test_files.py -k 'only_root'",
    ),
    Fault(
        "files-second-name-written",
        "status.st_nlink == 1",
        "status.st_nlink",
        "test_files.py -k 'second_name'",
    ),
    Fault(
        "files-changed-by-name",
        "                disk.delete(lock)\n\n",
        "                lock.unlink()\n\n",
        "test_handles.py",
    ),
    Fault(
        "log-link-not-replaced",
        "        folder.remove(FILE_NAME)\n    try",
        "        folder.status(FILE_NAME)\n    try",
        "test_files.py -k 'log'",
    ),
    Fault(
        "config-of-any-size",
        'MAX_FILE_BYTES, "a config file"',
        '1 << 40, "a config file"',
        "test_settings.py -k 'limit'",
    ),
    Fault(
        "config-every-word-compared",
        "for name in known if few}",
        "for name in known}",
        "test_settings.py -k 'mistakes'",
    ),
    Fault("files-not-flushed", "if durable:", "if not data:", "test_files.py"),
    Fault("files-not-put-back", "item.undo()", "item.clean", "test_files.py"),
    Fault(
        "files-last-copy-removed",
        "if not self.is_stuck or path not in self.outs:",
        "if path:",
        "test_files.py",
    ),
    Fault(
        "files-read-only-replaced",
        "if not status.st_mode & 0o222:",
        "if not status.st_mode:",
        "test_files.py",
    ),
    Fault(
        "rollback-is-never-dry",
        "    if request.dry_run:\n        snapshot = snapshot.searched(adapters)",
        "    if request.force:\n        snapshot = snapshot.searched(adapters)",
        "test_renew.py",
    ),
    Fault(
        "rehearsals-are-put-into-use",
        "        if self.request.rehearse:\n",
        "        if self.request.force:\n",
        "test_renew.py",
    ),
    Fault(
        "status-asks-for-one-name",
        "installation = installation.look(installation.names())",
        "installation = installation.look(installation.names()[:1])",
        "test_verify_command.py",
    ),
    Fault(
        "carry-over-not-tried-again",
        "                    item.carry_over()\n                    continue\n",
        "                    raise Error('')\n",
        "test_carry_over.py",
    ),
    Fault(
        "carry-over-forgets-what-was-late",
        "self.outs[out], self.former, self.expected, self.data = before",
        "_ = before",
        "test_carry_over.py",
    ),
    Fault(
        "carry-over-needs-the-courtesy-lock",
        "except DeployError as exc:  # better without than not at all",
        "except ValueError as exc:",
        "test_carry_over.py",
    ),
    Fault(
        "killed-runs-leftovers-removed-unseen",
        "            kept.append(other)",
        "            disk.remove(other)",
        "test_carry_over.py",
    ),
    Fault(
        "refusals-not-heeded",
        "        raise refusal\n    return _act(",
        "        pass\n    return _act(",
        "test_unwritable.py",
    ),
    Fault(
        "refusals-not-shown-by-a-dry-run",
        "return outcome._replace(error=refusal) if request.dry_run else outcome",
        "return outcome",
        "test_unwritable.py",
    ),
    Fault(
        "refusals-of-an-immutable-file-not-seen",
        "elif matters and not os.access(path, os.W_OK):",
        "elif path.is_dir() and not os.access(path, os.W_OK):",
        "test_unwritable.py",
    ),
    Fault(
        "refusals-of-a-full-disk-not-seen",
        "elif system.f_blocks and not system.f_bfree:",
        "elif not system.f_bfree and not system.f_blocks:",
        "test_unwritable.py",
    ),
    Fault(
        "refusals-are-bugs",
        "(ConfigError if exc.errno in _REFUSALS else Error)",
        "Error",
        "test_unwritable.py test_folder.py",
    ),
    Fault(
        "refusals-after-issuance-are-settings",
        "if type(exc) not in {Error, ConfigError}:",
        "if type(exc) in {Error, ConfigError}:",
        "test_errors.py",
    ),
    Fault(
        "files-what-was-swapped-out-not-looked-at",
        "if late == base and current == self.data:",
        "if current == self.data:",
        "test_writers.py",
    ),
    Fault(
        "files-what-came-after-the-swap-not-looked-at",
        "if late == base and current == self.data:",
        "if late == base:",
        "test_writers.py",
    ),
    Fault(
        "files-brought-back-over-what-came-meanwhile",
        "            if self.content_of(out) == current:\n                return\n",
        "            return\n",
        "test_files.py",
    ),
    Fault(
        "files-lost-by-an-interrupted-swap",
        "if self.read() == self.data != self.content_of(self.fresh):",
        "if not self.fresh:",
        "test_files.py",
    ),
    Fault(
        "files-lost-by-an-interrupted-rename",
        "if target.exists() and fresh.exists():",
        "if target.exists():",
        "test_files.py",
    ),
    Fault(
        "files-late-changes-lost-at-the-end",
        "            edits.settle()\n",
        "            _ = edits\n",
        "test_writers.py",
    ),
    Fault(
        "files-newer-value-overwritten",
        " == _values(now.get(place)):\n            first",
        ":\n            first",
        "test_writers.py",
    ),
    Fault(
        "values-put-back-not-told",
        "strays = adapters.server.settle(leaf)",
        "strays = adapters.server.settle(None)",
        "test_deploy.py",
    ),
    Fault(
        "torn-file-believed-at-once",
        "if now - since >= BELIEVED_AFTER_SECONDS:",
        "if now >= since:",
        "test_discovery.py",
    ),
    Fault(
        "half-a-file-believed",
        "return is_short or not all(",
        "return not all(",
        "test_discovery.py",
    ),
    Fault(
        "unseen-value-does-not-stop-a-run",
        "if hidden and not any(ends):",
        "if hidden and any(ends):",
        "test_unseen_values.py",
    ),
    Fault(
        "unseen-value-does-not-keep-a-certificate",
        "for item in unseen if not item.is_gone]:",
        "for item in unseen if not unseen]:",
        "test_certificates.py",
    ),
    Fault(
        "gone-value-forgotten-silently",
        "if not self.unseen or outcome.error:",
        "if self.unseen or outcome.error:",
        "test_unseen_values.py",
    ),
    Fault(
        "files-read-without-limit",
        "if len(data) > limit:",
        "if not limit:",
        "test_files.py",
    ),
    Fault(
        "pipes-beside-a-file-are-read",
        "return path.is_file() and not path.is_symlink()",
        "return True",
        "test_files.py",
    ),
    Fault(
        "large-leftovers-are-kept-to-ourselves",
        "if content is None or (content and content not in contents):",
        "if content and content not in contents:",
        "test_carry_over.py",
    ),
    Fault(
        "backups-by-an-unescaped-name",
        "glob.escape(_path_inside(target).as_posix())",
        "_path_inside(target).as_posix()",
        "test_carry_over.py",
    ),
    Fault(
        "files-one-backup-too-many",
        "len(others) + 1 - backups.keep",
        "len(others) - backups.keep",
        "test_files.py",
    ),
    Fault(
        "lock-shared",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "test_files.py",
    ),
    Fault(
        "lock-of-another-removed",
        "if disk.read_limited(lock, len(token)) == token:",
        "if token:",
        "test_files.py",
    ),
    # The server's files
    Fault(
        "ini-hash-is-a-key",
        'key.startswith((";", "#"))',
        'key.startswith(";")',
        "test_ini.py",
    ),
    Fault(
        "ini-section-ends-at-first-bracket",
        'text.rindex("]")',
        'text.index("]")',
        "test_ini.py",
    ),
    Fault(
        "ini-last-equals-splits",
        'line.text.partition("=")',
        'line.text.rpartition("=")',
        "test_ini.py",
    ),
    Fault(
        "ini-not-read-back",
        " or after[places[entry]].value != value:",
        ":",
        "test_ini.py",
    ),
    Fault(
        "forms-never-backwards", "data = data[::-1]", "data = data[:]", "test_forms.py"
    ),
    Fault(
        "forms-inside-a-longer-word",
        'rf"(?:(?<!{_ALNUM})|(?<=0[xX]))", rf"(?!{_ALNUM})"',
        '"", ""',
        "test_forms.py",
    ),
    Fault(
        "forms-short-serial-number-found",
        "if source in _LENGTHS or not is_short:",
        "if source in _LENGTHS or is_short is not None:",
        "test_forms.py",
    ),
    Fault(
        "targets-mail-searched",
        '{"users", "queues", "logs", "public folders"}',
        '{"queues", "logs", "public folders"}',
        "test_discovery.py",
    ),
    Fault(
        "targets-link-followed-out",
        "if is_below(here / name, root):",
        "if root:",
        "test_discovery.py",
    ),
    Fault(
        "targets-two-values-are-one",
        "named[target] = found.pop() if len(found) == 1 else None",
        "named[target] = found.pop()",
        "test_discovery.py",
    ),
    Fault(
        "targets-put-back-by-value-only",
        "by_line.get((entry.line, entry.value), by_value[entry.value])",
        "by_value[entry.value]",
        "test_discovery.py",
    ),
    Fault(
        "semaphores-in-spite-of-the-lock",
        "if lock.exists():",
        "if not lock:",
        "test_folders.py",
    ),
    Fault(
        "task-that-is-hidden-taken-for-registered",
        'if self._query("/XML").code:',
        "if False:",
        "test_schedule.py",
    ),
    Fault(
        "task-unread-hides-the-rest",
        """if ended.code:
            # It stops""",
        """if False:
            # It stops""",
        "test_schedule.py",
    ),
    Fault(
        "schedule-of-another-folder",
        "if not _is_same(there, root):",
        "if False:",
        "test_check.py",
    ),
    Fault(
        "proxy-of-the-settings-not-used",
        "proxy=config.proxy, delay=delay",
        "delay=delay",
        "test_renew.py",
    ),
    Fault(
        "drive-of-one-account-scheduled",
        "if kind == REMOTE:",
        "if kind == 0:",
        "test_scheduling.py",
    ),
    Fault(
        "key-folder-for-users",
        "*[_USERS] * bool(mode & _OTHERS_READ)",
        "_USERS",
        "test_identity.py",
    ),
    Fault(
        "long-share-as-a-local-path",
        'if path.startswith("\\\\\\\\"):',
        "if False:",
        "test_identity.py",
    ),
    Fault(
        "service-disabled-and-stopped",
        "if service.is_disabled():",
        "if not status:",
        "test_service.py",
    ),
    Fault(
        "service-of-another-folder",
        "if PureWindowsPath(str(root)) in written.parents:",
        "if str(written).startswith(str(root)):",
        "test_service.py",
    ),
    Fault(
        "service-known-by-one-path-only",
        "each.samefile(root)",
        "each == root",
        "test_service.py",
    ),
    Fault(
        "service-left-while-it-still-stops",
        "STOPPING_FACTOR if status.state == STOP_PENDING else 1",
        "1",
        "test_service.py",
    ),
    Fault(
        "service-without-an-answer-is-left",
        "{NOT_ACTIVE, CANNOT_NOW, REQUEST_TIMEOUT}",
        "{NOT_ACTIVE, CANNOT_NOW}",
        "test_service.py",
    ),
    Fault(
        "restart-not-remembered-before-it-stops",
        "self.note(self.service.name)",
        "pass",
        "test_restart.py",
    ),
    Fault(
        "iis-sni-by-address",
        "if self.flags & _SNI:",
        "if not self.information:",
        "test_iis.py",
    ),
    Fault(
        "iis-not-read-back",
        "if now is None or now.thumbprint != digest:",
        "if now is None:",
        "test_iis.py",
    ),
    Fault(
        "iis-client-certificates-forgotten",
        "if before and (more := list(_differing(before, now))):",
        "if not before and (more := list(_differing(now, now))):",
        "test_iis.py",
    ),
    Fault(
        "iis-names-in-the-wrong-code-page",
        "self._appcmd, *arguments, failure=ConfigError, encoding=process.ANSI",
        "self._appcmd, *arguments, failure=ConfigError",
        "test_iis.py",
    ),
    Fault(
        "http-sys-unknown-is-none",
        "if ended.code and not found and not_found() not in words:",
        "if ended.code and not found and not words:",
        "test_iis.py",
    ),
    Fault(
        "others-are-not-asked",
        "        elsewhere=build.other_users,\n",
        "",
        "test_iis.py",
    ),
    Fault(
        "iis-central-store-touched",
        "if binding.flags & _CENTRAL:",
        "if not binding:",
        "test_iis.py",
    ),
    Fault(
        "webroot-others-file-removed",
        "text.startswith(disk.read_limited(file",
        "bool(disk.read_limited(file",
        "test_webroot.py",
    ),
    Fault(
        "webroot-token-opens-a-device",
        " and not _DEVICE.match(token)",
        "",
        "test_webroot.py",
    ),
    Fault(
        "webroot-token-nobody-can-read",
        "folder.create(file.name, text, mode=PUBLIC,",
        "folder.create(file.name, text, mode=0o600,",
        "test_webroot.py",
    ),
    Fault(
        "webroot-link-followed-out",
        "if not is_below(folder, self.folder):",
        "if not folder:",
        "test_webroot.py",
    ),
    # What the ports serve
    Fault(
        "starttls-injected-bytes-taken", "line.end()", "line.heard", "test_observe.py"
    ),
    Fault(
        "verifier-listens-without-limit",
        "if self.received > self.limit:",
        "if not self.limit:",
        "test_observe.py",
    ),
    Fault(
        "verifier-one-name-is-enough",
        "return self.thumbprint in thumbprints and all(others)",
        "return self.thumbprint in thumbprints and others is not None",
        "test_observe.py",
    ),
    Fault(
        "verifier-old-tls-is-fine",
        "if version in _OUTDATED:",
        "if not version:",
        "test_observe.py",
    ),
    Fault(
        "verifier-given-port-may-be-silent",
        "(at in given and at.url not in listening)",
        "not listening",
        "test_observe.py test_verify_command.py",
    ),
    Fault(
        "starttls-greeting-is-an-extension",
        "for line in text[1:]",
        "for line in text",
        "test_starttls.py",
    ),
    Fault(
        "starttls-after-preauth",
        'if status == [b"*", b"PREAUTH"]:',
        "if not status:",
        "test_observe.py -k imap",
    ),
    Fault(
        "chain-any-error-leads-to-a-root",
        "exc.errors[0] not in _NO_ROOT",
        "bool(exc.errors)",
        "test_chain.py",
    ),
    Fault(
        "endpoints-other-loopbacks-asked",
        "other = address.is_loopback and text not in LOOPBACK",
        "other = address.is_reserved",
        "test_endpoints.py",
    ),
    # Certificates and names
    Fault(
        "certificate-not-valid-yet",
        "if start > now:",
        "if start > end:",
        "test_certificate.py",
    ),
    Fault(
        "certificate-signed-by-a-leaf",
        "return constraints is not None and constraints.ca",
        "return True",
        "test_certificate.py",
    ),
    Fault(
        "certificate-with-more-names",
        "sorted(found - wanted - twins(wanted)) + ",
        "",
        "test_certificate.py",
    ),
    Fault(
        "certificate-for-another-key",
        "if public_key(leaf) != certificate.key.public_key():",
        "if not public_key(leaf):",
        "test_certificate.py",
    ),
    Fault(
        "certificate-shows-its-key",
        'return f"Certificate(chain={self.chain!r})"',
        'return f"Certificate({tuple(self)!r})"',
        "test_certificate.py",
    ),
    Fault(
        "names-top-level-number",
        "if labels[-1].isdigit():",
        "if not labels:",
        "test_names.py",
    ),
    Fault(
        "pem-key-of-another-certificate",
        "if key.public_key() == leaf.public_key():",
        "if key:",
        "test_store.py test_revoke.py",
    ),
    Fault(
        "pem-former-not-put-back",
        "disk.rename(replaced, final)",
        "replaced.exists()",
        "test_store.py",
    ),
    # Settings, and the command line
    Fault(
        "config-number-too-small",
        "not low <= int(text) <= high",
        "not int(text) <= high",
        "test_settings.py",
    ),
    Fault(
        "config-plain-http-to-anybody",
        "http://(localhost|",
        "http://([a-z.]+|",
        "test_settings.py",
    ),
    Fault(
        "config-shows-a-password",
        '"(set)" if row.secret and value else',
        '"(set)" if not row else',
        "test_settings.py",
    ),
    Fault(
        "config-empty-variable-counts", "elif text:", "elif where:", "test_settings.py"
    ),
    Fault(
        "config-target-outside",
        'if {"", ".."} & set(parts) or',
        "if",
        "test_settings.py",
    ),
    Fault(
        "legacy-case-counts",
        "if name.lower().startswith(prefix.lower())",
        "if name.startswith(prefix)",
        "test_legacy.py",
    ),
    Fault(
        "legacy-swallows-our-options",
        "if _OURS.match(waiting[0]) or _match(waiting[0]):",
        "if _match(waiting[0]):",
        "test_legacy.py",
    ),
    Fault(
        "cli-signal-ends-with-0",
        "sys.exit(128 + number)",
        "sys.exit(0)",
        "test_killed.py -k interrupted",
    ),
    Fault(
        "cli-shorthand-not-translated",
        "arguments = legacy.translate(arguments)",
        "legacy.translate(arguments)",
        "test_renew.py -k old_script",
    ),
    # A run's end, its log and its mail
    Fault(
        "run-every-error-is-1",
        "sys.exit(code)\n\n    def _consult",
        "sys.exit(1)\n\n    def _consult",
        "test_commands.py -k 'not demo'",
    ),
    Fault(
        "run-log-of-another-overwritten",
        "except BusyError:\n            raise",
        "except ZeroDivisionError:\n            raise",
        "test_bad_input.py -k second_run",
    ),
    Fault(
        "run-by-hand-counts-as-scheduled",
        "config.dry_run or config.force or config.ask_ca or config.staging",
        "config.dry_run",
        "test_status.py",
    ),
    Fault(
        "run-unexpected-error-without-a-trace",
        "self._file_log.emit_traceback(error)",
        "self._file_log.flush()",
        "test_bad_input.py -k 'not full_disk'",
    ),
    Fault(
        "run-event-with-insertions",
        're.sub(r"%(?=[\\d%])", "% ", entry)',
        "entry",
        "test_renew.py -k log",
    ),
    Fault(
        "words-of-others-as-they-are",
        "c if c.isprintable() else",
        "c if c else",
        "test_errors.py",
    ),
    Fault(
        "log-progress-written",
        'return not getattr(record, "progress", False)',
        "return bool(record)",
        "test_log.py",
    ),
    Fault(
        "log-one-too-few",
        "max(len(earlier) - keep, 0)",
        "max(len(earlier) - keep + 1, 0)",
        "test_log.py",
    ),
    Fault(
        "mail-password-without-tls",
        'self.user or client.has_extn("starttls")',
        'client.has_extn("starttls")',
        "test_mail.py",
    ),
    Fault("mail-login-to-anybody", "if not self.user:", "if self.url:", "test_mail.py"),
    Fault(
        "mail-header-ends-early",
        "re.sub('[<>]', ' ', value)",
        "value",
        "test_mail.py",
    ),
    # What is mailed, what is rehearsed, and what nobody reads
    Fault(
        "mail-the-same-failure-at-every-run",
        "if is_urgent(told, now.at) or _is_old(last[-1], now.at):",
        "if last:",
        "test_news.py",
    ),
    Fault(
        "mail-the-end-of-a-failure-twice",
        "is_open = bool(told.failure) or (",
        "is_open = told.open or (",
        "test_news.py",
    ),
    Fault(
        "mail-a-run-that-waits-is-good",
        "elif now.failure is not None:",
        "else:",
        "test_news.py",
    ),
    Fault(
        "mail-a-dropped-name-at-every-run",
        "told = told._replace(dropped=now.dropped)",
        "pass",
        "test_news.py",
    ),
    Fault(
        "mail-that-nobody-wants-a-name-is-news",
        "wanted = tuple(name for name in told.dropped if name in now.names)",
        "wanted = told.dropped",
        "test_news.py",
    ),
    Fault(
        "mail-a-limit-of-the-time-left-twice",
        "limits=_limits(told, now.at), open=is_open",
        "limits=told.limits, open=is_open",
        "test_news.py",
    ),
    Fault(
        "mail-a-clock-set-back-silences",
        "return not timedelta() <= now - row.at < PAUSE",
        "return not now - row.at < PAUSE",
        "test_news.py",
    ),
    Fault(
        "mail-to-who-typed-it",
        'if context.is_typed and not {"to", "notify-file"} & context.options.keys():',
        "if context.is_typed and not context.options:",
        "test_notice.py -k typed",
    ),
    Fault(
        "mail-nobody-about-a-file-that-is-no-ini",
        "return mail, problems",
        "return {}, problems",
        "test_notice.py -k whom_they_name",
    ),
    Fault(
        "mail-the-failure-and-its-log",
        "self._tell(error, findings, lines)",
        "self._tell(error, findings, list(self._lines))",
        "test_notice.py -k each_thing",
    ),
    Fault(
        "mail-a-url-that-is-cut",
        "return f\"{start.rpartition(' ')[0] or start}...\"",
        'return f"{start}..."',
        "test_letter.py",
    ),
    Fault(
        "mail-a-list-that-hides-how-many",
        "if rest else 0) > room:",
        "if rest else 0) > 2 * room:",
        "test_letter.py",
    ),
    Fault(
        "mail-a-next-run-that-nobody-scheduled",
        "AGAIN if about.scheduled else NOTHING",
        "AGAIN if about else NOTHING",
        "test_notice.py -k again",
    ),
    Fault(
        "report-a-semaphore-with-a-name-of-its-own-is-shown",
        "stem if stem in _SEMAPHORES else MASK",
        "stem",
        "test_report.py test_shape.py",
    ),
    Fault(
        "report-an-account-is-shown",
        "else ACCOUNT",
        "else text",
        "test_report.py -k sid",
    ),
    Fault(
        "report-the-words-of-an-error-are-shown",
        "found += _CODE.findall(str(error))",
        "found.append(str(error))",
        "test_report.py -k error",
    ),
    Fault(
        "report-the-options-of-a-job-with-their-values",
        "[name for name in options if name in job.command]",
        "job.command.split()",
        "test_report.py -k names_anybody",
    ),
    Fault(
        "report-one-section-hides-the-others",
        "unread[name] = masks.codes(exc)",
        "raise",
        "test_report.py -k cannot_be_read",
    ),
    Fault(
        "script-a-path-breaks-out-of-its-quotes",
        """.replace("'", "''")""",
        """.replace("'", "'")""",
        "test_drop_in.py -k breaks_out",
    ),
    Fault(
        "script-a-curly-quote-ends-a-text",
        "if not 0x20 <= unit < 0x7F:",
        "if not 0x20 <= unit < 0x7F and unit != 0x2019:",
        "test_drop_in.py -k breaks_out",
    ),
    Fault(
        "script-a-program-that-does-not-start-succeeds",
        "$global:LASTEXITCODE = 1",
        "$global:LASTEXITCODE = 0",
        "test_drop_in.py -k exit_code",
    ),
    Fault(
        "script-ours-is-taken-for-the-vendor-s",
        "if drop_in.is_run_by(text) is ours",
        "if ours is False",
        "test_drop_in.py -k runs_our_script",
    ),
    Fault(
        "script-one-of-several-is-enough",
        "bool(found) and all(map(_runs_us, found))",
        "bool(found) and any(map(_runs_us, found))",
        "test_drop_in.py -k another_script",
    ),
    Fault(
        "removal-takes-the-script-of-another-installation",
        "    return is_ours(path) and line.lower() in _read(path).lower()",
        "    return is_ours(path)",
        "test_footprint.py -k script_of_another_installation",
    ),
    Fault(
        "removal-takes-the-task-of-another-installation",
        '    if not f"{job.command} ".casefold().startswith(f"{ours} "):',
        "    if not job.command:",
        "test_footprint.py -k task_of_another_installation",
    ),
    Fault(
        "removal-leaves-a-script-that-runs-a-program-that-is-gone",
        "        done += footprint.remove_script(loaded, root, program)",
        "        pass",
        "test_footprint.py -k vendors_returns",
    ),
    Fault(
        "script-written-where-others-can-change-it",
        "scheduling.program(loaded, root, *trusted(root))",
        "scheduling.program(loaded, root)",
        "test_script.py -k others_can_change",
    ),
    Fault(
        "script-one-of-others-is-put-back",
        "trust.require_script(kept, root)",
        "pass",
        "test_script.py -k others_made",
    ),
    Fault(
        "script-the-vendor-s-is-lost",
        "folder.rename(keep_as, place.name)",
        "pass",
        "test_script.py -k stays_where",
    ),
    Fault(
        "script-an-update-goes-unnoticed",
        "if not drop_in.is_ours(place):",
        "if False:",
        "test_script.py -k notice",
    ),
    Fault(
        "schedule-without-its-mark",
        '(*program(loaded, root), "renew", MARK, *flags)',
        '(*program(loaded, root), "renew", *flags)',
        "test_schedule.py -k installs_itself",
    ),
    Fault(
        "schedule-a-person-without-a-terminal",
        "return schedule.MARK in self.job.command",
        "return False",
        "test_notice.py -k persons",
    ),
    Fault(
        "rehearsal-former-validations-count",
        "if renounce(order, most):",
        "if most < 0:",
        "test_rehearsal.py -k former",
    ),
    Fault(
        "rehearsal-used-up-by-a-service-that-is-down",
        "said, is_known = {}, False",
        "said, is_known = {}, True",
        "test_rehearsal.py -k again",
    ),
    Fault(
        "rehearsal-asks-for-consent-once-more",
        "agrees = installation.config.agree_tos or bool(account and account.url)",
        "agrees = installation.config.agree_tos",
        "test_rehearsal.py -k consent",
    ),
    Fault(
        "rehearsal-at-every-run",
        "if last is None or last.thumbprint != thumbprint(leaf):",
        "if leaf:",
        "test_rehearsal.py -k afresh",
    ),
    Fault(
        "rehearsal-too-early",
        "not due - lifetime(leaf) / PART <= now < due",
        "not now < due",
        "test_rehearsal.py -k tenth",
    ),
    Fault(
        "stream-closed-pipe-fails",
        "if exc.errno not in NOBODY_READS:",
        "if exc.errno:",
        "test_streams.py -k of_a_command",
    ),
    Fault(
        "stream-missing-stays-so",
        "        if stream is None:\n            # Else",
        "        if not name:\n            # Else",
        "test_streams.py -k missing",
    ),
    # The schedule, and who may do what
    Fault(
        "cron-percent-ends-the-command",
        '.replace("%", r"\\%")',
        "",
        "test_schedule.py test_scheduler.py",
    ),
    Fault(
        "cron-comment-is-ours",
        ' and not line.startswith("#")',
        "",
        "test_schedule.py test_scheduler.py",
    ),
    Fault(
        "task-of-another-replaced",
        'found.findtext(".//{*}Source") != NAME',
        "found is None",
        "test_schedule.py test_scheduler.py",
    ),
    Fault(
        "access-inherit-only-counts",
        'else "IO" not in marks:',
        "else kind:",
        "test_access.py",
    ),
    Fault(
        "access-generic-rights-ignored",
        "if mask & generic:",
        "if not mask:",
        "test_access.py",
    ),
    Fault(
        "access-not-read-back",
        "if not is_private(found, sids):",
        "if not found:",
        "test_access.py",
    ),
    Fault(
        "access-rights-for-children-do-not-count",
        "for inherited in (False,) if is_parent else (False, True):",
        "for inherited in (False,):",
        "test_access.py",
    ),
    Fault(
        "access-of-a-parent-all-rights-count",
        "rights, found = EXCHANGE if is_parent else CHANGE, {}",
        "rights, found = CHANGE, {}",
        "test_access.py test_trust.py",
    ),
    Fault(
        "access-the-owner-does-not-count",
        "if not access.is_trusted(owner, self._trusted):",
        "if not owner:",
        "test_trust.py",
    ),
    Fault(
        "state-a-junction-is-followed",
        "attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT",
        "attributes & 0",
        "test_trust.py",
    ),
    # Other users of this machine
    Fault(
        "state-of-others-is-read",
        "    trust.require_state(folder, root)\n    if sys",
        "    if sys",
        "hostile/test_state_folder.py",
    ),
    Fault(
        "state-planted-after-the-check-is-used",
        "    # Between the check and now others may have made it.\n"
        "    require_state(folder, root)\n",
        "",
        "hostile/test_state_folder.py -k after_the_check",
    ),
    Fault(
        "state-the-content-is-not-looked-at",
        "found = found or owners.content_doubts(folder, trusted)",
        "found = list(found)",
        "hostile/test_state_folder.py -k file",
    ),
    Fault(
        "state-a-parent-open-to-all-is-fine",
        "0 if status.st_mode & stat.S_ISVTX else status.st_mode & _OTHERS_WRITE",
        "0",
        "hostile/test_state_folder.py -k parent",
    ),
    Fault(
        "state-the-sticky-bit-does-not-help",
        "0 if status.st_mode & stat.S_ISVTX else status.st_mode & _OTHERS_WRITE",
        "status.st_mode & _OTHERS_WRITE",
        "hostile/test_state_folder.py -k tmp",
    ),
    Fault(
        "raw-queue-of-others-gets-the-mail",
        "    if folders.is_below(queue, root):\n        return queue",
        "    return queue",
        "hostile/test_raw_queue.py",
    ),
    Fault(
        "scheduled-line-with-line-breaks",
        "if _CONTROL.search(line):",
        "if not line:",
        "test_schedule.py hostile/test_commands.py",
    ),
    Fault(
        "scheduled-backslash-before-a-percent-sign",
        r'if re.search(r"\\[\\%]", text):',
        "if not text:",
        "test_schedule.py",
    ),
    Fault(
        "scheduled-task-with-a-variable",
        'if re.search("%[^%]+%", text):',
        "if not text:",
        "test_schedule.py",
    ),
    Fault(
        "scheduled-python-looks-into-the-working-directory",
        '[sys.executable, "-I", "-m", "letsencrypt_mdaemon"]',
        '[sys.executable, "-m", "letsencrypt_mdaemon"]',
        "hostile/test_commands.py",
    ),
    Fault(
        "shape-shows-every-name",
        "return text if not text or _NAME.fullmatch(text) else MASK",
        "return text",
        "test_shape.py",
    ),
    Fault(
        "shape-shows-what-is-between-certificates",
        'return text if re.fullmatch(r"[ ,;|]{0,2}", text) else TEXT',
        "return text",
        "test_shape.py",
    ),
    Fault(
        "shape-shows-the-host",
        '["generator"] | {"host": None}',
        '["generator"]',
        "test_shape.py",
    ),
    Fault(
        "shape-warns-with-paths",
        "logging.disable(logging.WARNING)",
        "logging.disable(logging.DEBUG)",
        "test_shape.py",
    ),
    Fault(
        "the-verdict-of-a-failure-is-missing",
        '"verdict": report.first_sentence(error.message),',
        "",
        "test_schemas.py",
    ),
    Fault(
        "demo-looks-into-the-working-directory",
        '["-I", "-X", "utf8", "-c", _START,',
        '["-X", "utf8", "-c", _START,',
        "hostile/test_commands.py",
    ),
    # The doctor
    Fault(
        "caa-of-another-account",
        "if accounts and accounts != [authority.account]:",
        "if accounts is None:",
        "test_examination.py",
    ),
    Fault(
        "caa-critical-ignored",
        "item.flags & _CRITICAL",
        "not item",
        "test_examination.py",
    ),
    Fault(
        "caa-malformed-is-fine",
        "if len(parameters) < len(rest):",
        "if not domain and rest is None:",
        "test_examination.py",
    ),
    Fault(
        "dns-answered-by-somebody-else",
        "if not response.flags & dns.flags.AA and",
        "if not response.flags and",
        "test_examination.py",
    ),
    Fault(
        "dns-glue-of-another-zone",
        "if rrset.rdtype in (A, AAAA) and rrset.name.is_subdomain(zone):",
        "if rrset.rdtype in (A, AAAA):",
        "test_examination.py",
    ),
    Fault(
        "dns-private-address-is-public",
        "is_global and not value.is_multicast",
        "is_global or value.is_private",
        "test_examination.py test_doctor_command.py",
    ),
    Fault(
        "validator-redirects-without-end",
        "if len(urls) > MAX_REDIRECTS or",
        "if len(urls) > 99 or",
        "test_examination.py",
    ),
    Fault(
        "validator-any-port",
        "if port not in (None, _PORTS[scheme]):",
        "if not scheme:",
        "test_examination.py",
    ),
    Fault(
        "validator-long-body-is-fine",
        "if len(body) < MAX_BODY_BYTES and text == expected:",
        "if text == expected[: len(text)]:",
        "test_examination.py",
    ),
    Fault(
        "findings-words-as-they-are",
        'object.__setattr__(self, "seen", printable(self.seen, MAX_SEEN_CHARACTERS))',
        "str(self.seen)",
        "test_examination.py test_doctor_command.py",
    ),
    Fault(
        "findings-certain-is-a-warning",
        "Weight.FAILURE if self.certain else self.kind.weight",
        "self.kind.weight",
        "test_examination.py test_doctor_command.py",
    ),
    Fault(
        "selftest-key-left-behind",
        "finally:\n        store.remove(digest)",
        "finally:\n        str(digest)",
        "test_selftest.py",
    ),
    # Setup
    Fault(
        "setup-is-ready-though-a-port-is-down",
        "self.error = self.error or error",
        "pass",
        "test_setup.py",
    ),
    Fault(
        "setup-is-ready-though-a-renewal-waits",
        "self.error = outcome.error",
        "pass",
        "test_setup.py",
    ),
    Fault(
        "setup-leaves-out-what-the-environment-sets",
        "{**_environment(loaded), **options}.items()",
        "options.items()",
        "test_setup.py",
    ),
    Fault(
        "setup-writes-secrets-of-the-environment",
        "if not dict(load.settings())[name].secret",
        "if name",
        "test_setup.py",
    ),
    Fault(
        "setup-schedules-without-a-secret-of-the-environment",
        'if secret and not {name, f"{name}-file"} & scheduled.origins.keys():',
        "if not name:",
        "test_setup.py",
    ),
    Fault(
        "setup-sends-the-test-mail-every-time",
        "if not self.is_mailing:",
        "if False:",
        "test_setup.py",
    ),
    Fault(
        "a-step-of-setup-is-printed-behind-the-progress-line",
        """    log.erase_progress()
    text.say(""",
        "    text.say(",
        "test_terminals.py",
    ),
    Fault(
        "help-breaks-lines-at-hyphens",
        'return text.replace("-", _NO_BREAK)',
        "return text",
        "test_help.py",
    ),
    Fault(
        "options-are-suggested-that-are-not-close",
        "cutoff=CLOSE)",
        "cutoff=0.6)",
        "test_help.py",
    ),
    Fault(
        "any-number-is-in-bounds",
        "if low <= found <= high:",
        "if True:",
        "test_help.py",
    ),
    # Reports on many servers
    Fault(
        "report-a-foreign-word-is-html",
        "child if isinstance(child, _Html) else html.escape(child)",
        "child",
        "test_html.py",
    ),
    Fault(
        "report-a-foreign-word-is-a-formula",
        'return _FORMULA.sub("\'", text)',
        "return text",
        "test_csv.py",
    ),
    Fault(
        "report-a-file-of-any-size-is-read",
        "data = handles.read(handle, MAX_FILE_BYTES + 1)",
        "data = handles.read(handle, MAX_FILE_BYTES)",
        "test_fleet.py",
    ),
    Fault(
        "report-a-link-is-opened",
        "_must_be_file(folder.status(name))",
        "_ = folder.status(name)",
        "test_fleet.py",
    ),
    Fault(
        "report-old-news-is-good-news",
        "if age > MAX_AGE:",
        "if False:",
        "test_collected.py",
    ),
    Fault(
        "report-a-check-is-not-added",
        "both = with_problems(server, check.problems)",
        "both = server",
        "test_fleet.py",
    ),
    Fault(
        "report-unknown-hides-critical",
        "_RANKS = (Grade.OK, Grade.WARNING, Grade.UNKNOWN, Grade.CRITICAL)",
        "_RANKS = (Grade.OK, Grade.WARNING, Grade.CRITICAL, Grade.UNKNOWN)",
        "test_collected.py",
    ),
    Fault(
        "report-goes-through-a-link",
        "if not stat.S_ISREG(former.st_mode):",
        "if False:",
        "test_publish.py",
    ),
    Fault(
        "report-a-rollout-passes-a-limit",
        "most = (rate.number - 1) * buckets + 1",
        "most = rate.number * buckets",
        "test_rollout.py",
    ),
    Fault(
        "sts-a-star-stands-for-any-labels",
        'return host.partition(".")[2] == pattern[2:]',
        "return host.endswith(pattern[1:])",
        "policy/test_mta_sts.py",
    ),
    Fault(
        "sts-a-redirect-is-a-policy",
        "if status in range(300, 400):",
        "if False:",
        "policy/test_mta_sts.py",
    ),
    Fault(
        "sts-a-needed-name-is-dropped",
        "{*snapshot.request.names[1:]} - {*snapshot.request.needed}",
        "{*snapshot.request.names[1:]}",
        "app/test_mail_checkup.py",
    ),
    Fault(
        "sts-a-needed-name-is-forgotten-with-the-policy-host",
        "return got_none or bool(self.fault) or not self.mx.is_known",
        "return bool(self.fault) or not self.mx.is_known",
        "app/test_mail_checkup.py",
    ),
    Fault(
        "sts-an-enforced-policy-only-warns",
        "weight = code.weight if is_enforced else Weight.WARNING",
        "weight = Weight.WARNING",
        "app/test_mail_checkup.py",
    ),
    # DNSSEC and DANE
    Fault(
        "dnssec-another-root-is-believed",
        "if any(signatures.is_of(zone.name, key, row) for row in hashes):",
        "if True:",
        "policy/test_validator.py",
    ),
    Fault(
        "dnssec-signatures-last-for-ever",
        "found, (found.name, rows), {zone: tried}, now=now",
        "found, (found.name, rows), {zone: tried}, now=item.inception",
        "policy/test_validator.py",
    ),
    Fault(
        "dnssec-a-wildcard-stands-for-any-name",
        "if item.labels < len(found.name) - 1 - found.name.is_wild():",
        "if found.name.is_wild():",
        "policy/test_validator.py",
    ),
    Fault(
        "dnssec-a-zone-is-unsigned-without-proof",
        "if is_unsigned_cut(zone.name, self._denials(response, zone), cut):",
        "if True:",
        "policy/test_validator.py",
    ),
    Fault(
        "dnssec-any-nsec-denies",
        "r for r in rows if _is_within(r, name) and r.covers(name)",
        "r for r in rows",
        "policy/test_validator.py",
    ),
    Fault(
        "dnssec-a-denial-needs-no-signature",
        """                _log.debug("%s", exc)
                continue
            found.append(rrset)""",
        """                _log.debug("%s", exc)
            found.append(rrset)""",
        "policy/test_validator.py",
    ),
    Fault(
        "tlsa-of-one-server-counts",
        "frozenset.intersection(*seen), frozenset.union(*seen)",
        "frozenset.union(*seen), frozenset.union(*seen)",
        "policy/test_dane.py",
    ),
    Fault(
        "tlsa-the-first-hundred-as-they-come",
        "frozenset(sorted(rows)[:MAX_RECORDS])",
        "frozenset(sorted(rows))",
        "policy/test_dane.py",
    ),
    Fault(
        "tlsa-of-an-unsigned-host-counts",
        "if alias.state is not State.SECURE or not alias.rdatas:",
        "if not alias:",
        "policy/test_dane.py",
    ),
    Fault(
        "tlsa-an-unknown-matching-type-matches",
        "return kind is not None and kind(data).hexdigest() == self.digest",
        'return (kind(data).hexdigest() if kind else "") == self.digest',
        "pki/test_tlsa.py",
    ),
    Fault(
        "tlsa-of-an-issuer-fits-any-name",
        "return covers(chain[0], host) and any(",
        "return any(",
        "pki/test_tlsa.py",
    ),
    Fault(
        "dane-a-record-counts-at-once",
        "if counts > now:",
        "if False:",
        "renewal/test_dane.py",
    ),
    Fault(
        "dane-only-the-ttl-of-now-counts",
        "wait = timedelta(seconds=max(ttl, old.ttl if old else 0))",
        "wait = timedelta(seconds=ttl)",
        "renewal/test_dane.py",
    ),
    Fault(
        "dane-the-last-answer-counts-for-ever",
        "if timedelta() <= now - pin.at <= KEPT",
        "if timedelta() <= now - pin.at",
        "renewal/test_dane.py",
    ),
    Fault(
        "dane-it-waits-for-ever",
        "if left is Left.LAST:",
        "if False:",
        "renewal/test_dane.py",
    ),
    Fault(
        "dane-a-rollback-is-not-guarded",
        "refusal = refusal or verdict.refusal",
        "refusal = refusal or None",
        "renewal/test_guard.py",
    ),
    Fault(
        "dane-a-choice-is-not-guarded",
        """    verdict = guard.judge(snapshot, leaf, adapters, asked=True)
    if verdict.refusal is not None:""",
        """    verdict = guard.judge(snapshot, leaf, adapters, asked=True)
    if not verdict:""",
        "renewal/test_guard.py",
    ),
    Fault(
        "dane-a-spare-is-not-guarded",
        "and (asked or dane.may_use(snapshot, _chain(leaf, adapters)))",
        "",
        "renewal/test_guard.py",
    ),
    Fault(
        "dane-the-next-key-is-used-again",
        "return None if record in used or is_spoiled else key",
        "return None if is_spoiled else key",
        "renewal/test_guard.py",
    ),
    Fault(
        "dane-orders-again-and-again",
        "if of_key(pending.key) == of_key(known.current):",
        "if not known:",
        "renewal/test_guard.py",
    ),
    Fault(
        "next-key-is-not-sealed",
        '_WITH_KEY = {"account.json", "order.json", "pending.pem", "next-key.json"}',
        '_WITH_KEY = {"account.json", "order.json", "pending.pem"}',
        "test_seal.py",
    ),
)


def main(names: Sequence[str]) -> int:
    """Try the faults of these names, or all; return the exit code."""
    known = {fault.name: fault for fault in FAULTS}
    if unknown := [name for name in names if name not in known]:
        print(f"There is no fault {', '.join(unknown)}.", file=sys.stderr)  # noqa: T201
        return 2
    faults = [known[name] for name in names or known]
    words = {word for fault in faults for word in shlex.split(fault.tests)}
    files = sorted(word for word in words if word.endswith(".py"))
    # Else a fault would be "noticed" by a test that fails anyway.
    whole = Fault("(none)", "", "", " ".join(["-n", str(AT_ONCE), *files]))
    width = max(len(fault.name) for fault in (whole, *faults))
    wrong = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = itertools.chain([tried(whole)], pool.map(tried, faults))
        for fault, (noticed, said, seconds) in zip(
            (whole, *faults), results, strict=True
        ):
            wrong += noticed == (fault is whole)
            print(f"{fault.name:{width}}  {seconds:5.1f} s  {said}", flush=True)  # noqa: T201
    print(f"{len(faults)} faults; not as it should be: {wrong}")  # noqa: T201
    return int(wrong > 0)


def tried(fault: Fault) -> tuple[bool, str, float]:
    """Try one fault: whether it was noticed, by what, and the seconds that took."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fault-") as name:
        folder = Path(name)
        copy(folder)
        try:
            spoil(folder / PACKAGE, fault)
            noticed, said = noticed_by(folder, fault.tests)
        except ValueError as exc:
            noticed, said = False, f"NOT APPLIED: {exc}"
    return noticed, said, time.monotonic() - start


def copy(folder: Path) -> None:
    """Copy the checkout, as far as tests look at it."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    for path in CHECKOUT.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            shutil.copytree(path, folder / path.name, ignore=ignored)
        elif path.is_file():
            shutil.copy(path, folder / path.name)


def spoil(package: Path, fault: Fault) -> None:
    """Make the fault.

    Raises:
        ValueError: If its text does not stand exactly once in the package.
    """
    if not fault.text:
        return
    found = {}
    for path in package.rglob("*.py"):
        if count := (text := path.read_text("utf-8")).count(fault.text):
            found[path] = count, text
    if [count for count, _ in found.values()] != [1]:
        times = sum(count for count, _ in found.values())
        raise ValueError(f"{fault.text!r} stands {times} times in the package")
    ((path, (_, text)),) = found.items()
    path.write_text(text.replace(fault.text, fault.wrong), "utf-8")


def noticed_by(folder: Path, tests: str) -> tuple[bool, str]:
    """Run some tests there; return whether one failed, and which was the first.

    Raises:
        ValueError: If there is no such test.
    """
    arguments: list[str] = []
    for word in shlex.split(tests):
        found = (folder / "tests").rglob(word) if word.endswith(".py") else ()
        here = [path.relative_to(folder) for path in found]
        files = [
            path.as_posix()
            for path in here
            if not path.relative_to("tests").as_posix().startswith(ELSEWHERE)
        ]
        if word.endswith(".py") and not files:
            raise ValueError(f"there is no {word}")
        arguments += files or [word]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    options = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=folder,
            env={**environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=HANG_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"NOT NOTICED in {HANG_SECONDS:.0f} s"
    if done.returncode == 0:
        return False, "NOT NOTICED"
    first = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if first is None:
        raise ValueError(f"pytest ended with {done.returncode}")
    return True, first[1].removeprefix("tests/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
