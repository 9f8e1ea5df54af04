"""What an OpenAPI 3.1 description says of requests and answers, compiled once (https://spec.openapis.org/oas/v3.1.1).

Of its operations all, or one: paths and methods, parameters, bodies by media type, answers by status. What it says and
is not checked here (a parameter in a cookie, a schema of XML) is an error when it is loaded, so that nothing goes
unchecked in silence. References lead within the document only; nothing is ever fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.pure.routing import Found, Pattern, RouteTable
from gateway.pure.schemas import Check, SchemaCompiler, SchemaError, resolve

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_VERSION = re.compile(r"3\.1\.\d+")
_OPERATIONS_MAX: Final = 2000
_ELSEWHERE: Final = frozenset({"accept", "content-type", "authorization"})
"""Header parameters that say nothing (section 4.8.12.1)."""
_JSON = re.compile(r"application/(?:[!#$&^_.+a-z0-9-]+\+)?json")
_FORM: Final = "application/x-www-form-urlencoded"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?")
_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False}
_STATUS = re.compile(r"[1-5](?:[0-9]{2}|XX)|default")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One in `path`, `query` or `header`. `read` makes a value of its texts, for the schema."""

    name: str
    place: str
    required: bool
    read: Callable[[Sequence[str]], Any]
    check: Check

    def judge(self, texts: Sequence[str]) -> None:
        """Raises SchemaError."""
        if texts:
            self.check(self.read(texts), f"{self.place}:{self.name}")
        elif self.required:
            raise SchemaError(f"Send {self.place}:{self.name}.")


@dataclass(frozen=True, slots=True)
class Body:
    """Checks by media type or range of them; None: declared, and nothing said of what it holds."""

    content: Mapping[str, Check | None]
    required: bool = False

    def admits(self, media_type: str) -> bool:
        return self._key(media_type) is not None

    def check(self, media_type: str) -> Check | None:
        """What is asked of a body of this type, which is admitted."""
        return self.content[self._key(media_type) or ""]

    def _key(self, media_type: str) -> str | None:
        """The most telling of those that fit (section 4.8.14.1)."""
        essence = _essence_of(media_type)
        keys = (essence, f"{essence.partition('/')[0]}/*", "*/*")
        return next((key for key in keys if key in self.content), None)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `answers` by status, `2XX` or `default`."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    answers: Mapping[str, Body] = field(default_factory=dict)
    closed: bool = False

    def judge_head(self, params: Mapping[str, str], query: str, header: Callable[[bytes], str | None]) -> None:
        """Parameters in path, query and header fields. Raises SchemaError."""
        sent: dict[str, list[str]] = {}
        try:
            segments = {name: unquote(value, errors="strict") for name, value in params.items()}
            for name, value in parse_qsl(query, keep_blank_values=True, errors="strict"):
                sent.setdefault(name, []).append(value)
        except UnicodeDecodeError:
            raise SchemaError("Encode path and query as UTF-8.") from None
        for parameter in self.parameters:
            if parameter.place == "query":
                parameter.judge(sent.pop(parameter.name, ()))
            elif parameter.place == "path":
                parameter.judge([segments[parameter.name]])
            else:
                text = header(parameter.name.lower().encode())
                parameter.judge(() if text is None else [text])
        if sent and self.closed:
            raise SchemaError("Send the query without parameters that are not declared.")

    def answer(self, status: int) -> Body | None:
        """What is declared of answers of this status; None if nothing is."""
        keys = (str(status), f"{status // 100}XX", "default")
        return next((self.answers[key] for key in keys if key in self.answers), None)


class Api:
    """The operations of a description, by method and path."""

    def __init__(self, base: str, operations: Sequence[tuple[str, str, Operation]]) -> None:
        """`operations`: method, path and operation. Raises ValueError for paths that match the same requests."""
        self._table = RouteTable(
            (Pattern(base + path, frozenset({method})), operation) for method, path, operation in operations
        )

    def find(self, method: str, path: str) -> Found[Operation] | None:
        """The operation that a request is, with the segments of its path that are parameters."""
        found = self._table.match("", method, path)
        return found if isinstance(found, Found) else None


