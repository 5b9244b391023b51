"""The exception tree, named by whose fault it is and what can be done next.

Every message is a sentence for a person and says what to do; facts a program needs are attributes. `server.convert`
maps these classes to gRPC codes and HTTP statuses, `cli` to exit codes; nobody else does.
"""

from enum import Enum


class ImperviousError(Exception):
    """Anything this package raises on purpose."""


# --- The operator's file or machine must change -----------------------------------------------------------------------


class ConfigError(ImperviousError):
    """The configuration cannot work as it is. The command line exits with code 2."""


class StoreError(ImperviousError):
    """The database cannot be used as it is."""


class StoreLocked(StoreError, ConfigError):
    """Another daemon has the database open."""


class StoreKeyWrong(StoreError, ConfigError):
    """The password does not open the database."""


class StoreUnusable(StoreError):
    """The database file fails: nothing was written."""


class StoreFull(StoreError):
    """The disk is full: nothing was written; the same write works once there is room."""


class StoreBusy(StoreFull):
    """Another program keeps the database to itself: nothing was written. Everything waits, as for a full disk."""


class StoreReplaced(StoreFull):
    """The file of the open database was moved, deleted or overwritten: nothing was written.

    Everything waits, as it does for a full disk, until the operator has seen to it.
    """


# --- The caller asked for something that cannot be --------------------------------------------------------------------


class CallerError(ImperviousError):
    """The request cannot be met as it stands. Nothing was done."""


class InvalidArgument(CallerError):
    """A value is wrong in itself."""


class NotFound(CallerError):
    """Nothing has that name."""


class AlreadyExists(CallerError):
    """It exists already, and not as asked for."""


class PermissionDenied(CallerError):
    """This caller may not do that."""


class Unauthenticated(CallerError):
    """The caller did not prove who it is."""


class FailedPrecondition(CallerError):
    """It could work, but not in the present state."""


class OutOfRange(CallerError):
    """The position asked for is not kept."""


class Unsupported(CallerError):
    """No such operation here, or the operator switched it off."""


class ResourceExhausted(CallerError):
    """A limit is reached: budget, size, rate or number."""


# --- The Lightning node ----------------------------------------------------------------------------------------------


class NodeUnavailable(ImperviousError):
    """The Lightning node cannot be asked now. The outcome of a payment being sent is then unknown."""


class NodeRefused(ImperviousError):
    """The Lightning node answered with an error. Nothing was paid."""


class NodeMisconfigured(ConfigError):
    """The Lightning node is not the one, or not set up as, the configuration says."""


class PaymentNotFound(ImperviousError):
    """The Lightning node has never been asked to pay this hash: paying it cannot pay twice."""


class AlreadyPaying(ImperviousError):
    """The Lightning node has a payment for this hash, in flight or settled: track it, never send it again."""


class NoRoute(ImperviousError):
    """The Lightning node knows no route that could carry this."""


class PaymentFailure(Enum):
    """Why the Lightning node gave up (lnrpc.PaymentFailureReason)."""

    TIMEOUT = "timeout"
    NO_ROUTE = "no_route"
    ERROR = "error"
    INCORRECT_PAYMENT_DETAILS = "incorrect_payment_details"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    CANCELED = "canceled"


class PaymentFailed(ImperviousError):
    """The payment failed for good; no money moved.

    Attributes:
      reason: what the Lightning node says.
      retryable: whether the same payment may work later.
    """

    def __init__(self, text: str, *, reason: PaymentFailure, retryable: bool) -> None:
        super().__init__(text)
        self.reason = reason
        self.retryable = retryable


class DeliveryFailed(ImperviousError):
    """A message could not be delivered.

    Attributes:
      retryable: whether sending it again may work.
    """

    def __init__(self, text: str, *, retryable: bool) -> None:
        super().__init__(text)
        self.retryable = retryable


# --- The WireGuard interface of this machine --------------------------------------------------------------------------


class WireGuardError(ImperviousError):
    """The tunnels could not be read or changed. The text says what to do; trying again after that is harmless."""


class WireGuardMissing(WireGuardError):
    """The `wg` program is not there, or does not start."""


class WireGuardNoInterface(WireGuardError):
    """The interface does not exist."""


class WireGuardDenied(WireGuardError):
    """This process may not look at, or change, network interfaces."""


class WireGuardRefused(WireGuardError):
    """WireGuard did not take a value, or said that it did and does not have it."""


class WireGuardStuck(WireGuardError):
    """`wg` gave no answer in time. Whether a change was made is unknown until the next look."""


# --- What came in over the wire ---------------------------------------------------------------------------------------


class Malformed(ImperviousError):
    """Bytes from outside do not follow their format."""


class Unverified(ImperviousError):
    """A signature does not prove what the message claims."""
