CREATE INDEX facts_parked ON facts (tenant, upstream, alias) WHERE parked IS NOT NULL;
