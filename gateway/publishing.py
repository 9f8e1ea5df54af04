"""Publishers as the configuration describes them: made by `run`, and for `check` made and thrown away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.adapters.publishers import Reading, Webhook
from gateway.adapters.redis_stream import RedisStream, open_stream
from gateway.adapters.upstream import client_context
from gateway.config import events
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.load import Config
from gateway.ports import Publisher, Telemetry
from gateway.pure.webhooks import shared_key
from gateway.reaching import RedisServers


def make_publishers(
    config: Config,
    servers: RedisServers,
    read_secret: Callable[[str], bytes],
    now: Callable[[], float],
    telemetry: Telemetry,
) -> list[Publisher]:
    """All that `events.publish` lists; none of them connects before it is used. Raises ConfigError, with all of it."""
    made: list[Publisher] = []
    complaints: list[Complaint] = []
    for position, settings in enumerate(config.settings.events.publish):
        try:
            publisher: Publisher
            if isinstance(settings, events.RedisStream):
                publisher = _stream(servers, position, settings, telemetry)
            else:
                publisher = _webhook(config, position, settings, read_secret, now)
            made.append(publisher if settings.reader is None else _bounded(config, settings.reader, publisher))
        except ConfigError as error:
            complaints += error.complaints
    if complaints:
        raise ConfigError(complaints)
    return made


def _bounded(config: Config, reader: str, publisher: Publisher) -> Publisher:
    return Reading(publisher, config.settings.services[reader].reads)


def _stream(servers: RedisServers, position: int, settings: events.RedisStream, telemetry: Telemetry) -> RedisStream:
    topology, access = servers.reach(f"publishers.{settings.name}", ("events", "publish", position), settings)
    return open_stream(
        settings.name,
        topology,
        access,
        settings.stream,
        max_length=settings.max_length,
        timeout=settings.timeout,
        telemetry=telemetry,
    )


def _webhook(
    config: Config,
    position: int,
    settings: events.Webhook,
    read_secret: Callable[[str], bytes],
    now: Callable[[], float],
) -> Webhook:
    place = ("events", "publish", position)
    with config.blaming(*place, "secret"):
        key = shared_key(read_secret(settings.secret))
    with config.blaming(*place, "ca"):
        tls = client_context(Path(settings.ca) if settings.ca is not None else None)
    return Webhook(
        settings.name,
        settings.url,
        key,
        timeout=settings.timeout,
        concurrency=settings.concurrency,
        now=now,
        allow_private=settings.allow_private,
        tls=tls,
    )
