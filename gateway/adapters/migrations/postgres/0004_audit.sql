ALTER TABLE tokens ADD COLUMN deleted_at bigint;
CREATE INDEX reveals_by_token ON reveals (tenant, token) WHERE token IS NOT NULL;
CREATE TABLE audit (
    tenant text NOT NULL, chain text NOT NULL, sequence bigint NOT NULL, at bigint NOT NULL, skew bigint NOT NULL,
    event text NOT NULL, exchange text NOT NULL, principal text NOT NULL, origin text NOT NULL, route text NOT NULL,
    destination text NOT NULL, purpose text NOT NULL, token bytea, outcome text NOT NULL, mac bytea NOT NULL,
    PRIMARY KEY (tenant, chain, sequence)
);
CREATE INDEX audit_by_token ON audit (tenant, token) WHERE token IS NOT NULL;
CREATE INDEX audit_by_exchange ON audit (tenant, exchange) WHERE event = 'settled';
CREATE TABLE audit_ends (
    tenant text NOT NULL, chain text NOT NULL, mark text NOT NULL CHECK (mark IN ('head', 'base')),
    sequence bigint NOT NULL, mac bytea NOT NULL, at bigint NOT NULL, seal bytea NOT NULL,
    PRIMARY KEY (tenant, chain, mark)
);
