"""Where the durable truth is: the setting `store`."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from gateway.config.base import Settings, url_parts, written
from gateway.pure.units import Duration, Files, PathRef, SecretRef

_EXPECTED = "expected sqlite:PATH or postgresql://HOST[:PORT]/DATABASE"
_SQLITE = "sqlite:"
_SCHEMES = ("postgresql", "postgres")
_PORT = 5432
_SHAPE = Field(
    json_schema_extra={
        "pattern": "^(sqlite:(?!//).+|postgres(ql)?://([^/@]+/[^/]+|/[^/?]+[?]host=/.+))$",
        "examples": ["sqlite:var/pangate.db", "postgresql://db.internal/pangate"],
    }
)


class Place(NamedTuple):
    """Where PostgreSQL is: `host` is a name, or the folder of a Unix socket."""

    host: str
    port: int
    database: str


def _place(url: str) -> Place:
    """Raises ValueError for what is no address of a database."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    folder = dict(options).get("host", "")
    database = parts.path.removeprefix("/")
    if not parts.netloc and folder.startswith("/") and len(options) == 1 and _is_name(database):
        return Place(folder, _PORT, database)
    parts = url_parts(url, _SCHEMES, _EXPECTED)
    if options or parts.fragment or not _is_name(database):
        raise ValueError(_EXPECTED)
    assert parts.hostname is not None
    return Place(parts.hostname, parts.port or _PORT, database)


def _is_name(database: str) -> bool:
    return 0 < len(database) < 64 and "/" not in database and database.isprintable()


def _url(text: str, info: ValidationInfo) -> str:
    """The address as it is to be opened: a file below the configuration's directory."""
    if text.startswith(_SQLITE) and text != _SQLITE and not text.startswith("sqlite://"):
        path = text.removeprefix(_SQLITE)
        return _SQLITE + (info.context.path(path) if isinstance(info.context, Files) else path)
    _place(text)
    return text


class Store(Settings):
    """`url` is `sqlite:PATH` or `postgresql://HOST[:PORT]/DATABASE`; `postgresql:///DATABASE?host=FOLDER` is a Unix
    socket. The rest is for PostgreSQL: `ca` signs the certificate that it must show (without `ca` there is no TLS), and
    `connections` are the most that one process keeps. Who does not renew its `lease` is taken for dead.
    """

    url: Annotated[str, AfterValidator(_url), _SHAPE]
    username: str = Field(default="pangate", min_length=1)
    password: SecretRef | None = None
    ca: PathRef | None = None
    connections: int = Field(default=8, ge=2, le=100)
    lease: Duration = written("15s", ge=1, le=600)

    @model_validator(mode="after")
    def _known(self) -> Store:
        if self.place is None and self.model_fields_set - {"url"}:
            raise ValueError("sqlite takes no username, password, ca, connections and lease")
        return self

    @property
    def path(self) -> str:
        """The file of SQLite."""
        return self.url.removeprefix(_SQLITE)

    @property
    def place(self) -> Place | None:
        """Where PostgreSQL is; None: SQLite it is."""
        return None if self.url.startswith(_SQLITE) else _place(self.url)


def _written(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


StoreSetting = Annotated[Store, BeforeValidator(_written, json_schema_input_type=Annotated[str, _SHAPE] | Store)]
