"""The tables, as numbered migrations: applied once each, in order, never edited after a release."""

from collections.abc import Set as AbstractSet
from typing import Final

from sqlcipher3 import dbapi2

from impervious.errors import StoreError

_HOUSE: Final = """
-- The durable log: everything that happened, in the order in which it is shown.
CREATE TABLE event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  id BLOB NOT NULL,
  reply_to BLOB,
  sender BLOB,
  service_type TEXT NOT NULL,
  topic TEXT NOT NULL,
  data BLOB NOT NULL,
  amount_msat INTEGER NOT NULL,
  sent_at_ms INTEGER NOT NULL,
  verified INTEGER NOT NULL,
  public INTEGER NOT NULL,
  written_at_ms INTEGER NOT NULL
);
CREATE INDEX event_topic ON event (topic, seq);

-- How far each reader of the log has come.
CREATE TABLE reader (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;

-- How far we have read the Lightning node's settled invoices.
CREATE TABLE invoice_cursor (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  settle_index INTEGER NOT NULL,
  add_index INTEGER NOT NULL,
  newest_s INTEGER NOT NULL
);

-- Each invoice and each message is processed once, ever: these are never pruned.
CREATE TABLE processed_invoice (payment_hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE seen_message (id BLOB NOT NULL, sender BLOB NOT NULL, PRIMARY KEY (id, sender)) WITHOUT ROWID;

-- Messages of which parts are missing. Without a sender the header has not come.
CREATE TABLE assembly (
  record_type INTEGER NOT NULL,
  id BLOB NOT NULL,
  sender BLOB,
  header BLOB,
  ord INTEGER,
  bytes INTEGER NOT NULL,
  amount_msat INTEGER NOT NULL,
  began_at_ms INTEGER NOT NULL,
  touched_at_ms INTEGER NOT NULL,
  PRIMARY KEY (record_type, id)
) WITHOUT ROWID;
CREATE INDEX assembly_of ON assembly (sender, began_at_ms);
CREATE TABLE fragment (
  record_type INTEGER NOT NULL,
  id BLOB NOT NULL,
  position INTEGER NOT NULL,
  payload BLOB NOT NULL,
  FOREIGN KEY (record_type, id) REFERENCES assembly (record_type, id) ON DELETE CASCADE
);
CREATE INDEX fragment_of ON fragment (record_type, id);

-- Complete messages that came before an earlier one of the same sender.
CREATE TABLE held (
  sender BLOB NOT NULL,
  ord INTEGER NOT NULL,
  id BLOB NOT NULL,
  reply_to BLOB,
  service_type TEXT,
  data BLOB NOT NULL,
  amount_msat INTEGER NOT NULL,
  sent_at_ms INTEGER NOT NULL,
  held_at_ms INTEGER NOT NULL,
  PRIMARY KEY (sender, ord, id)
) WITHOUT ROWID;
CREATE TABLE inbound_order (sender BLOB PRIMARY KEY, shown INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE inbound_void (sender BLOB NOT NULL, ord INTEGER NOT NULL, PRIMARY KEY (sender, ord)) WITHOUT ROWID;

-- Payments to us that are no message of anybody.
CREATE TABLE quarantine (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  payment_hash BLOB NOT NULL,
  reason TEXT NOT NULL,
  record_type INTEGER,
  value BLOB NOT NULL,
  amount_msat INTEGER NOT NULL,
  at_ms INTEGER NOT NULL
);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- Messages we send, and the payments that carry them.
CREATE TABLE outbound (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  recipient BLOB NOT NULL,
  service_type TEXT NOT NULL,
  record_type INTEGER NOT NULL,
  payload BLOB NOT NULL,
  amount_msat INTEGER NOT NULL,
  reply_to BLOB,
  ord INTEGER NOT NULL,
  state TEXT NOT NULL,
  accepted_at_ms INTEGER NOT NULL,
  deadline_ms INTEGER,
  header BLOB,
  signature BLOB,
  outcome TEXT
);
CREATE INDEX outbound_open ON outbound (number) WHERE state IN ('accepted', 'sending');
CREATE TABLE part (
  payment_hash BLOB PRIMARY KEY,
  message_id BLOB NOT NULL REFERENCES outbound (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  length INTEGER NOT NULL,
  preimage BLOB NOT NULL,
  amount_msat INTEGER NOT NULL,
  fee_limit_msat INTEGER NOT NULL,
  fee_msat INTEGER NOT NULL,
  state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX part_of ON part (message_id, position);
CREATE TABLE outbound_order (recipient BLOB PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE outbound_void (
  recipient BLOB NOT NULL,
  ord INTEGER NOT NULL,
  PRIMARY KEY (recipient, ord)
) WITHOUT ROWID;

-- What was, or may still be, spent: the budget of any 24 hours.
CREATE TABLE spending (
  id BLOB PRIMARY KEY,
  service_type TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  msat INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX spending_at ON spending (at_ms);

-- An id that was given for a key, and for which request.
CREATE TABLE idempotency (
  service_type TEXT NOT NULL,
  key TEXT NOT NULL,
  request_sha256 BLOB NOT NULL,
  id BLOB NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (service_type, key)
) WITHOUT ROWID;

-- What we know of ourselves while the Lightning node is away.
CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), pubkey BLOB NOT NULL);

-- How far each service has brought its own tables.
CREATE TABLE service_schema (service_type TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
"""

