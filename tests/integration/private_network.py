"""Moves the test process into a network of its own, where it needs no root.

Some ACME servers ask http-01 challenges on port 80 only and resolve names as the
system does. In fresh Linux namespaces this process may bind every port, sees nothing
but loopback, and reads a resolv.conf that names the DNS server of the tests.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

# <linux/sched.h>, <linux/mount.h>, <linux/sockios.h>, <linux/if.h>
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
IFF_UP = 0x1

RESOLVER = {
    "resolv.conf": "nameserver 127.0.0.1\n",
    "nsswitch.conf": "hosts: files dns\n",
}


def enter(folder: Path, *, keep_users: bool = False) -> None:
    """Move this process, and all it starts from now on, into a private network.

    There is no way back. The process becomes root there, and only there.

    Args:
        folder: Where the files bound over those in /etc are kept.
        keep_users: Root stays the root it is, and can become other users.

    Raises:
        OSError: The kernel refuses, or another thread runs in this process.
    """
    user, group = os.geteuid(), os.getegid()
    if keep_users:
        _call("unshare", CLONE_NEWNS)
        # Else our mounts would be everybody's.
        _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    else:
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    for name, text in RESOLVER.items():
        theirs, ours = Path("/etc", name), folder / name
        ours.write_text(text, encoding="ascii")
        # A file that is missing needs none: resolvers then ask 127.0.0.1.
        if theirs.exists():
            _call("mount", bytes(ours), bytes(theirs), None, MS_BIND, None)
    # The last step, so that a kernel that allows less leaves us a network.
    _call("unshare", CLONE_NEWNET)
    _loopback_up()


def lay_over(folder: Path, system: Path) -> None:
    """Show the files of a folder in one of the system's, to this process only.

    Raises:
        OSError: The kernel refuses.
    """
    options = f"lowerdir={folder}:{system}".encode()
    _call("mount", b"overlay", bytes(system), b"overlay", 0, options)


def _loopback_up() -> None:
    request = struct.pack("16sh14x", b"lo", IFF_UP)  # struct ifreq, netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def add_address(address: str) -> None:
    """Give loopback a second address; some servers use no other one than these."""
    ours = socket.inet_aton(address)
    packed = struct.pack("16sH2x4s8x", b"lo:1", socket.AF_INET, ours)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFADDR, packed)


def _write(path: str, text: str) -> None:
    # One write call, as the kernel asks (user_namespaces(7)).
    Path(path).write_bytes(text.encode("ascii"))


def _call(name: str, *args: bytes | int | None) -> None:
    """Call a function of the C library; os.unshare came with Python 3.12."""
    function = ctypes.CDLL(None, use_errno=True)[name]
    if function(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
