CREATE TABLE payments (
    tenant TEXT NOT NULL, id TEXT NOT NULL, upstream TEXT NOT NULL, alias TEXT, machine TEXT NOT NULL,
    currency TEXT NOT NULL, authorised INTEGER NOT NULL, captured INTEGER NOT NULL, voided INTEGER NOT NULL,
    refunded INTEGER NOT NULL, disputed INTEGER NOT NULL, pending TEXT NOT NULL, unknown INTEGER NOT NULL,
    violation TEXT NOT NULL, version INTEGER NOT NULL, events INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_aliases (
    tenant TEXT NOT NULL, upstream TEXT NOT NULL, alias TEXT NOT NULL, payment TEXT NOT NULL,
    PRIMARY KEY (tenant, upstream, alias)
) STRICT, WITHOUT ROWID;
CREATE TABLE reservations (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, payment TEXT NOT NULL, command TEXT NOT NULL, amount INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('in_flight', 'unknown', 'answered')), reserved_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_by_payment ON reservations (tenant, payment);
CREATE TABLE facts (
    tenant TEXT NOT NULL, upstream TEXT NOT NULL, alias TEXT NOT NULL, source TEXT, parked TEXT, currency TEXT,
    received_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX facts_by_source ON facts (tenant, upstream, alias, source);
CREATE INDEX facts_by_age ON facts (received_at);
CREATE TABLE calls (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, route TEXT NOT NULL, upstream TEXT NOT NULL,
    in_doubt TEXT NOT NULL CHECK (in_doubt IN ('replay', 'query', 'manual')),
    state TEXT NOT NULL CHECK (state IN ('in_flight', 'unknown')), attempt INTEGER NOT NULL,
    sent_at INTEGER NOT NULL, doubted_at INTEGER, next_at INTEGER, key_scope BLOB, sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, owner)
) STRICT;
CREATE INDEX calls_unknown ON calls (next_at, doubted_at) WHERE state = 'unknown';
CREATE TABLE outbox (
    tenant TEXT NOT NULL, id TEXT NOT NULL, aggregatetype TEXT NOT NULL DEFAULT 'payment', aggregateid TEXT NOT NULL,
    type TEXT NOT NULL, payload TEXT NOT NULL, sequence INTEGER NOT NULL, created_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'due', 'parked', 'sent')),
    attempts INTEGER NOT NULL DEFAULT 0, next_at INTEGER NOT NULL, leased_until INTEGER NOT NULL DEFAULT 0, note TEXT
) STRICT;
CREATE UNIQUE INDEX outbox_by_payment ON outbox (tenant, aggregateid, sequence);
CREATE UNIQUE INDEX outbox_by_id ON outbox (tenant, id);
CREATE INDEX outbox_unsent ON outbox (state, next_at, created_at) WHERE state <> 'sent';
CREATE INDEX outbox_by_age ON outbox (created_at);