_FEDERATION: Final = """
-- Events may have a side that only those see who ask for it.
ALTER TABLE event ADD COLUMN secret BLOB;

-- Nodes that we have federated with.
CREATE TABLE peer (
  pubkey BLOB PRIMARY KEY,
  imp_id TEXT NOT NULL,
  since_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  services TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX peer_named ON peer (imp_id);
CREATE INDEX peer_expires ON peer (expires_ms);

-- Messages of ours that ask for an answer and have none: no other answer counts.
CREATE TABLE open_request (
  id BLOB PRIMARY KEY,
  recipient BLOB NOT NULL,
  service_type TEXT NOT NULL,
  expires_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- What we answered by ourselves, for the limits of that.
CREATE TABLE auto_answer (
  number INTEGER PRIMARY KEY,
  recipient BLOB NOT NULL,
  at_ms INTEGER NOT NULL,
  msat INTEGER NOT NULL
);
CREATE INDEX auto_answer_to ON auto_answer (recipient, at_ms);
CREATE INDEX auto_answer_at ON auto_answer (at_ms);
"""

_COVERED: Final = """
-- What came in for a message that is an answer or a debt: only what it costs beyond that is spending.
ALTER TABLE outbound ADD COLUMN received_msat INTEGER NOT NULL DEFAULT 0;

-- An automatic answer counts with what it costs beyond what its request brought: so far no answer cost more.
ALTER TABLE auto_answer ADD COLUMN id BLOB;
CREATE INDEX auto_answer_id ON auto_answer (id) WHERE id IS NOT NULL;
UPDATE auto_answer SET msat = 0;
CREATE INDEX auto_answer_cost ON auto_answer (at_ms, msat) WHERE msat > 0;
"""

_PROGRESS: Final = """
-- What the stream was last told of a message that has not ended (JSON): told once, also across restarts.
ALTER TABLE outbound ADD COLUMN progress TEXT;
"""

_MARK: Final = """
-- Whose database it is: `file` and other programs look at this ("IMPV").
PRAGMA application_id = 0x494d5056;
"""

_NAMES: Final = """
-- A name belongs to the peer that had it first. A peer that nobody here asked for is a stranger: they are counted.
ALTER TABLE peer ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN stranger INTEGER NOT NULL DEFAULT 0;
UPDATE peer SET owner = 1 WHERE pubkey =
  (SELECT first.pubkey FROM peer AS first WHERE first.imp_id = peer.imp_id ORDER BY since_ms, pubkey LIMIT 1);
CREATE UNIQUE INDEX peer_owner ON peer (imp_id) WHERE owner;
CREATE INDEX peer_stranger ON peer (expires_ms) WHERE stranger;

-- Requests of ours are found by when they end and by whom they went to.
CREATE INDEX open_request_expires ON open_request (expires_ms);
CREATE INDEX open_request_to ON open_request (recipient, service_type);
"""

_HISTORY: Final = """
-- Which history this is, and how far it has come: in time, and in the Lightning node's payments.
CREATE TABLE history (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch BLOB NOT NULL,
  clock_ms INTEGER NOT NULL,
  payment_index INTEGER NOT NULL,
  payment_created_s INTEGER NOT NULL
);
INSERT INTO history VALUES (1, randomblob(16), 0, 0, 0);
"""

