CREATE TABLE nodes (
    node text NOT NULL PRIMARY KEY, epoch bigint NOT NULL, leased_until timestamptz NOT NULL
);
CREATE TABLE tokens (
    tenant text NOT NULL, token text NOT NULL, class text NOT NULL, format text NOT NULL,
    fingerprint bytea, sealed bytea NOT NULL, created_at bigint NOT NULL,
    PRIMARY KEY (tenant, token)
);
CREATE UNIQUE INDEX tokens_by_value ON tokens (tenant, fingerprint, class, format) WHERE fingerprint IS NOT NULL;
CREATE TABLE reveals (
    tenant text NOT NULL, exchange text NOT NULL, position bigint NOT NULL, token text, codes bigint NOT NULL,
    principal text NOT NULL, route text NOT NULL, destination text NOT NULL, intended_at bigint NOT NULL,
    outcome text, settled_at bigint,
    PRIMARY KEY (tenant, exchange, position)
);
CREATE TABLE keys (
    tenant text NOT NULL, scope bytea NOT NULL, state text NOT NULL CHECK (state IN ('in_flight', 'unknown', 'done')),
    fingerprint bytea NOT NULL, owner text NOT NULL, response bytea,
    claimed_at bigint NOT NULL, settled_at bigint, expires_at bigint,
    holder text NOT NULL DEFAULT current_setting('pangate.holder'),
    PRIMARY KEY (tenant, scope)
);
CREATE INDEX keys_expired ON keys (expires_at) WHERE state = 'done';
CREATE INDEX keys_in_flight ON keys (holder) WHERE state = 'in_flight';
CREATE TABLE deliveries (
    tenant text NOT NULL, id text NOT NULL, route text NOT NULL, provider text NOT NULL, key text NOT NULL,
    digest bytea NOT NULL, sealed bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'forwarded', 'parked', 'quarantined')),
    received_at bigint NOT NULL, next_at bigint NOT NULL, attempts bigint NOT NULL DEFAULT 0,
    forwarded_at bigint, note text,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX deliveries_by_key ON deliveries (tenant, key, route, provider, digest);
CREATE UNIQUE INDEX deliveries_accepted ON deliveries (tenant, key, route, provider) WHERE state <> 'quarantined';
CREATE INDEX deliveries_pending ON deliveries (received_at, next_at) WHERE state = 'pending';
CREATE TABLE payments (
    tenant text NOT NULL, id text NOT NULL, upstream text NOT NULL, alias text, machine text NOT NULL,
    currency text NOT NULL, authorised bigint NOT NULL, captured bigint NOT NULL, voided bigint NOT NULL,
    refunded bigint NOT NULL, disputed bigint NOT NULL, pending text NOT NULL, unknown bigint NOT NULL,
    violation text NOT NULL, version bigint NOT NULL, events bigint NOT NULL,
    created_at bigint NOT NULL, updated_at bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE TABLE payment_aliases (
    tenant text NOT NULL, upstream text NOT NULL, alias text NOT NULL, payment text NOT NULL,
    PRIMARY KEY (tenant, upstream, alias)
);
CREATE TABLE reservations (
    tenant text NOT NULL, owner text NOT NULL, payment text NOT NULL, command text NOT NULL, amount bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('in_flight', 'unknown', 'answered')), reserved_at bigint NOT NULL,
    PRIMARY KEY (tenant, owner)
);
CREATE INDEX reservations_by_payment ON reservations (tenant, payment);
CREATE TABLE facts (
    tenant text NOT NULL, id uuid NOT NULL DEFAULT gen_random_uuid(), upstream text NOT NULL, alias text NOT NULL,
    source text, parked text, currency text, received_at bigint NOT NULL, position bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX facts_by_source ON facts (tenant, upstream, alias, source);
CREATE INDEX facts_by_age ON facts (received_at);
CREATE TABLE calls (
    tenant text NOT NULL, owner text NOT NULL, route text NOT NULL, upstream text NOT NULL,
    in_doubt text NOT NULL CHECK (in_doubt IN ('replay', 'query', 'manual')),
    state text NOT NULL CHECK (state IN ('in_flight', 'unknown')), attempt bigint NOT NULL,
    sent_at bigint NOT NULL, doubted_at bigint, next_at bigint, key_scope bytea, sealed bytea NOT NULL,
    holder text NOT NULL DEFAULT current_setting('pangate.holder'),
    PRIMARY KEY (tenant, owner)
);
CREATE INDEX calls_unknown ON calls (next_at, doubted_at) WHERE state = 'unknown';
CREATE INDEX calls_in_flight ON calls (holder, sent_at) WHERE state = 'in_flight';
CREATE TABLE outbox (
    tenant text NOT NULL, id text NOT NULL, aggregatetype text NOT NULL DEFAULT 'payment', aggregateid text NOT NULL,
    type text NOT NULL, payload text NOT NULL, sequence bigint NOT NULL, created_at bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'due', 'parked', 'sent')),
    attempts bigint NOT NULL DEFAULT 0, next_at bigint NOT NULL, leased_until bigint NOT NULL DEFAULT 0, note text,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX outbox_by_payment ON outbox (tenant, aggregateid, sequence);
CREATE INDEX outbox_due ON outbox (next_at) WHERE state = 'due';
CREATE INDEX outbox_unsent ON outbox (created_at) WHERE state <> 'sent';
CREATE INDEX outbox_by_age ON outbox (created_at);
