"""Dovecot, Postfix and nginx with a certificate that can be changed; web servers."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from letsencrypt_mdaemon.pki.certificate import Certificate
from tests.limits import HANG_SECONDS

DOVECOT = """\
protocols = imap pop3
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
ssl = yes
ssl_cert = <{folder}/fullchain.pem
ssl_key = <{folder}/privkey.pem
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = daemon
service imap-login {{
  chroot =
}}
service pop3-login {{
  chroot =
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
"""
POSTFIX = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
shlib_directory = /usr/lib/postfix
daemon_directory = /usr/lib/postfix/sbin
mail_owner = daemon
setgid_group = mail
default_privs = nobody
myhostname = mail.example.test
mydestination =
alias_maps =
local_recipient_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file = {folder}/log
maillog_file_prefixes = /
smtpd_tls_cert_file = {folder}/fullchain.pem
smtpd_tls_key_file = {folder}/privkey.pem
smtpd_tls_security_level = may
smtpd_relay_restrictions = reject
"""
POSTFIX_SERVICES = """\
25 inet n - n - - smtpd
587 inet n - n - - smtpd -o smtpd_tls_security_level=encrypt
465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
anvil unix - - n - 1 anvil
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
proxymap unix - - n - - proxymap
"""
NGINX_FOR = """\
daemon off;
user root;
pid {folder}/pid;
error_log {folder}/log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{config}
}}
"""
NGINX = NGINX_FOR.replace(
    "{config}",
    """\
  server {{
    listen 127.0.0.1:443 ssl;
    listen 127.0.0.1:444 ssl;
    ssl_certificate {folder}/fullchain.pem;
    ssl_certificate_key {folder}/privkey.pem;
  }}""",
)

WEB_SERVERS = {
    "nginx": (
        ("/usr/sbin/nginx", "-e", "{folder}/log", "-c", "{folder}/config"),
        NGINX_FOR,
    ),
    "apache": (
        ("/usr/sbin/apache2", "-D", "FOREGROUND", "-f", "{folder}/config"),
        """\
ServerRoot {folder}
PidFile {folder}/pid
ErrorLog {folder}/log
Listen 80
ServerName web.example.com
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
User daemon
Group daemon
Mutex posixsem
<Directory />
  Require all denied
</Directory>
{config}
""",
    ),
    "haproxy": (
        ("/usr/sbin/haproxy", "-db", "-f", "{folder}/config"),
        """\
defaults
  timeout connect 5s
  timeout client 5s
  timeout server 5s
{config}
""",
    ),
}
"""Kind -> its command, and what its configuration needs to run for these tests."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """A running server.

    Args:
        endpoints: Where it speaks TLS.
        reload: Makes it use the certificate in its folder.
    """

    folder: Path
    endpoints: tuple[str, ...]
    reload: Callable[[], None]

    def use(self, certificate: Certificate) -> None:
        """Give it another certificate and make it use that."""
        _write(self.folder, certificate)
        self.reload()


@contextmanager
def dovecot(folder: Path, certificate: Certificate) -> Iterator[MailServer]:
    """Run Dovecot for IMAP and POP3."""
    _write(folder, certificate)
    config = folder / "dovecot.conf"
    config.write_text(DOVECOT.format(folder=folder), "ascii")
    command = ["/usr/sbin/dovecot", "-F", "-c", str(config)]
    with _running(command, folder, ports=(143, 993, 110, 995)):
        yield MailServer(
            folder,
            (
                *("imap+starttls://127.0.0.1:143", "imaps://127.0.0.1:993"),
                *("pop3+stls://127.0.0.1:110", "pop3s://127.0.0.1:995"),
            ),
            lambda: _call("/usr/bin/doveadm", "-c", str(config), "reload"),
        )


@contextmanager
def postfix(folder: Path, certificate: Certificate) -> Iterator[MailServer]:
    """Run Postfix for SMTP and submission."""
    _write(folder, certificate)
    for name in ("queue", "data", "config"):
        (folder / name).mkdir()
    _call("/bin/chown", "daemon", str(folder / "data"))
    config = folder / "config"
    (config / "main.cf").write_text(POSTFIX.format(folder=folder), "ascii")
    (config / "master.cf").write_text(POSTFIX_SERVICES, "ascii")
    control = ["/usr/sbin/postfix", "-c", str(config)]
    try:
        with _running([*control, "start-fg"], folder, ports=(25, 587, 465)):
            yield MailServer(
                folder,
                (
                    *("smtp+starttls://127.0.0.1:25", "smtps://127.0.0.1:465"),
                    "smtp+starttls://127.0.0.1:587",
                ),
                lambda: _call(*control, "reload"),
            )
            _call(*control, "stop")
    finally:
        subprocess.run([*control, "abort"], check=False, capture_output=True)


@contextmanager
def nginx(folder: Path, certificate: Certificate) -> Iterator[MailServer]:
    """Run nginx in the place of webmail and Remote Administration."""
    _write(folder, certificate)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder), "ascii")
    command = ["/usr/sbin/nginx", "-e", str(folder / "log"), "-c", str(config)]
    with _running(command, folder, ports=(443, 444)):
        yield MailServer(
            folder,
            ("https://127.0.0.1:443", "https://127.0.0.1:444"),
            lambda: _call(*command, "-s", "reload"),
        )


@contextmanager
def web_server(kind: str, folder: Path, config: str) -> Iterator[None]:
    """Run a web server of `WEB_SERVERS` on port 80."""
    command, frame = WEB_SERVERS[kind]
    text = frame.format(folder=folder, config=config)
    (folder / "config").write_text(text, "ascii")
    words = [word.format(folder=folder) for word in command]
    with _running(words, folder, ports=(80,)):
        yield


def _write(folder: Path, certificate: Certificate) -> None:
    (folder / "fullchain.pem").write_bytes(certificate.fullchain_pem)
    (folder / "privkey.pem").write_bytes(certificate.key_pem)


@contextmanager
def _running(
    command: Sequence[str], folder: Path, ports: Sequence[int]
) -> Iterator[None]:
    """Run a program until the block ends, entered once it listens on all its ports."""
    output = folder / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while not all(_listens(port) for port in ports):
            if process.poll() is not None or time.monotonic() > deadline:
                logs = [path for path in (output, folder / "log") if path.exists()]
                said = "".join(path.read_text("utf-8", "replace") for path in logs)
                message = f"{command[0]} did not start. It said:\n{said[-2000:]}"
                raise AssertionError(message)
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS).close()
    except OSError:
        return False
    return True


def _call(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
