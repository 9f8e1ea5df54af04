CREATE INDEX tokens_by_merchant ON tokens (tenant, merchant) WHERE merchant IS NOT NULL;
