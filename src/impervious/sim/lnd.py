"""One simulated LND as its operator sees it: starting and stopping it, and everything that can go wrong.

Every command takes effect before it returns.
"""

import math
from collections.abc import Mapping
from functools import partial

from impervious.errors import PaymentFailure
from impervious.model import NodePubkey, PaymentHash, Preimage, Records
from impervious.sim.driver import Driver
from impervious.sim.engine.answers import WalletState
from impervious.sim.engine.asking import Ask
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.invoices import Invoice
from impervious.sim.engine.world import Node, PlannedFailure
from impervious.sim.rpcs import Rpcs
from impervious.units import Msat
from impervious.wire.keysend import PREIMAGE_RECORD


class SimLnd:
    """A simulated LND and its operator's commands."""

    def __init__(self, driver: Driver, node: Node) -> None:
        self.rpcs = Rpcs(driver, node)
        self.node = node
        self._driver = driver
        self._engine = driver.engine

    @property
    def name(self) -> str:
        """What the network calls it."""
        return self.node.name

    @property
    def pubkey(self) -> NodePubkey:
        """Its identity."""
        return self.node.pubkey

    def peer_pubkey(self, channel: Channel) -> NodePubkey:
        """Who is at the other end of one of its channels."""
        return self._engine.world.pubkeys[channel.peer(self.name)]

    # --- its process ---

    def stop(self) -> None:
        """Shut it down: streams end with status OK, then nothing listens."""
        self.rpcs.end_streams()
        self._down()

    def kill(self, *, strands: bool = False) -> None:
        """Let its process die: connections break.

        Args:
          strands: what it was sending is lost between its databases, as happens to lnd under kill -9: the payments stay
            IN_FLIGHT for ever, though no channel has an HTLC for them.
        """
        self.rpcs.tear_streams()
        if strands:
            self._engine.strand(self.name)
        self._down()

    def start(self, state: WalletState = WalletState.SERVER_ACTIVE) -> None:
        """Start its process, in a state: LOCKED if its wallet has a password."""
        self.rpcs.up = True
        self.rpcs.life += 1
        self.set_state(state)

    def restart(self) -> None:
        """Shut it down and start it."""
        self.stop()
        self.start()

    def lock(self, for_s: float = math.inf) -> None:
        """Restart it, and leave its wallet locked, for a time or until `unlock`."""
        self.stop()
        self.start(WalletState.LOCKED)
        if for_s < math.inf:
            self._driver.later(for_s, self._unlock_if_locked)

    def unlock(self) -> None:
        """Unlock its wallet: it goes through all states to SERVER_ACTIVE."""
        for state in (WalletState.UNLOCKED, WalletState.RPC_ACTIVE, WalletState.SERVER_ACTIVE):
            self.set_state(state)

    def _unlock_if_locked(self) -> None:
        if self.node.state is WalletState.LOCKED:
            self.unlock()

    def set_state(self, state: WalletState) -> None:
        """Put it into a wallet state."""
        self._engine.set_state(self.name, state)
        self._driver.step()

    def set_synced(self, synced: bool) -> None:
        """Let its chain be behind, or not."""
        self.node.synced = synced
        self.rpcs.changed()

    def set_accepts_keysend(self, accepts: bool) -> None:
        """Run it with or without --accept-keysend."""
        self.node.accepts_keysend = accepts
        self.rpcs.changed()

    def drop_connections(self) -> None:
        """Break every connection of its clients; new ones work."""
        self.rpcs.tear_streams()

    def _down(self) -> None:
        self.rpcs.up = False
        self.set_state(WalletState.WAITING_TO_START)

    # --- its payments ---

    def fail_next_payment(self, reason: PaymentFailure, *, after_attempt: bool = False) -> None:
        """Fail a payment that it is asked to make: with no HTLC tried, or with one that came back."""
        self.node.planned.append(PlannedFailure(reason=reason, after_attempt=after_attempt))

    def lose_next_answer(self) -> None:
        """Break the connection of the next payment that ends just before its caller is told."""
        self.rpcs.lose_answers += 1

    def strand_next_payment(self) -> None:
        """Leave the next payment IN_FLIGHT for ever, with an attempt that no channel has an HTLC for."""
        self.node.strands += 1

    def reset_mission_control(self) -> None:
        """Let it forget which hops have failed, as `lncli resetmc` does."""
        self.node.mission_control.reset()

    def delay_arrivals(self, delay_s: float) -> None:
        """Make every HTLC that is sent to it from now on take longer, while it stays in flight."""
        self.node.delay_s = delay_s

    def go_offline(self, for_s: float = math.inf) -> None:
        """Lose the connections to all peers, for a time or until `go_online`; its RPCs go on."""
        self._connect(connected=False)
        if for_s < math.inf:
            self._driver.later(for_s, partial(self._connect, connected=True))

    def go_online(self) -> None:
        """Find all peers again."""
        self._connect(connected=True)

    def disconnect(self, peer: "SimLnd", for_s: float = math.inf) -> None:
        """Lose the connection to one peer, for a time or until `connect`: their channels become inactive."""
        self._join(peer.name, connected=False)
        if for_s < math.inf:
            self._driver.later(for_s, partial(self._join, peer.name, connected=True))

    def connect(self, peer: "SimLnd") -> None:
        """Find a peer again."""
        self._join(peer.name, connected=True)

    def _join(self, peer: str, *, connected: bool) -> None:
        self._engine.connect(self.name, peer, connected=connected)
        self._driver.step()

    def _connect(self, *, connected: bool) -> None:
        for channel in self._engine.world.graph.channels_of(self.name):
            self._engine.connect(self.name, channel.peer(self.name), connected=connected)
        self._driver.step()

    # --- its invoices ---

    def add_invoice(self, value: Msat, *, memo: str = "", expiry_s: int = 86_400, private: bool = False) -> Invoice:
        """Make an ordinary invoice, with a random preimage."""
        ask = Ask(value=value, memo=memo, expiry_s=expiry_s, private=private)
        invoice = self._engine.add_invoice(self.name, ask)
        self._driver.step()
        return invoice

    def cancel_invoice(self, payment_hash: PaymentHash) -> None:
        """Cancel an invoice, or give back what is held for it."""
        self._engine.cancel_invoice(self.name, payment_hash)
        self._driver.step()

    def settle_invoice(self, preimage: Preimage) -> None:
        """Take what is held for an invoice."""
        self._engine.settle_invoice(self.name, preimage)
        self._driver.step()

    def hold_keysends(self, hold_s: float) -> None:
        """Run it with --keysend-hold-time: keysends from now on are held, and given back after that."""
        self.node.keysend_hold_s = hold_s

    def pause_between_open_and_settled(self, gap_s: float) -> None:
        """Insert keysend invoices some time before settling them, so that a restart can come between."""
        self.node.settle_gap_s = gap_s

    def renumber(self) -> None:
        """Migrate its invoices from the key-value database to native SQL: indexes change, and so do their rules.

        It takes a restart, unless the node is stopped: then it stays so.
        """
        was_up = self.rpcs.up
        if was_up:
            self.stop()
        self._engine.renumber(self.name)
        if was_up:
            self.start()
        else:
            self._driver.step()

    def skip_indexes(self, *, added: int = 0, settled: int = 0) -> None:
        """Leave gaps in its invoices' counters."""
        self.node.invoices.skip(added=added, settled=settled)

    # --- its malice ---

    def override_records(self, records: Records) -> None:
        """Put records into the wire message of every HTLC it hands to its receiver: there they win over the onion's."""
        self.node.overriding = dict(records)

    def forge_htlc(
        self, receiver: "SimLnd", payment_hash: PaymentHash, records: Mapping[int, bytes], *, amount: Msat
    ) -> None:
        """Send a peer one more HTLC for a keysend it has settled, with records that its sender never wrote.

        Args:
          receiver: a node it has a channel with.
          payment_hash: of the keysend; whoever forwarded it knows the preimage.
          records: what the new HTLC carries.
          amount: at least the invoice's.
        """
        preimage = receiver.node.invoices.lookup(payment_hash).preimage
        assert preimage is not None, "whoever forwards a keysend that is settled knows its preimage"
        forged = {**records, PREIMAGE_RECORD: preimage.raw}
        self._engine.forge(self.name, receiver.name, payment_hash, forged, amount)
        self._driver.step()
