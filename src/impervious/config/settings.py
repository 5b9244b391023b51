"""The configuration as values: every setting with its kind, unit, default and meaning.

Nothing here opens a file or reads the environment: the command line does, and hands both over. Settings published in
2021 keep their keys in the file; the rest are ours (docs/config.md, which is made from this module).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from impervious.config.address import Address
from impervious.config.kinds import (
    ADDRESS,
    ALLOWED_HOSTS,
    ANYTHING,
    BOOL,
    CERTIFICATE_HEX,
    HOST,
    INTERFACE,
    IPS,
    MACAROON_HEX,
    NAME,
    NETWORK,
    NETWORKS,
    ORIGINS,
    PATH,
    PINNED_NAMES,
    PORT,
    PORT_PAIRS,
    PUBKEY,
    RECORD_TYPE,
    SERVICE_TYPE,
    TEXT,
    WIREGUARD_KEY,
    choice,
    msat,
    sat,
    whole,
)
from impervious.config.schema import Unset, naming, section, setting
from impervious.errors import Unsupported
from impervious.model import NodePubkey, RecordType, ServiceType
from impervious.units import Msat, Sat

SAMPLE_PASSWORD: Final = "supersecretpassword"
"""Everybody knows it, so a database "protected" by it is not: warned about at start."""

DEFAULT_RECORD_TYPES: Final = {
    ServiceType("federate"): RecordType(100_000),
    ServiceType("vpn"): RecordType(200_000),
    ServiceType("websocket"): RecordType(300_000),
    ServiceType("message"): RecordType(400_000),
    ServiceType("socket"): RecordType(500_000),
    ServiceType("sign"): RecordType(800_000),
}

LIGHTNING: Final = ServiceType("lightning")
"""The one service of ours that sends nothing: it has no record and cannot be switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """`server`: the doors."""

    enabled: bool = setting(BOOL, True, "gRPC, HTTP and websocket on or off.")
    grpc_addr: Address = setting(
        ADDRESS, Address(host="127.0.0.1", port=8881), "Where gRPC listens; port 0 takes a free one."
    )
    http_addr: Address = setting(ADDRESS, Address(host="127.0.0.1", port=8882), "Where HTTP and websocket listen.")
    http_text_addr: Address | None = setting(
        ADDRESS,
        None,
        "A second HTTP listener that always speaks text, for programs written for v0.1.0 to v0.1.3.",
    )
    payload_encoding: str = setting(
        choice("base64", "text"),
        "base64",
        "How `msg` and `data` look in the JSON of `http_addr`; `?encoding=` overrides it for one request.",
    )
    tls_cert: Path | None = setting(PATH, None, "PEM certificate (chain) of gRPC and HTTP, together with `tls_key`.")
    tls_key: Path | None = setting(PATH, None, "PEM private key of `tls_cert`.")
    cors_origins: tuple[str, ...] = setting(
        ORIGINS, (), "Web origins whose pages may use this daemon; pages of all others are refused."
    )
    allowed_hosts: tuple[str, ...] = setting(
        ALLOWED_HOSTS, (), "Names, besides localhost and the addresses listened on, that a Host header may carry."
    )
    allow_insecure: bool = setting(
        BOOL,
        False,
        "Allow listening beyond this machine without TLS. Whoever reaches the port can spend your money: only behind "
        "a firewall or a proxy that checks who is calling.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """`sqlite3`: the database."""

    username: str = setting(TEXT, "admin", "Kept for compatibility; unused.")
    password: str | None = setting(
        TEXT, None, "Key of the encrypted database. Without it the database is not encrypted.", secret=True
    )
    path: Path = setting(PATH, Path("~/.imp/imp.db"), "The database file. One daemon at a time can have it open.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One entry of `service_list`."""

    service_type: ServiceType = field(
        metadata=naming(SERVICE_TYPE, "federate, vpn, websocket, message, socket, sign, or a service of your own.")
    )
    active: bool = setting(BOOL, True, "Whether it answers calls and messages from other nodes.")
    record_type: RecordType | None = setting(
        RECORD_TYPE,
        None,
        "The keysend record that carries it; both ends must use the same. Empty: the number published for the service.",
        key="custom_record_number",
    )
    data: object = setting(
        # Hidden as a whole: only the service knows which of it is secret.
        ANYTHING,
        None,
        "The service's own settings.",
        key="additional_service_data",
        secret=True,
    )

    def require_active(self) -> None:
        """Refuse for a service that the operator does not want.

        Raises:
          Unsupported: it is switched off; says where.
        """
        if not self.active:
            name = self.service_type
            raise Unsupported(f"the {name} service is switched off here: its entry in service_list has active: false")


@dataclass(frozen=True, slots=True, kw_only=True)
class LndConfig:
    """`lightning.lnd_node`: how to reach LND. Files are read again at every reconnect."""

    host: str = setting(HOST, "127.0.0.1", "Where LND's gRPC listens.", key="ip")
    port: int = setting(PORT, 10009, "Port of LND's gRPC.")
    pubkey: str | None = setting(
        PUBKEY,
        None,
        "The node this must be (`lncli getinfo`, identity_pubkey); the daemon stops when it is another. "
        "Empty: not checked.",
        key="pub_key",
        unset=Unset("which node answers is not checked: put the identity_pubkey that `lncli getinfo` prints"),
    )
    tls_cert: Path | None = setting(
        PATH,
        None,
        "LND's certificate, usually ~/.lnd/tls.cert; read again at each reconnect. Empty: the system's authorities "
        "are trusted, which suits hosted nodes.",
        unset=Unset(
            "only a node with a public certificate can be reached: put the path of LND's tls.cert, "
            "usually ~/.lnd/tls.cert"
        ),
    )
    tls_cert_hex: str | None = setting(CERTIFICATE_HEX, None, "The PEM certificate as hex, instead of `tls_cert`.")
    macaroon: Path | None = setting(
        PATH,
        None,
        "LND's admin.macaroon, usually ~/.lnd/data/chain/bitcoin/mainnet/admin.macaroon, or one baked with fewer "
        "permissions; read again at each reconnect.",
        key="admin_macaroon",
        unset=Unset("put the path of LND's admin.macaroon"),
    )
    macaroon_hex: str | None = setting(
        MACAROON_HEX, None, "The macaroon as hex, instead of `admin_macaroon`.", key="admin_macaroon_hex", secret=True
    )
    lndconnect: str | None = setting(
        TEXT,
        None,
        "An lndconnect:// address, which holds host, port, certificate and macaroon; what it holds wins over the "
        "settings above.",
        secret=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningConfig:
    """`lightning`: the node and what may be spent through it."""

    lnd: LndConfig = section(LndConfig(), "How to reach LND.", key="lnd_node")
    max_fee_sat: Sat = setting(
        sat(0), Sat(10), "Highest routing fee for an invoice, or `max_fee_ppm` of its amount if that is more."
    )
    max_fee_ppm: int = setting(
        whole(0, 1_000_000, "millionths"), 50_000, "Highest routing fee for an invoice, as a share of its amount."
    )
    payment_timeout_s: int = setting(
        whole(1, 86_400, "seconds"), 60, "How long LND looks for a way for one payment before it gives up."
    )
    daily_limit_sat: Sat = setting(
        sat(0), Sat(100_000), "Spent at most in any 24 hours, fees included. 0 spends nothing."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageConfig:
    """`message`: what travels to other nodes, for every service that sends."""

    max_bytes: int = setting(
        # A receiver holds 8 MiB of unfinished messages for each sender: a longer one could never arrive.
        whole(1, 8 * 1024 * 1024, "bytes"),
        480_000,
        "Largest message, sent or received.",
    )
    part_bytes: int = setting(
        whole(200, 1100, "bytes"), 900, "Largest part of a message; parts are smaller where a route is long."
    )
    in_flight_per_peer: int | None = setting(
        # A payment channel holds 483 HTLCs in each direction (BOLT 2, max_accepted_htlcs).
        whole(1, 483, "parts"),
        None,
        "Most parts under way to one recipient at a time. Unset: 16 at first, and then as many as are seen to succeed.",
    )
    ttl_s: int = setting(whole(1, 43_200, "seconds"), 3600, "How long delivery is tried before it has failed.")
    max_fee_msat_per_part: Msat = setting(
        msat(0), Msat(3000), "Highest routing fee for one part. 0 uses free routes only."
    )
    min_amount_sat: Sat = setting(sat(1), Sat(1), "What each part carries at least.")
    accept_unsigned: bool = setting(
        BOOL, False, "Show what ordinary wallets send to the message record, with an empty sender."
    )
    accept_from: str = setting(
        choice("all", "federated"), "all", "Whose messages are shown: everybody's, or only those of federated nodes."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """`limits`: what others can make this node do."""

    auto_answers_per_hour: int = setting(whole(0), 20, "Automatic answers to one sender in an hour.")
    auto_answer_fee_msat: Msat = setting(msat(0), Msat(1000), "Highest routing fee for an automatic answer.")
    auto_answers_sat_per_day: Sat = setting(
        sat(0), Sat(200), "Most that automatic answers cost beyond what their requests brought, in any 24 hours."
    )
    subscribers: int = setting(whole(1), 1000, "Event streams open at a time.")
    connections_per_address: int = setting(
        whole(0),
        300,
        "Connections open at a time to gRPC, and to HTTP, from one address (IPv6: one /64). 0: no limit. This "
        "machine's own have none, because its programs and proxies share them; behind a proxy elsewhere set 0.",
    )
    idempotency_days: int = setting(whole(1, 3650, "days"), 7, "How long an Idempotency-Key is remembered.")
    events_days: int = setting(whole(0, 36_500, "days"), 0, "Older events are pruned. 0 keeps them.")
    events_mb: int = setting(
        whole(0, unit="megabytes"), 1000, "Beyond this size of the log the oldest events are pruned. 0 keeps them."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FederateConfig:
    """`federate`: what this node tells others."""

    ttl_s: int = setting(whole(1, unit="seconds"), 31_560_000, "How long other nodes may remember this one.", key="ttl")
    imp_id: str | None = setting(
        NAME,
        None,
        "The name this node goes by. Empty: federation is off.",
        unset=Unset("federation is off: put the name your node should go by"),
    )
    accept: str = setting(
        choice("all", "ask", "none"),
        "all",
        "Who is remembered that asks to be: everybody; whom a call accepts, after an event; or nobody.",
    )
    max_strangers: int = setting(
        whole(0, 100_000, "nodes"),
        1000,
        "Nodes remembered at most because they asked (`accept: all`), and requests that wait at most (`accept: ask`).",
    )
    names: tuple[tuple[str, str], ...] = setting(
        PINNED_NAMES, (), "Names pinned to nodes. A name that is not pinned belongs to the peer that had it first."
    )

    def pinned(self, name: str) -> NodePubkey | None:
        """Say which node a name is pinned to, if it is."""
        return next((NodePubkey.parse(pubkey) for known, pubkey in self.names if known == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class VpnConfig:
    """`vpn`: what this node sells."""

    price_sat: Sat = setting(sat(1), Sat(100), "Price of one period (`period_s`).", key="price")
    server_ip: str = setting(HOST, "127.0.0.1", "Public address of the WireGuard server.")
    server_port: int = setting(PORT, 51820, "UDP port of the WireGuard server.")
    subnet: str = setting(NETWORK, "10.0.0.0/24", "Network whose addresses buyers get; the first one is the server's.")
    server_pub_key: str | None = setting(
        WIREGUARD_KEY,
        None,
        "Public key of the WireGuard server (`wg show`). Empty: nothing is sold; buying works.",
        unset=Unset("nothing is sold, buying works: put the public key that `wg show` prints"),
    )
    allowed_ips: str = setting(NETWORKS, "0.0.0.0/0", "What buyers reach through the tunnel.")
    binary_path: Path = setting(PATH, Path("/usr/bin/wg"), "The `wg` command.")
    dns: str = setting(IPS, "8.8.8.8", "DNS servers that buyers are given; none: they keep their own.")
    interface: str = setting(INTERFACE, "wg0", "WireGuard interface that serves the buyers.")
    period_s: int = setting(whole(1, unit="seconds"), 3600, 'What "per hour" means; tests shorten it.')
    grace_s: int = setting(
        whole(0, unit="seconds"), 600, "How long an expired buyer stays suspended before being removed."
    )
    max_hours: int = setting(whole(1, unit="periods"), 720, "Most that is sold at once.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketConfig:
    """`socket`: the UDP relay."""

    server_ip: str | None = setting(
        HOST,
        None,
        "Public address of the relay, told to other nodes. Empty: the relay is off.",
        unset=Unset("the relay is off: put this machine's public address", samples=("1.1.1.1",)),
    )
    ports: tuple[tuple[int, int], ...] = setting(
        PORT_PAIRS, ((6000, 9000),), "A pair of UDP ports for each relay that may run at a time."
    )
    idle_timeout_s: int = setting(
        whole(1, 86_400, "seconds"), 120, "A relay that carried nothing for this long is closed."
    )
    require_token: bool = setting(
        BOOL,
        False,
        "Endpoints must prove that they know their token (docs/relay.md); otherwise whoever sends first is in.",
    )
    packets_per_s: int = setting(
        whole(0, unit="datagrams"), 0, "Datagrams that one relay forwards in a second; more are dropped. 0: no limit."
    )
    bytes_per_s: int = setting(
        whole(0, unit="bytes"), 0, "Payload bytes that one relay forwards in a second; more are dropped. 0: no limit."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """`log`: what goes to stderr."""

    level: str = setting(choice("debug", "info", "warning", "error"), "info", "The least important lines shown.")
    format: str = setting(
        choice("auto", "json", "console"),
        "auto",
        "json: an object a line; console: for people; auto: console on a terminal, json elsewhere.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an Impervious node is told."""

    server: ServerConfig = section(ServerConfig(), "The doors: gRPC, HTTP and websocket.")
    store: StoreConfig = section(StoreConfig(), "The database.", key="sqlite3")
    services: tuple[ServiceConfig, ...] = tuple(
        ServiceConfig(service_type=service_type, record_type=record_type)
        for service_type, record_type in DEFAULT_RECORD_TYPES.items()
    )
    """`service_list`. A service that the file does not list is active with its published number."""
    lightning: LightningConfig = section(LightningConfig(), "The Lightning node, and what may be spent through it.")
    message: MessageConfig = section(MessageConfig(), "What travels to other nodes, for every service that sends.")
    limits: LimitsConfig = section(LimitsConfig(), "What others can make this node do.")
    federate: FederateConfig = section(FederateConfig(), "What this node tells others about itself.")
    vpn: VpnConfig = section(VpnConfig(), "WireGuard tunnels sold for sats.")
    socket: SocketConfig = section(SocketConfig(), "The UDP relay.")
    log: LogConfig = section(LogConfig(), "What goes to stderr.")

    def service(self, service_type: ServiceType) -> ServiceConfig:
        """Look a service's entry up; one that is not listed is active without a record."""
        for entry in self.services:
            if entry.service_type == service_type:
                return entry
        return ServiceConfig(service_type=service_type)
