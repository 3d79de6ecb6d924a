"""Which addresses are on the public internet."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# IANA's special-purpose registries (not Python's own tables, which differ between patch releases), multicast and reserved space, and
# 168.63.129.16, by which Azure's machines reach their host.
_SPECIAL_V4_BLOCKS = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24
    192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
    168.63.129.16/32
"""
_SPECIAL_V4 = tuple(IPv4Network(block) for block in _SPECIAL_V4_BLOCKS.split())
_GLOBAL_V6 = IPv6Network("2000::/3")
# Protocol assignments with Teredo, documentation, 6to4: inside the global range, yet no place of a web server. 6to4 and Teredo carry
# an IPv4 address that a relay would connect to.
_SPECIAL_V6 = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether a numeric address is one that a server of the public internet can have.

    An IPv4 address inside a mapped or NAT64 IPv6 address is judged by itself. Whatever is not a canonical address is not public:
    ``0177.0.0.1`` would be read as octal further down.
    """
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        embedded = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if embedded is None:
            return ip in _GLOBAL_V6 and not any(ip in network for network in _SPECIAL_V6)
        ip = embedded
    return not any(ip in network for network in _SPECIAL_V4)


def ipv4_of_any_form(host: str) -> str:
    """``2130706433``, ``0x7f.1`` and ``0177.0.0.1`` as ``127.0.0.1``; empty for a name."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return ""
