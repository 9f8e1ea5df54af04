ALTER TABLE deliveries ADD COLUMN leased_until bigint NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN leased_until bigint NOT NULL DEFAULT 0;
