"""The configuration: YAML text and environment variables to values, and back to text, without I/O.

`settings` declares every setting once; `load` reads a file's text; `render` writes it. The command line opens files.
"""

from impervious.config.address import Address, is_address, is_loopback
from impervious.config.checks import check_record_types
from impervious.config.kinds import NO_RESOLVER
from impervious.config.lndconnect import Lndconnect, parse_lndconnect, resolve_credentials
from impervious.config.load import Loaded, load
from impervious.config.paths import expand_home
from impervious.config.render import effective, reference, sample, show
from impervious.config.settings import (
    DEFAULT_RECORD_TYPES,
    LIGHTNING,
    SAMPLE_PASSWORD,
    Config,
    FederateConfig,
    LightningConfig,
    LimitsConfig,
    LndConfig,
    LogConfig,
    MessageConfig,
    ServerConfig,
    ServiceConfig,
    SocketConfig,
    StoreConfig,
    VpnConfig,
)

__all__ = (
    "DEFAULT_RECORD_TYPES",
    "LIGHTNING",
    "NO_RESOLVER",
    "SAMPLE_PASSWORD",
    "Address",
    "Config",
    "FederateConfig",
    "LightningConfig",
    "LimitsConfig",
    "LndConfig",
    "Lndconnect",
    "Loaded",
    "LogConfig",
    "MessageConfig",
    "ServerConfig",
    "ServiceConfig",
    "SocketConfig",
    "StoreConfig",
    "VpnConfig",
    "check_record_types",
    "effective",
    "expand_home",
    "is_address",
    "is_loopback",
    "load",
    "parse_lndconnect",
    "reference",
    "resolve_credentials",
    "sample",
    "show",
)
