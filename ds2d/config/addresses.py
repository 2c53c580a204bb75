"""Which URLs the daemon may be told to call, and which networks it may be told to trust.

Rule: http or https, no user info, never a link-local or metadata address, in whatever spelling (reliability.md, "Rules: keys,
admin, console").
Surprise: `http://2852039166` and `http://0xa9.0xfe.43518` are 169.254.169.254 to the C library, so they are to us.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))
_LEGACY = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+)){0,3}")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def fault_of_url(url: str, *, user_info: bool = False) -> str:
    """What is wrong with a URL the daemon is to call; empty if nothing is."""
    if not url.isprintable() or any(blank in url for blank in " \\"):
        return "must not hold blanks, backslashes or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"}:
        return "must start with http:// or https://"
    if not parts.hostname or port == 0:
        return "has no host" if not parts.hostname else "must have a port of 1 to 65535"
    if "@" in parts.netloc and not user_info:
        return "must not hold user info; use accounts or headers for credentials"
    return _fault_of_host(parts)


def fault_of_network(text: str) -> str:
    """What is wrong with an address or a network in CIDR form; empty if nothing is."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "must be an address or a network as in 10.0.0.0/8"
    return ""


def _fault_of_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    if host in _METADATA_NAMES:
        return "must not be a metadata address"
    address = _as_address(host)
    if address is not None and (address.is_link_local or address in _METADATA):
        return "must not be a link-local or metadata address"
    return ""


def _as_address(host: str) -> Address | None:
    """The address that this host is, in any spelling; None for a name."""
    try:
        address: Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        if not _LEGACY.fullmatch(host):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
