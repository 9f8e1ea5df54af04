"""Publishers as the configuration describes them: made by `run`, and for `check` made and thrown away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.adapters.publishers import Reading, RedisStream, Webhook
from gateway.adapters.upstream import client_context
from gateway.config import events
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.load import Config
from gateway.ports import Publisher
from gateway.pure.webhooks import shared_key


def make_publishers(config: Config, read_secret: Callable[[str], bytes], now: Callable[[], float]) -> list[Publisher]:
    """All that `events.publish` lists; none of them connects before it is used. Raises ConfigError, with all of it."""
    made: list[Publisher] = []
    complaints: list[Complaint] = []
    for position, settings in enumerate(config.settings.events.publish):
        try:
            publisher = _make(config, position, settings, read_secret, now)
            made.append(publisher if settings.reader is None else _bounded(config, settings.reader, publisher))
        except ConfigError as error:
            complaints += error.complaints
    if complaints:
        raise ConfigError(complaints)
    return made


def _bounded(config: Config, reader: str, publisher: Publisher) -> Publisher:
    return Reading(publisher, config.settings.services[reader].reads)


def _make(
    config: Config,
    position: int,
    settings: events.RedisStream | events.Webhook,
    read_secret: Callable[[str], bytes],
    now: Callable[[], float],
) -> Publisher:
    place = ("events", "publish", position)
    if isinstance(settings, events.RedisStream):
        with config.blaming(*place, "password"):
            password = read_secret(settings.password).decode() if settings.password is not None else None
        return RedisStream(
            settings.name,
            settings.url,
            settings.stream,
            max_length=settings.max_length,
            timeout=settings.timeout,
            username=settings.username,
            password=password,
        )
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
