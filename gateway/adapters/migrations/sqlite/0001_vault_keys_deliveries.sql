CREATE TABLE tokens (
    tenant TEXT NOT NULL, token TEXT NOT NULL, class TEXT NOT NULL, format TEXT NOT NULL,
    fingerprint BLOB, sealed BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, token)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX tokens_by_value ON tokens (tenant, fingerprint, class, format) WHERE fingerprint IS NOT NULL;
CREATE TABLE reveals (
    tenant TEXT NOT NULL, exchange TEXT NOT NULL, position INTEGER NOT NULL, token TEXT, codes INTEGER NOT NULL,
    principal TEXT NOT NULL, route TEXT NOT NULL, destination TEXT NOT NULL, intended_at INTEGER NOT NULL,
    outcome TEXT, settled_at INTEGER,
    PRIMARY KEY (tenant, exchange, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE keys (
    tenant TEXT NOT NULL, scope BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('in_flight', 'unknown', 'done')),
    fingerprint BLOB NOT NULL, owner TEXT NOT NULL, response BLOB,
    claimed_at INTEGER NOT NULL, settled_at INTEGER, expires_at INTEGER,
    PRIMARY KEY (tenant, scope)
) STRICT;
CREATE INDEX keys_by_state ON keys (state, expires_at);
CREATE TABLE deliveries (
    tenant TEXT NOT NULL, id TEXT NOT NULL, route TEXT NOT NULL, provider TEXT NOT NULL, key TEXT NOT NULL,
    digest BLOB NOT NULL, sealed BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'forwarded', 'parked', 'quarantined')),
    received_at INTEGER NOT NULL, next_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    forwarded_at INTEGER, note TEXT,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE UNIQUE INDEX deliveries_by_key ON deliveries (tenant, key, route, provider, digest);
CREATE INDEX deliveries_pending ON deliveries (received_at, next_at) WHERE state = 'pending';
