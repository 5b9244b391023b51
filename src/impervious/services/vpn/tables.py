"""The tables of both sides of a tunnel. Two living contracts can never share a key or an address: an index sees to it.

Keys and ids are blobs, times are milliseconds since 1970, money is msat, and a contract's place in its life is the
word that the code has for it.
"""

from typing import Final

MIGRATIONS: Final = (
    """
    -- Quotes that this node gave. A quote that was accepted has a contract of the same nonce.
    CREATE TABLE vpn_offer (
      nonce TEXT PRIMARY KEY,
      buyer BLOB NOT NULL,
      address TEXT NOT NULL,
      hours INTEGER NOT NULL,
      span_ms INTEGER NOT NULL,
      price_msat INTEGER NOT NULL,
      expires_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX vpn_offer_expires ON vpn_offer (expires_ms);

    -- Contracts that this node sold. What is not gone may be on the interface.
    CREATE TABLE vpn_sold (
      nonce TEXT PRIMARY KEY,
      buyer BLOB NOT NULL,
      request BLOB NOT NULL,
      key BLOB NOT NULL,
      preshared_key BLOB,
      address TEXT NOT NULL,
      hours INTEGER NOT NULL,
      price_msat INTEGER NOT NULL,
      paid_ms INTEGER NOT NULL,
      expires_ms INTEGER NOT NULL,
      span_ms INTEGER NOT NULL,
      told_ms INTEGER,
      phase TEXT NOT NULL CHECK (phase IN ('paid', 'active', 'ended', 'gone')),
      ended_ms INTEGER NOT NULL,
      gone_ms INTEGER NOT NULL,
      reason TEXT NOT NULL,
      received_bytes INTEGER NOT NULL,
      sent_bytes INTEGER NOT NULL,
      last_received_bytes INTEGER NOT NULL,
      last_sent_bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX vpn_sold_key ON vpn_sold (key) WHERE phase <> 'gone';
    CREATE UNIQUE INDEX vpn_sold_address ON vpn_sold (address) WHERE phase <> 'gone';
    CREATE INDEX vpn_sold_gone ON vpn_sold (gone_ms) WHERE phase = 'gone';

    -- The seller's accounts: what came in bought time, went back, or paid for going back.
    CREATE TABLE vpn_entry (
      number INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      cause BLOB NOT NULL,
      nonce TEXT NOT NULL,
      received_msat INTEGER NOT NULL,
      sold_msat INTEGER NOT NULL,
      refunded_msat INTEGER NOT NULL,
      kept_msat INTEGER NOT NULL,
      CHECK (received_msat = sold_msat + refunded_msat + kept_msat)
    );

    -- Requests that this node made.
    CREATE TABLE vpn_asked (
      id BLOB PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      seller BLOB NOT NULL,
      question TEXT NOT NULL,
      nonce TEXT NOT NULL,
      amount_msat INTEGER NOT NULL,
      open INTEGER NOT NULL
    ) WITHOUT ROWID;

    -- Quotes that came.
    CREATE TABLE vpn_seen (
      seller BLOB NOT NULL,
      nonce TEXT NOT NULL,
      price_msat INTEGER NOT NULL,
      hours INTEGER NOT NULL,
      expires_ms INTEGER NOT NULL,
      PRIMARY KEY (seller, nonce)
    ) WITHOUT ROWID;

    -- Contracts that this node bought; those without an end have no tunnel yet. `config` is what the seller sent.
    CREATE TABLE vpn_bought (
      seller BLOB NOT NULL,
      nonce TEXT NOT NULL,
      request BLOB NOT NULL,
      private_key BLOB NOT NULL,
      price_msat INTEGER NOT NULL,
      hours INTEGER NOT NULL,
      stage TEXT NOT NULL CHECK (stage IN ('paying', 'active', 'failed', 'refused', 'over')),
      expires_ms INTEGER,
      span_ms INTEGER,
      told_ms INTEGER,
      config TEXT,
      renewing BLOB,
      budget_msat INTEGER NOT NULL,
      renewals_msat INTEGER NOT NULL,
      returned_msat INTEGER NOT NULL,
      reason TEXT NOT NULL,
      PRIMARY KEY (seller, nonce)
    ) WITHOUT ROWID;
    CREATE INDEX vpn_bought_live ON vpn_bought (stage) WHERE stage IN ('paying', 'active');
    """,
    """
    -- Which requests the budget of a contract paid for that renews itself.
    ALTER TABLE vpn_asked ADD COLUMN automatic INTEGER NOT NULL DEFAULT 0;

    -- Sellers that do not answer: when a request arrived, and whether it was said that the answer is overdue.
    ALTER TABLE vpn_asked ADD COLUMN arrived_ms INTEGER;
    ALTER TABLE vpn_asked ADD COLUMN overdue INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX vpn_asked_awaited ON vpn_asked (arrived_ms) WHERE open AND arrived_ms IS NOT NULL AND NOT overdue;

    -- SQLite can change a CHECK only by copying the table.
    CREATE TABLE vpn_bought_new (
      seller BLOB NOT NULL,
      nonce TEXT NOT NULL,
      request BLOB NOT NULL,
      private_key BLOB NOT NULL,
      price_msat INTEGER NOT NULL,
      hours INTEGER NOT NULL,
      stage TEXT NOT NULL CHECK (stage IN ('paying', 'unanswered', 'active', 'failed', 'refused', 'over')),
      expires_ms INTEGER,
      span_ms INTEGER,
      told_ms INTEGER,
      config TEXT,
      renewing BLOB,
      budget_msat INTEGER NOT NULL,
      renewals_msat INTEGER NOT NULL,
      returned_msat INTEGER NOT NULL,
      reason TEXT NOT NULL,
      PRIMARY KEY (seller, nonce)
    ) WITHOUT ROWID;
    INSERT INTO vpn_bought_new SELECT * FROM vpn_bought;
    DROP TABLE vpn_bought;
    ALTER TABLE vpn_bought_new RENAME TO vpn_bought;
    CREATE INDEX vpn_bought_live ON vpn_bought (stage) WHERE stage IN ('paying', 'unanswered', 'active');
    """,
    """
    -- What is forgotten in time is found by its time.
    CREATE INDEX vpn_asked_at ON vpn_asked (at_ms);
    CREATE INDEX vpn_seen_expires ON vpn_seen (expires_ms);
    """,
)