_RETENTION: Final = """
-- How large the log is, so that it is never counted. Added to by `Tx.emit`: a trigger there would hide a full disk, of
-- which SQLite then undoes the statement only. Events may also be deleted by hand.
CREATE TABLE log_size (service_type TEXT PRIMARY KEY, events INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO log_size
  SELECT service_type, count(*), sum(length(data) + coalesce(length(secret), 0)) FROM event GROUP BY service_type;
CREATE TRIGGER event_removed AFTER DELETE ON event BEGIN
  UPDATE log_size SET events = events - 1, bytes = bytes - length(old.data) - coalesce(length(old.secret), 0)
    WHERE service_type = old.service_type;
END;

-- What is forgotten in time is found by its time.
CREATE INDEX outbound_ended ON outbound (accepted_at_ms) WHERE outcome IS NOT NULL;
CREATE INDEX idempotency_at ON idempotency (at_ms);
"""

_DEBTS: Final = """
-- A debt that could not be delivered: how often it was tried in vain, and when it is tried again. It keeps its payload.
ALTER TABLE outbound ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbound ADD COLUMN retry_ms INTEGER;
DROP INDEX outbound_ended;
CREATE INDEX outbound_ended ON outbound (accepted_at_ms) WHERE outcome IS NOT NULL AND retry_ms IS NULL;
CREATE INDEX outbound_debt ON outbound (retry_ms) WHERE retry_ms IS NOT NULL;
"""

_BOUNDS: Final = """
-- Orders of a sender that will never come, as ranges of which no two touch: `store.order` bounds how many are kept.
CREATE TABLE void_range (
  sender BLOB NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (sender, first)
) WITHOUT ROWID;
INSERT INTO void_range
  SELECT sender, min(ord), max(ord) FROM
    (SELECT sender, ord, ord - row_number() OVER (PARTITION BY sender ORDER BY ord) AS island FROM inbound_void)
  GROUP BY sender, island;
DROP TABLE inbound_void;

-- The senders of held messages: how many, and when the first of them is looked at.
CREATE TABLE held_sender (
  sender BLOB PRIMARY KEY,
  messages INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  due_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX held_sender_due ON held_sender (due_ms);
INSERT INTO held_sender SELECT sender, count(*), sum(length(data)), min(held_at_ms) + 3000 FROM held GROUP BY sender;

-- Parts do not overlap any more, and are counted.
ALTER TABLE assembly ADD COLUMN parts INTEGER NOT NULL DEFAULT 0;
UPDATE assembly SET parts =
  (SELECT count(*) FROM fragment f WHERE f.record_type = assembly.record_type AND f.id = assembly.id);
DROP INDEX fragment_of;
CREATE INDEX fragment_at ON fragment (record_type, id, position);
CREATE INDEX assembly_began ON assembly (began_at_ms);

-- How much there is of messages whose header has not come: counted as they come and go, never by looking at all.
CREATE TABLE headerless (one INTEGER PRIMARY KEY CHECK (one = 1), messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO headerless SELECT 1, count(*), coalesce(sum(bytes), 0) FROM assembly WHERE sender IS NULL;
CREATE TRIGGER headerless_comes AFTER INSERT ON assembly WHEN new.sender IS NULL BEGIN
  UPDATE headerless SET messages = messages + 1, bytes = bytes + new.bytes;
END;
CREATE TRIGGER headerless_goes AFTER DELETE ON assembly WHEN old.sender IS NULL BEGIN
  UPDATE headerless SET messages = messages - 1, bytes = bytes - old.bytes;
END;
CREATE TRIGGER headerless_changes AFTER UPDATE OF sender, bytes ON assembly WHEN old.sender IS NULL BEGIN
  UPDATE headerless SET messages = messages - (new.sender IS NOT NULL),
    bytes = bytes - old.bytes + CASE WHEN new.sender IS NULL THEN new.bytes ELSE 0 END;
END;

-- Bytes put into quarantine up to and including a row: what is beyond the limit is a range of this.
ALTER TABLE quarantine ADD COLUMN through_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE quarantine SET through_bytes = kept.size FROM
  (SELECT number, sum(length(value) + 200) OVER (ORDER BY number) AS size FROM quarantine) AS kept
  WHERE kept.number = quarantine.number;
CREATE INDEX quarantine_through ON quarantine (through_bytes);
"""

