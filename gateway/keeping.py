"""The keys of a gateway, and who wraps them, made from settings: for `run`, and for `check` made and thrown away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.adapters.keyrings import Keyrings, deployment_key
from gateway.adapters.keys import FileService, Succession
from gateway.adapters.openbao import OpenBao
from gateway.adapters.upstream import client_context
from gateway.config import keys
from gateway.config.base import file_of
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.load import Config
from gateway.ports import Clock, KeyService, Store, Telemetry
from gateway.pure.metrics import Metric


class Service(NamedTuple):
    """A key service, and the key from which all others were derived before there was one."""

    service: KeyService
    inherited: bytes | None


def make_service(config: Config, read_secret: Callable[[str], bytes], telemetry: Telemetry) -> Service | None:
    """None: the configuration has no keys. Nothing connects before it is used. Raises ConfigError, with all of it."""
    settings = config.settings.keys
    if settings is None:
        return None
    places: list[tuple[tuple[str, ...], keys.KeyService]] = [(("keys",), settings)]
    if settings.former is not None:
        places.append((("keys", "former"), settings.former))
    made: list[KeyService] = []
    complaints: list[Complaint] = []
    for place, each in places:
        try:
            made.append(_make(config, place, each, read_secret, telemetry))
        except ConfigError as error:
            complaints += error.complaints
    if complaints:
        raise ConfigError(complaints)
    roots = [service.root for service in reversed(made) if isinstance(service, FileService)]
    service = made[0] if len(made) == 1 else Succession(*made)
    return Service(service, roots[0] if roots else None)


async def open_keys(
    config: Config, read_secret: Callable[[str], bytes], store: Store, *, clock: Clock, telemetry: Telemetry
) -> Keyrings | None:
    """The keys of a gateway; None: the configuration has none. Raises ConfigError, and `Unavailable`."""
    made, settings = make_service(config, read_secret, telemetry), config.settings.keys
    if made is None or settings is None:
        return None
    try:
        root = await deployment_key(store, made.service, made.inherited, clock=clock, entropy=os.urandom)
    except BaseException:
        await made.service.close()
        raise
    return Keyrings(
        root,
        store,
        made.service,
        clock=clock,
        entropy=os.urandom,
        telemetry=telemetry,
        keep=settings.keep,
        rotate_after=settings.rotate_after,
    )


def _make(
    config: Config,
    place: tuple[str, ...],
    settings: keys.KeyService,
    read_secret: Callable[[str], bytes],
    telemetry: Telemetry,
) -> KeyService:
    if settings.provider == "file":
        with config.blaming(*place, "key"):
            return FileService(Path(file_of(settings.key)))
    assert settings.url is not None
    assert settings.token is not None
    with config.blaming(*place, "token"):
        token = read_secret(settings.token).decode("ascii")
    with config.blaming(*place, "ca"):
        tls = client_context(Path(settings.ca)) if settings.ca is not None else None
    return OpenBao(
        settings.url,
        token,
        settings.key,
        mount=settings.mount,
        per_tenant=settings.per_tenant,
        timeout=settings.timeout,
        tls=tls,
        told=lambda operation, result: telemetry.count(Metric.KEY_SERVICE, operation, result),
    )
