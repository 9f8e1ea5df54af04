CREATE TABLE vault_keys (
    tenant text NOT NULL, purpose text NOT NULL, version bigint NOT NULL, under bigint NOT NULL, wrapped bytea NOT NULL,
    created_at bigint NOT NULL, retired_at bigint, destroyed_at bigint, uses bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, purpose, version)
);
CREATE TABLE vault_rewraps (
    tenant text NOT NULL PRIMARY KEY, rate bigint NOT NULL, requested_at bigint NOT NULL, began_at bigint NOT NULL,
    after text NOT NULL, seen bigint NOT NULL, total bigint NOT NULL, changed bigint NOT NULL, renewed bigint NOT NULL,
    finished_at bigint, taken_until bigint NOT NULL
);
ALTER TABLE tokens ADD COLUMN fingerprint_odd bytea;
ALTER TABLE tokens ADD COLUMN merchant text;
ALTER TABLE tokens ADD COLUMN expiry text;
CREATE UNIQUE INDEX tokens_by_odd_value ON tokens (tenant, fingerprint_odd, class, format)
    WHERE fingerprint_odd IS NOT NULL;
