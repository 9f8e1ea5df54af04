CREATE TABLE vault_keys (
    tenant TEXT NOT NULL, purpose TEXT NOT NULL, version INTEGER NOT NULL, under INTEGER NOT NULL, wrapped BLOB NOT NULL,
    created_at INTEGER NOT NULL, retired_at INTEGER, destroyed_at INTEGER, uses INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, purpose, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE vault_rewraps (
    tenant TEXT NOT NULL PRIMARY KEY, rate INTEGER NOT NULL, requested_at INTEGER NOT NULL, began_at INTEGER NOT NULL,
    after TEXT NOT NULL, seen INTEGER NOT NULL, total INTEGER NOT NULL, changed INTEGER NOT NULL, renewed INTEGER NOT NULL,
    finished_at INTEGER, taken_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE tokens ADD COLUMN fingerprint_odd BLOB;
ALTER TABLE tokens ADD COLUMN merchant TEXT;
ALTER TABLE tokens ADD COLUMN expiry TEXT;
CREATE UNIQUE INDEX tokens_by_odd_value ON tokens (tenant, fingerprint_odd, class, format)
    WHERE fingerprint_odd IS NOT NULL;
