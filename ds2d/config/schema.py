"""The sections of config.json and the snapshot of a whole one.

Rule: default, bounds, meaning, and whether a restart is needed stand here (entries: core/settings.py) and nowhere else.
Surprise: a snapshot is frozen and a request keeps the one it started with, so two of them can be in use at once.
"""

# Not `from __future__ import annotations`: msgspec reads these at every start, and as texts each is compiled twice.

import functools
from collections.abc import Mapping
from typing import Annotated, Literal, cast

import msgspec
import msgspec.inspect as kinds
from msgspec import Meta

from ds2d.config.notices import Notice
from ds2d.core.settings import (
    AccountSpec,
    AtLeastOne,
    BreakerSpec,
    Count,
    KeySpec,
    Label,
    ModelSpec,
    Seconds,
    Secret,
    Text,
    UpstreamSpec,
    about,
    derived,
)


@functools.cache
def struct_type(cls: type[msgspec.Struct]) -> kinds.StructType:
    """What msgspec knows of a struct; asking it anew for each of a thousand entries would cost more than reading them."""
    return cast(kinds.StructType, kinds.type_info(cls))


def derived_fields(cls: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of a struct that are worked out, not read."""
    metadata = {field.name: field.type for field in struct_type(cls).fields}
    return frozenset(
        name for name, kind in metadata.items() if isinstance(kind, kinds.Metadata) and (kind.extra or {}).get("derived")
    )


@functools.cache
def readable_fields(cls: type[msgspec.Struct]) -> Mapping[str, kinds.Field]:
    """The fields of a struct that are keys of the file, by name."""
    hidden = derived_fields(cls)
    return {field.name: field for field in struct_type(cls).fields if field.name not in hidden}


@functools.cache
def required_fields(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Those of them that must stand there."""
    return tuple(name for name, field in readable_fields(cls).items() if field.required)


Bytes = Annotated[int, Meta(ge=0, le=2**40)]
Networks = tuple[Label, ...]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A group of keys."""


class ClaudeMapping(Section, frozen=True, kw_only=True):
    """What Claude model families become."""

    fast: Annotated[Label, about("the model behind other Claude names", settings=True)] = "deepseek-chat"
    slow: Annotated[Label, about("the model behind opus, reasoner and slow", settings=True)] = "deepseek-reasoner"


class Affinity(Section, frozen=True, kw_only=True):
    """Sending a conversation where its prefix is cached."""

    mode: Annotated[Literal["auto", "on", "off"], about("auto measures its payoff")] = "auto"
    ttl_seconds: Annotated[Annotated[int, Meta(ge=1, le=86400)], about("how long a conversation is remembered")] = 3600
    load_ceiling: Annotated[
        Annotated[float, Meta(ge=1, le=100)],
        about("times the mean load, and an eighth of its slots: above that another server is taken"),
    ] = 1.25


class Runtime(Section, frozen=True, kw_only=True):
    """Limits, queue, retries, routing."""

    account_max_inflight: Annotated[
        Annotated[int, Meta(ge=1, le=256)], about("requests at once per account, unless it says otherwise", settings=True)
    ] = 2
    account_max_queue: Annotated[
        Annotated[int, Meta(ge=0, le=200000)], about("waiting requests in all; 0 = as many as may run", settings=True)
    ] = 0
    global_max_inflight: Annotated[
        Annotated[int, Meta(ge=0, le=200000)], about("requests at once in all; 0 = sum over accounts", settings=True)
    ] = 0
    queue_timeout_seconds: Annotated[Annotated[float, Meta(ge=0, le=3600)], about("longest wait; 0 = never wait")] = 60.0
    min_request_gap_ms: Annotated[Annotated[int, Meta(ge=0, le=600000)], about("between two requests of one account")] = 0
    max_attempts: Annotated[Annotated[int, Meta(ge=1, le=10)], about("attempts per turn")] = 3
    retry_budget_percent: Annotated[
        Annotated[float, Meta(ge=0, le=100)], about("retries running at once, share of live turns, never less than one")
    ] = 10.0
    timeout_status: Annotated[Literal[503, 504], about("status of an upstream's time-out")] = 503
    breaker: Annotated[BreakerSpec, about("when an account and model are put aside")] = BreakerSpec()
    routing: Annotated[Literal["least_loaded", "weighted"], about("among several servers of one model")] = "least_loaded"
    affinity: Annotated[Affinity, about("sending a conversation where its prefix is cached")] = Affinity()
    retry_collapse: Annotated[bool, about("a client's retry joins the turn that still runs")] = True
    retry_grace_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=600)], about("how long a turn goes on after its client left; 0 = it ends at once")
    ] = 0.0
    route_header: Annotated[bool, about("X-DS2D-Route on answers")] = True


class Toolcall(Section, frozen=True, kw_only=True):
    """Tool calls written as text (toolcalls.md 3)."""

    mode: Annotated[
        Literal["feature_match", "buffered", "off"], about("early, all at the end, or text untouched", settings=True)
    ] = "feature_match"
    early_emit_confidence: Annotated[Literal["high", "low", "off"], about("how early a call starts", settings=True)] = "high"


class Reasoning(Section, frozen=True, kw_only=True):
    """Reasoning on chat, and remembering it for models that need it back."""

    field: Annotated[Literal["reasoning_content", "both"], about("both adds `reasoning` on chat")] = "reasoning_content"
    memory_seconds: Annotated[Annotated[int, Meta(ge=0, le=86400)], about("how long reasoning of tool turns is kept")] = 3600
    memory_bytes: Annotated[Bytes, about("how much of it")] = 67108864
    when_lost: Annotated[Literal["empty", "thinking_off"], about("what a DeepSeek tool turn gets whose reasoning nobody has")] = (
        "empty"
    )


class Images(Section, frozen=True, kw_only=True):
    """Images in questions (mapping.md 9)."""

    on_text_model: Annotated[Literal["error", "drop"], about("what happens to an image a model cannot see")] = "error"
    max_bytes: Annotated[Bytes, about("of one image")] = 20971520


class Gemini(Section, frozen=True, kw_only=True):
    """Gemini routes (gemini.md 5)."""

    stream_default: Annotated[Literal["sse", "array"], about("form of a stream without `alt`")] = "sse"


class Responses(Section, frozen=True, kw_only=True):
    """Stored responses."""

    store_ttl_seconds: Annotated[
        Annotated[int, Meta(ge=30, le=86400)], about("how long, also for those stored already", settings=True)
    ] = 900
    store_bytes: Annotated[Bytes, about("how much in all")] = 268435456
    background_max: Annotated[Annotated[int, Meta(ge=0, le=10000)], about("background responses at once")] = 32
    background_seconds: Annotated[Annotated[int, Meta(ge=1, le=86400)], about("longest background response")] = 3600
    reasoning_events: Annotated[Literal["summary", "text", "off"], about("how reasoning is streamed")] = "summary"
    persist: Annotated[bool, about("kept over a graceful restart")] = True


class Embeddings(Section, frozen=True, kw_only=True):
    """Embeddings."""

    provider: Annotated[
        Literal["upstream", "deterministic", "mock", "builtin"] | None,
        about("absent: a served model that embeds, else 501; all but upstream are one: vectors without meaning", settings=True),
    ] = None
    dimensions: Annotated[Annotated[int, Meta(ge=1, le=65536)], about("of deterministic vectors")] = 768


class AutoDelete(Section, frozen=True, kw_only=True):
    """Sessions on upstreams that keep them; none does today."""

    sessions: Annotated[bool, about("kept and shown", settings=True)] = False


class Admin(Section, frozen=True, kw_only=True):
    """The admin API."""

    password_hash: Annotated[Text, about("`scrypt:...` or `sha256:<hex>`; once set, DS2API_ADMIN_KEY no longer counts")] = ""
    jwt_expire_hours: Annotated[Annotated[int, Meta(ge=1, le=720)], about("validity of a login", settings=True)] = 24
    allowed_hosts: Annotated[tuple[Label, ...], about("foreign Host names that may be used")] = ()
    jwt_valid_after_unix: Annotated[Count, about("logins made before are refused; Unix seconds")] = 0


class Tls(Section, frozen=True, kw_only=True):
    """TLS on the port."""

    cert_file: Annotated[
        Label | None,
        about("certificate and chain, PEM, relative to the config file; renewed ones count at once", restart=True),
    ] = None
    key_file: Annotated[Label | None, about("its private key, PEM", restart=True)] = None
    digest: Annotated[str, derived("SHA-256 of both files, so that new ones are taken up")] = ""


class Server(Section, frozen=True, kw_only=True):
    """The listener and what it accepts."""

    host: Annotated[Label, about("address to listen on", restart=True)] = "127.0.0.1"
    port: Annotated[Annotated[int, Meta(ge=0, le=65535)], about("port to listen on; 0 = any free one", restart=True)] = 5001
    tls: Annotated[Tls, about("TLS on the port; without a certificate it is plain HTTP")] = Tls()
    unix_socket: Annotated[
        Label | None,
        about("path of a UNIX socket, relative to the config file; beside the port, for owner and group", restart=True),
    ] = None
    state_dir: Annotated[
        Label | None, about("$STATE_DIRECTORY, else `state` beside the config file; relative to that file", restart=True)
    ] = None
    open_networks: Annotated[Networks, about("from these peers a request without a known key runs as `anonymous`")] = ()
    public_models: Annotated[bool, about("false: model lists need a key")] = True
    open_token_stats: Annotated[bool, about("token statistics open to open_networks")] = False
    drain_seconds: Annotated[Annotated[float, Meta(ge=0, le=86400)], about("longest wait for live turns at the end")] = 600.0
    keepalive_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=3600)], about("silence after which a stream gets a life sign")
    ] = 15.0
    body_limit_bytes: Annotated[Annotated[int, Meta(ge=1024, le=2**32)], about("largest request body")] = 67108864
    header_seconds: Annotated[Seconds, about("for a whole request header")] = 15.0
    body_seconds: Annotated[Seconds, about("for a whole request body")] = 60.0
    idle_seconds: Annotated[Seconds, about("an idle connection is kept")] = 75.0
    write_stall_seconds: Annotated[Seconds, about("a client may take nothing for so long")] = 60.0
    max_connections: Annotated[Annotated[int, Meta(ge=1, le=1000000)], about("open connections", restart=True)] = 4096
    trusted_proxies: Annotated[Networks, about("networks whose X-Forwarded-For is believed")] = ()
    root_path: Annotated[Text, about("prefix of all routes, such as /ds2d", restart=True)] = ""


class Capture(Section, frozen=True, kw_only=True):
    """A ring of whole exchanges, for looking at faults."""

    enabled: Annotated[bool, about("whether exchanges are kept")] = False
    limit: Annotated[Annotated[int, Meta(ge=1, le=1000)], about("how many")] = 20
    max_body_bytes: Annotated[Annotated[int, Meta(ge=1024, le=2**28)], about("of each body")] = 2097152


class Ledger(Section, frozen=True, kw_only=True):
    """The record of use."""

    synchronous: Annotated[Literal["full", "normal"], about("normal may lose the last rows when the machine stops")] = "full"
    on_disk_full: Annotated[Literal["serve", "refuse"], about("serve without record, or refuse")] = "serve"
    checkpoint_seconds: Annotated[Annotated[float, Meta(ge=0.1, le=3600)], about("between two records of a running turn")] = 5.0
    retention_days: Annotated[Annotated[int, Meta(ge=1, le=36500)], about("rows are kept")] = 90
    default_reserve_tokens: Annotated[AtLeastOne, about("reserved for an answer without max_tokens")] = 4096


class Metrics(Section, frozen=True, kw_only=True):
    """/metrics."""

    access: Annotated[
        Literal["auto", "open", "key", "admin", "off"], about("who may read; auto = open on loopback, else admin")
    ] = "auto"
    key_labels: Annotated[bool, about("names of keys as labels")] = False


class Log(Section, frozen=True, kw_only=True):
    """The log."""

    level: Annotated[Literal["debug", "info", "warning", "error"], about("least important level that is written")] = "info"
    format: Annotated[Literal["text", "json"], about("form of a line")] = "text"


class Vercel(Section, frozen=True, kw_only=True):
    """Where to copy the config to."""

    api_base: Annotated[Text, about("base URL of the API")] = "https://api.vercel.com"
    token: Annotated[Secret | None, about("access token")] = None
    project_id: Annotated[Text, about("project")] = ""
    team_id: Annotated[Text, about("team")] = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole config, checked. Attributes are the keys of config.md; the last eight are worked out."""

    keys: Annotated[tuple[KeySpec, ...], about("API keys of callers")] = ()
    upstreams: Annotated[tuple[UpstreamSpec, ...], about("servers; the order matters (config.md 3)")] = ()
    accounts: Annotated[tuple[AccountSpec, ...], about("credentials on upstreams")] = ()
    models: Annotated[dict[Label, ModelSpec], about("public model names")] = {}
    model_aliases: Annotated[
        dict[Label, Label], about("other names of public models, over the built-in table", settings=True)
    ] = {}
    claude_mapping: Annotated[ClaudeMapping, about("what Claude model families become", settings=True)] = ClaudeMapping()
    runtime: Annotated[Runtime, about("limits, queue, retries, routing")] = Runtime()
    toolcall: Annotated[Toolcall, about("tool calls written as text")] = Toolcall()
    reasoning: Annotated[Reasoning, about("reasoning")] = Reasoning()
    images: Annotated[Images, about("images in questions")] = Images()
    gemini: Annotated[Gemini, about("Gemini routes")] = Gemini()
    responses: Annotated[Responses, about("stored responses")] = Responses()
    embeddings: Annotated[Embeddings, about("embeddings")] = Embeddings()
    auto_delete: Annotated[AutoDelete, about("sessions on upstreams")] = AutoDelete()
    admin: Annotated[Admin, about("the admin API")] = Admin()
    server: Annotated[Server, about("the listener")] = Server()
    capture: Annotated[Capture, about("captured exchanges")] = Capture()
    ledger: Annotated[Ledger, about("the record of use")] = Ledger()
    metrics: Annotated[Metrics, about("/metrics")] = Metrics()
    log: Annotated[Log, about("the log")] = Log()
    vercel: Annotated[Vercel, about("where to copy the config to")] = Vercel()

    generation: Annotated[int, derived("counts up with every change")] = 0
    digest: Annotated[str, derived("hex SHA-256 of the source bytes")] = ""
    warnings: Annotated[tuple[Notice, ...], derived("what is odd but holds")] = ()
    origins: Annotated[Mapping[str, str], derived("path to `file`, `flag`, or `$NAME` of a variable")] = {}
    files: Annotated[Mapping[str, str], derived("other files it was read from: path to SHA-256, empty if unreadable")] = {}
    state_dir: Annotated[str, derived("the state folder, absolute")] = ""
    admin_key: Annotated[Secret | None, derived("DS2API_ADMIN_KEY while no password hash is set")] = None
    env_backed: Annotated[bool, derived("it comes from a variable, not from a file")] = False

    def origin(self, path: str) -> str:
        """Where the value of a key comes from: `file`, `flag`, `$NAME`, or `default`."""
        return self.origins.get(path, "default")
