"""What is wrong with settings that are each right by themselves.

Errors are raised without the file's name, which the loader puts before them; warnings are returned.
"""

from collections.abc import Iterator
from itertools import combinations

from impervious.config.address import Address, is_loopback
from impervious.config.settings import SAMPLE_PASSWORD, Config, ServerConfig, ServiceConfig
from impervious.errors import ConfigError
from impervious.model import RecordType, ServiceType


def check(config: Config, *, needs_lnd: bool) -> Iterator[str]:
    """Yield warnings about a configuration as a whole.

    Args:
      config: with its lndconnect address resolved.
      needs_lnd: whether missing LND credentials are an error.

    Raises:
      ConfigError: it cannot work as it is.
    """
    check_record_types(config.services)
    if config.server.enabled:
        yield from check_doors(config.server)
    if config.store.password == SAMPLE_PASSWORD:
        yield (
            "sqlite3.password is the published sample's, so the database is not protected: "
            "change it with `impervious db rekey`"
        )
    if needs_lnd and config.lightning.lnd.macaroon is None and config.lightning.lnd.macaroon_hex is None:
        raise ConfigError(
            "lightning.lnd_node.admin_macaroon is not set: put the path of LND's admin.macaroon, usually "
            "~/.lnd/data/chain/bitcoin/mainnet/admin.macaroon, or set lightning.lnd_node.lndconnect"
        )


def check_record_types(services: tuple[ServiceConfig, ...]) -> None:
    """Refuse two services with one record number.

    Raises:
      ConfigError: names both.
    """
    taken: dict[RecordType, ServiceType] = {}
    for entry in services:
        if entry.record_type is None:
            continue
        if entry.record_type in taken:
            raise ConfigError(
                f"service_list gives {taken[entry.record_type]} and {entry.service_type} the same "
                f"custom_record_number {entry.record_type}: change one, here and on the nodes you talk to"
            )
        taken[entry.record_type] = entry.service_type


def check_doors(server: ServerConfig) -> Iterator[str]:
    """Yield warnings about where the doors listen.

    Raises:
      ConfigError: they clash, or would let strangers in.
    """
    doors = {"server.grpc_addr": server.grpc_addr, "server.http_addr": server.http_addr}
    if server.http_text_addr is not None:
        doors["server.http_text_addr"] = server.http_text_addr
    for (first, one), (second, other) in combinations(doors.items(), 2):
        if _clash(one, other):
            raise ConfigError(f"{first} and {second} both listen on port {one.port}: give one of them another port")
    if (server.tls_cert is None) != (server.tls_key is None):
        missing = "server.tls_key" if server.tls_key is None else "server.tls_cert"
        raise ConfigError(f"{missing} is not set: server.tls_cert and server.tls_key only work together")
    if server.tls_cert is not None:
        return
    for key, address in doors.items():
        if is_loopback(address.host):
            continue
        if not server.allow_insecure:
            raise ConfigError(
                f"{key} {address} can be reached from other machines without TLS: set server.tls_cert and "
                "server.tls_key, or use 127.0.0.1, or set server.allow_insecure: true if a firewall or proxy guards it"
            )
        yield f"{key} {address} can be reached from other machines without TLS (server.allow_insecure)"


def _clash(one: Address, other: Address) -> bool:
    everywhere = ("0.0.0.0", "::")
    if one.port == 0:  # any free one
        return False
    return one.port == other.port and (one.host == other.host or one.host in everywhere or other.host in everywhere)
