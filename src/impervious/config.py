"""The configuration as values: every setting with its unit, default and meaning.

Nothing here opens a file or reads the environment: the command line does, and hands both over. Settings published in
2021 keep their names; the rest are ours (docs/config.md).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from impervious.model import RecordType, ServiceType
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a port to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """`server`: the doors."""

    enabled: bool = True
    """gRPC, HTTP and websocket on or off."""
    grpc_addr: Address = Address(host="127.0.0.1", port=8881)
    http_addr: Address = Address(host="127.0.0.1", port=8882)
    http_text_addr: Address | None = None
    """A second HTTP listener in text mode, for clients of v0.1.0 to v0.1.3."""
    payload_encoding: str = "base64"
    """base64 or text: what the first HTTP listener speaks."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may use this daemon."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, besides our own addresses, that a Host header may carry."""
    allow_insecure: bool = False
    """Listen beyond loopback without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """`sqlite3`: the database."""

    path: Path = Path("~/.imp/imp.db")
    password: str | None = field(default=None, repr=False)
    """Key of the encrypted database. None: not encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One entry of `service_list`."""

    service_type: ServiceType
    active: bool = True
    record_type: RecordType | None = None
    """`custom_record_number`; None for a service that has no record."""
    data: object = None
    """`additional_service_data`: the service's own, as YAML gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LndConfig:
    """`lightning.lnd_node`: how to reach LND. Files are read again at every reconnect."""

    host: str = "127.0.0.1"
    port: int = 10009
    pubkey: str | None = None
    """66 hex digits the node must have, or None: not checked."""
    tls_cert: Path | None = None
    """None, together with no `tls_cert_hex`: the system's root certificates."""
    tls_cert_hex: str | None = None
    """The PEM file, as hex."""
    macaroon: Path | None = None
    """`admin_macaroon`."""
    macaroon_hex: str | None = field(default=None, repr=False)
    """`admin_macaroon_hex`."""
    lndconnect: str | None = field(default=None, repr=False)
    """An lndconnect URI, which holds host, port, certificate and macaroon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningConfig:
    """`lightning`: the node and what may be spent through it."""

    lnd: LndConfig = LndConfig()
    max_fee_sat: Sat = Sat(10)
    """Highest routing fee of an invoice, or `max_fee_ppm` of its amount if that is more."""
    max_fee_ppm: int = 50_000
    payment_timeout_s: int = 60
    daily_limit_sat: Sat = Sat(100_000)
    """Spent at most in any 24 hours, fees included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageConfig:
    """`message`: what travels to other nodes, for every service that sends."""

    max_bytes: int = 480_000
    """Largest payload, both ways."""
    part_bytes: int = 900
    """Largest part; smaller where a route is long."""
    in_flight_per_peer: int = 16
    """Parts under way to one recipient at a time."""
    ttl_s: int = 3600
    """How long delivery is tried; at most 43200."""
    max_fee_msat_per_part: Msat = Msat(3000)
    min_amount_sat: Sat = Sat(1)
    """What each part carries at least."""
    accept_unsigned: bool = False
    """Show what ordinary wallets send to the message record, with an empty sender."""
    accept_from: str = "all"
    """all, or federated: whose messages are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """`limits`: what others can make this node do."""

    auto_answers_per_hour: int = 20
    """Automatic answers to one sender."""
    auto_answer_fee_msat: Msat = Msat(1000)
    """Fee limit of an automatic answer."""
    auto_answers_sat_per_day: Sat = Sat(200)
    """Spent on automatic answers in all, in any 24 hours."""
    subscribers: int = 1000
    idempotency_days: int = 7
    """How long an Idempotency-Key is remembered."""
    events_days: int = 0
    """Events older than this are pruned; 0 keeps them."""
    events_mb: int = 0
    """The oldest events are pruned beyond this size; 0 keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FederateConfig:
    """`federate`: what this node tells others."""

    ttl_s: int = 31_560_000
    """How long others may remember us."""
    imp_id: str | None = None
    """The name we go by; None: not set, federation is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VpnConfig:
    """`vpn`: what this node sells."""

    price_sat: Sat = Sat(100)
    """For one period."""
    server_ip: str = "127.0.0.1"
    server_port: int = 51820
    subnet: str = "10.0.0.0/24"
    server_pub_key: str | None = None
    """Base64; None: not set, selling is off."""
    allowed_ips: str = "0.0.0.0/0"
    binary_path: Path = Path("/usr/bin/wg")
    dns: str = "8.8.8.8"
    interface: str = "wg0"
    period_s: int = 3600
    """What "per hour" means; tests shorten it."""
    grace_s: int = 600
    """How long an expired peer stays suspended before it is removed."""
    max_hours: int = 720


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketConfig:
    """`socket`: the UDP relay."""

    server_ip: str | None = None
    """Public address told to others; None: not set, the relay is off."""
    ports: tuple[tuple[int, int], ...] = ((6000, 9000),)
    """A pair for each session that may run."""
    idle_timeout_s: int = 120
    require_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """`log`: what goes to stderr."""

    level: str = "info"
    format: str = "json"
    """json or console."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an Impervious node is told."""

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    services: tuple[ServiceConfig, ...] = tuple(
        ServiceConfig(service_type=service_type, record_type=record_type)
        for service_type, record_type in DEFAULT_RECORD_TYPES.items()
    )
    lightning: LightningConfig = LightningConfig()
    message: MessageConfig = MessageConfig()
    limits: LimitsConfig = LimitsConfig()
    federate: FederateConfig = FederateConfig()
    vpn: VpnConfig = VpnConfig()
    socket: SocketConfig = SocketConfig()
    log: LogConfig = LogConfig()

    def service(self, service_type: ServiceType) -> ServiceConfig:
        """Look a service's entry up; one that is not listed is active without a record."""
        for entry in self.services:
            if entry.service_type == service_type:
                return entry
        return ServiceConfig(service_type=service_type)