def _essence_of(media_type: str) -> str:
    """A media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return _JSON.fullmatch(_essence_of(media_type)) is not None


def _is_form(media_type: str) -> bool:
    return _essence_of(media_type) == _FORM


def compile_api(document: object, *, only: str | None = None, base: str | None = None, closed: bool = False) -> Api:
    """`only` one operation: its operationId, or METHOD /path. `base` stands before all paths, else the first server's.

    `closed`: no members of objects and no query parameters but those that are declared. Raises ValueError.
    """
    if not isinstance(document, Mapping) or _VERSION.fullmatch(str(document.get("openapi"))) is None:
        raise ValueError("expected a description in OpenAPI 3.1: openapi: 3.1.x")
    compiler = _Compiler(document, closed=closed)
    listed = list(compiler.listed())
    chosen = [each for each in listed if only in (None, each[2].get("operationId"), f"{each[0]} {each[1]}")]
    if not chosen or (only is not None and len(chosen) > 1):
        raise ValueError("no operation is there" if only is None else f"{len(chosen)} operations are called {only!r}")
    if len(chosen) > _OPERATIONS_MAX:
        raise ValueError(f"there are more than {_OPERATIONS_MAX} operations")
    compiled = [(method, path, compiler.operation(method, path, words)) for method, path, words in chosen]
    return Api(_base(document) if base is None else base.rstrip("/"), compiled)


def _base(document: Mapping[str, Any]) -> str:
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = first.get("url", "") if isinstance(first, Mapping) else ""
    if not isinstance(url, str) or "{" in url:
        raise ValueError("the address of the first server is a template: say with base what stands before all paths")
    return urlsplit(url).path.rstrip("/")


class _Compiler:
    def __init__(self, document: Mapping[str, Any], *, closed: bool) -> None:
        self._document = document
        self._closed = closed
        self._schemas = SchemaCompiler(document, closed=closed)
        self._where = ""

    def listed(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Method, path and words of every operation; parameters of the path stand before the operation's own."""
        for path, item in self._mapping(self._document.get("paths", {}), "paths").items():
            item = self._mapping(item, path)  # noqa: PLW2901 - what it refers to
            for method in METHODS:
                if method in item:
                    words = self._mapping(item[method], f"{method} {path}")
                    parameters = [*item.get("parameters", ()), *words.get("parameters", ())]
                    yield method.upper(), str(path), {**words, "parameters": parameters}

    def operation(self, method: str, path: str, words: Mapping[str, Any]) -> Operation:
        self._where = f"{method} {path}"
        try:
            found = [self._parameter(each) for each in words["parameters"]]
            parameters = {(each.name, each.place): each for each in found if each is not None}
            names = set(re.findall(r"\{([^}]*)\}", path))
            if names != {name for name, place in parameters if place == "path"}:
                raise ValueError("the parameters in the path are not those that are described")
            body = self._body(words["requestBody"]) if "requestBody" in words else None
            answers = self._mapping(words.get("responses", {}), "responses")
            wrong = [status for status in answers if _STATUS.fullmatch(str(status)) is None]
            if wrong:
                raise ValueError(f"responses: {wrong[0]} is no status")
            compiled = {str(status): self._body(answer) for status, answer in answers.items()}
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}") from None
        return Operation(self._where, tuple(parameters.values()), body, compiled, self._closed)

    def _mapping(self, value: object, what: object) -> Mapping[str, Any]:
        """A mapping, or the one that it refers to."""
        if isinstance(value, Mapping) and "$ref" in value:
            value = resolve(self._document, value["$ref"])
        if not isinstance(value, Mapping):
            raise ValueError(f"{what}: expected a mapping")  # noqa: TRY004 - it is input
        return value

    def _parameter(self, value: object) -> Parameter | None:
        words = self._mapping(value, "parameters")
        name, place = words.get("name"), words.get("in")
        if not isinstance(name, str) or place not in ("path", "query", "header"):
            raise ValueError(f"parameters in {place!r} are not checked here: path, query and header are")
        if place == "header" and name.lower() in _ELSEWHERE:
            return None
        told = f"{place}:{name}"
        if "schema" not in words:
            raise ValueError(f"{told} is described without a schema, which is not checked here")
        style, exploded = words.get("style"), words.get("explode", place == "query")
        if style not in (None, "form" if place == "query" else "simple") or words.get("allowReserved"):
            raise ValueError(f"{told} has a style that is not checked here")
        schema = words["schema"]
        read = self._reader(schema, told, repeated=place == "query" and exploded is True)
        check = self._schemas.compile(schema, told)
        return Parameter(name, place, place == "path" or words.get("required") is True, read, check)

    def _reader(self, schema: object, told: str, *, repeated: bool) -> Callable[[Sequence[str]], Any]:
        """Texts to what the schema's type asks for; a text that is none stays text, and the schema refuses it."""
        types = self._types(schema)
        if "object" in types:
            raise ValueError(f"{told} is an object, which is not checked here")
        if "array" not in types:
            return lambda texts: _value(texts[0], types) if len(texts) == 1 else list(texts)
        each = self._types(self._mapping(schema, told).get("items", True))
        if repeated:
            return lambda texts: [_value(text, each) for text in texts]
        return lambda texts: [_value(text, each) for text in ",".join(texts).split(",")]

    def _types(self, schema: object) -> frozenset[str]:
        """The types that a schema names, its parts' too; empty: any."""
        found: set[str] = set()
        waiting = [schema]
        for _ in range(1000):
            if not waiting:
                break
            each = waiting.pop()
            if isinstance(each, Mapping):
                named = each.get("type", ())
                found.update([named] if isinstance(named, str) else named)
                waiting += [part for word in ("allOf", "anyOf", "oneOf") for part in each.get(word, ())]
                waiting += [resolve(self._document, each["$ref"])] if "$ref" in each else []
        return frozenset(found)

    def _body(self, value: object) -> Body:
        words = self._mapping(value, "content")
        content = self._mapping(words.get("content", {}), "content")
        compiled = {
            _essence_of(str(kind)): self._content(str(kind), self._mapping(said, kind))
            for kind, said in content.items()
        }
        return Body(compiled, words.get("required") is True)

    def _content(self, kind: str, said: Mapping[str, Any]) -> Check | None:
        if said.get("schema", True) is True:
            return None
        if _is_json(kind):
            return self._schemas.compile(said["schema"], kind)
        if _is_form(kind):
            return self._form(said["schema"])
        raise ValueError(f"{kind}: schemas are checked of JSON and of forms; leave it out to let any such body in")

    def _form(self, schema: object) -> Check:
        """Fields are texts: each is read as its property's type asks for."""
        words = self._mapping(schema, _FORM)
        types = {name: self._types(each) for name, each in words.get("properties", {}).items()}
        nested = [name for name, kinds in types.items() if kinds & {"object", "array"}]
        if nested:
            raise ValueError(f"{_FORM}: {nested[0]} is an object or an array, which is not checked in forms")
        check = self._schemas.compile(schema, _FORM)

        def judge(fields: Any, path: str) -> None:
            typed = {
                name: _value(text, types.get(name, frozenset())) if isinstance(text, str) else text
                for name, text in fields.items()
            }
            check(typed, path)

        return judge


def _value(text: str, types: frozenset[str]) -> Any:
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    if "boolean" in types and text in _WORDS:
        return _WORDS[text]
    return text