_HINTS: Final = """
-- Ways to nodes that have only private channels, as they told them: bounded, the oldest go first.
CREATE TABLE route_hint (pubkey BLOB PRIMARY KEY, hints BLOB NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX route_hint_at ON route_hint (at_ms);
"""

_SET_BACK: Final = """
-- Whether the Lightning node has paid for messages that this database knows nothing of.
ALTER TABLE history ADD COLUMN set_back INTEGER NOT NULL DEFAULT 0;

-- Answers that were sent before the database was restored: their requests are read again and must cost nothing again.
CREATE TABLE answered (
  reply_to BLOB NOT NULL,
  recipient BLOB NOT NULL,
  id BLOB NOT NULL,
  service_type TEXT NOT NULL,
  PRIMARY KEY (reply_to, recipient, id)
) WITHOUT ROWID;
"""

_SPENT: Final = """
-- The sum of a day is read from an index alone, and what cost this node nothing is not in it.
CREATE INDEX spending_cost ON spending (at_ms, msat) WHERE msat > 0;
"""

_UNSHOWN: Final = """
-- Messages that have had their turn and wait for their service to say what streams show of them.
CREATE TABLE unshown (
  number INTEGER PRIMARY KEY,
  service_type TEXT NOT NULL,
  sender BLOB NOT NULL,
  id BLOB NOT NULL,
  reply_to BLOB,
  data BLOB NOT NULL,
  amount_msat INTEGER NOT NULL,
  sent_at_ms INTEGER NOT NULL
);
CREATE INDEX unshown_service ON unshown (service_type, number);
"""

_RELEASE: Final = """
-- What is needed to show a payment in quarantine after all, and whether the operator wants that.
ALTER TABLE quarantine ADD COLUMN service_type TEXT;
ALTER TABLE quarantine ADD COLUMN sender BLOB;
ALTER TABLE quarantine ADD COLUMN message_id BLOB;
ALTER TABLE quarantine ADD COLUMN sent_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX quarantine_wanted ON quarantine (number) WHERE wanted;
"""

_ORDER: Final = """
-- Messages that may be out of their sender's order: 'gap' or 'late' (`model.Event.order`).
CREATE TABLE event_order (seq INTEGER PRIMARY KEY REFERENCES event (seq) ON DELETE CASCADE, mark TEXT NOT NULL);
ALTER TABLE unshown ADD COLUMN order_mark TEXT NOT NULL DEFAULT '';
"""

MIGRATIONS: Final = (
    _HOUSE,
    _FEDERATION,
    _COVERED,
    _PROGRESS,
    _MARK,
    _NAMES,
    _HISTORY,
    _RETENTION,
    _DEBTS,
    _BOUNDS,
    _HINTS,
    _SET_BACK,
    _SPENT,
    _UNSHOWN,
    _RELEASE,
    _ORDER,
)

APPLICATION_ID: Final = 0x494D5056
_FIRST_TABLES: Final = frozenset({"event", "reader", "processed_invoice", "seen_message", "outbound", "part"})
"""Some that every database of ours has had since the first migration."""


def is_ours(names: AbstractSet[str], mark: int, version: int) -> bool:
    """Whether a database is one of ours, or empty and of no program's.

    Args:
      names: of everything in it: tables, indexes, views and triggers.
      mark: its application id.
      version: its user version.
    """
    if mark:
        return mark == APPLICATION_ID
    return names >= _FIRST_TABLES or (not names and not version)


def names_in(connection: dbapi2.Connection) -> set[str]:
    """Return the names of all tables, indexes, views and triggers."""
    return {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master").fetchall()}


def application_id(connection: dbapi2.Connection) -> int:
    """Return what says whose database it is; 0: nothing does."""
    row = connection.execute("PRAGMA application_id").fetchone()
    return int(row[0]) if row else 0


def version_of(connection: dbapi2.Connection) -> int:
    """Return how many migrations a database has had."""
    row = connection.execute("PRAGMA user_version").fetchone()
    return int(row[0]) if row else 0


def migrate(connection: dbapi2.Connection) -> None:
    """Bring a database to the newest version, each step in a transaction of its own.

    Raises:
      StoreError: a newer program made it.
    """
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise StoreError("the database was made by a newer version of impervious: install that one")
    for number in range(version, len(MIGRATIONS)):
        script = MIGRATIONS[number]
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number + 1};\nCOMMIT;")
