ALTER TABLE tokens ADD COLUMN deleted_at INTEGER;
CREATE INDEX reveals_by_token ON reveals (tenant, token) WHERE token IS NOT NULL;
CREATE TABLE audit (
    tenant TEXT NOT NULL, chain TEXT NOT NULL, sequence INTEGER NOT NULL, at INTEGER NOT NULL, skew INTEGER NOT NULL,
    event TEXT NOT NULL, exchange TEXT NOT NULL, principal TEXT NOT NULL, origin TEXT NOT NULL, route TEXT NOT NULL,
    destination TEXT NOT NULL, purpose TEXT NOT NULL, token BLOB, outcome TEXT NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, chain, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_by_token ON audit (tenant, token) WHERE token IS NOT NULL;
CREATE INDEX audit_by_exchange ON audit (tenant, exchange) WHERE event = 'settled';
CREATE TABLE audit_ends (
    tenant TEXT NOT NULL, chain TEXT NOT NULL, mark TEXT NOT NULL CHECK (mark IN ('head', 'base')),
    sequence INTEGER NOT NULL, mac BLOB NOT NULL, at INTEGER NOT NULL, seal BLOB NOT NULL,
    PRIMARY KEY (tenant, chain, mark)
) STRICT, WITHOUT ROWID;
