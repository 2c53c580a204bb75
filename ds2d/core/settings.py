"""What config.json says about keys, upstreams, accounts and models, as the lower layers need it.

Rule: field names are the keys of config.md 2; default, bounds and meaning of each stand here or in config/schema.py and
nowhere else: validation, JSON Schema, `config show`, the docs and the admin settings are made from them.
Surprise: `problem` is no key. An entry whose secret cannot be read stays in the snapshot, out of use, and says why.
"""

# Not `from __future__ import annotations`: msgspec reads these at every start, and as texts each is compiled twice.

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ds2d.core.secrets import hash_key

MAX_INT = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""


def about(text: str, *, restart: bool = False, settings: bool = False, one: bool = False) -> Meta:
    """A key's meaning. `restart`: a change needs one; `settings`: the key is in `PUT /admin/settings` (config.md 2);
    `one`: one item may stand in place of a list of one."""
    return Meta(description=text, extra={"restart": restart, "settings": settings, "one": one})


def derived(text: str) -> Meta:
    """A field that is worked out, not read from the file."""
    return Meta(description=text, extra={"derived": True})


Text = Annotated[str, Meta(max_length=1024)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
UpstreamName = Annotated[str, Meta(pattern="^[a-z0-9_-]{1,64}$")]
Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
AtLeastOne = Annotated[int, Meta(ge=1, le=MAX_INT)]
Seconds = Annotated[float, Meta(ge=0.1, le=86400)]
Weight = Annotated[float, Meta(ge=0.1, le=100)]
Inflight = Annotated[int, Meta(ge=1, le=100000)]


class Secret:
    """A secret and how the file names it: `{"$env"}`, `{"$file"}`, `{"$credential"}`, or None where it stands there itself.

    Not a Struct on purpose: neither `repr` nor an encoder can write it out by accident.
    """

    __slots__ = ("_value", "reference")

    def __init__(self, value: str | None, reference: dict[str, str] | None = None) -> None:
        self._value = value
        self.reference = reference

    def reveal(self) -> str | None:
        """The secret itself; None if it could not be read."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tell secrets apart without telling them."""
        text = self._value if self._value is not None else repr(self.reference)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self.reference) == (other._value, other.reference)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({self.reference or '…'})"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What entries of a list have in common."""

    problem: Annotated[
        Literal["secret_unreadable", "secret_unusable", "ca_file_unreadable", "no_upstream"] | None,
        derived("why it is out of use"),
    ] = None

    @property
    def usable(self) -> bool:
        """Whether it may be used at all; `disabled`, dates and health are other questions."""
        return self.problem is None


class KeySpec(Entry, frozen=True, kw_only=True):
    """One API key of callers."""

    key: Annotated[Secret | None, about("the key itself, `sha256:` and 64 hex digits, or a reference")] = None
    name: Annotated[Label | None, about("unique; `anonymous` without a key limits server.open_networks")] = None
    models: Annotated[tuple[Label, ...] | None, about("globs over public model names; null = all")] = None
    max_tokens: Annotated[Count | None, about("tokens in all per quota_window; null = unlimited")] = None
    max_prompt_tokens: Annotated[Count | None, about("prompt tokens per quota_window; null = unlimited")] = None
    max_completion_tokens: Annotated[Count | None, about("completion tokens per quota_window; null = unlimited")] = None
    quota_window: Annotated[Literal["total", "day", "month"], about("calendar, UTC")] = "total"
    active_days: Annotated[
        Annotated[int, Meta(ge=1, le=36500)] | None, about("days from created_at, without one from first use")
    ] = None
    created_at: Annotated[datetime | None, about("RFC 3339; written by the daemon")] = None
    expires_at: Annotated[datetime | None, about("RFC 3339")] = None
    deleted_at: Annotated[datetime | None, about("RFC 3339; written by the daemon; usage stays")] = None
    weight: Annotated[Weight, about("share of the queue between keys")] = 1.0
    max_inflight: Annotated[Inflight | None, about("requests at once; null = no limit")] = None
    rpm: Annotated[AtLeastOne | None, about("requests a minute; null = no limit")] = None
    tpm: Annotated[AtLeastOne | None, about("tokens a minute; null = no limit")] = None
    admin: Annotated[bool, about("may read and reset the token statistics")] = False
    priority: Annotated[bool, about("may send `priority`")] = False
    disabled: Annotated[bool, about("refused")] = False
    remark: Annotated[Text, about("a note")] = ""

    @property
    def digest(self) -> str | None:
        """SHA-256 of the key in hex; None if there is no key or it could not be read."""
        value = self.key.reveal() if self.key else None
        return None if value is None else hash_key(value).removeprefix("sha256:")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. Comments and blank lines stop none of these clocks."""

    connect: Annotated[Seconds, about("until the connection stands")] = 5.0
    headers: Annotated[Seconds, about("until the status line of a streamed answer")] = 630.0
    first_payload: Annotated[Seconds, about("until its first event; DeepSeek may keep a request waiting for 10 minutes")] = 630.0
    payload_gap: Annotated[Seconds, about("between two events")] = 120.0
    answer: Annotated[Seconds, about("in place of headers and first_payload where the answer comes in one piece")] = 3600.0
    total: Annotated[Seconds, about("the whole answer")] = 3600.0


class JsonLogin(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="json"):
    """A login that takes a JSON object and answers with one, such as Open WebUI's."""

    url: Annotated[Label, about("absolute, or a path below base_url's origin")]
    user_field: Annotated[Label, about("name of the field for email or mobile")] = "email"
    password_field: Annotated[Label, about("name of the field for the password")] = "password"  # noqa: S105 - a field's name
    token_path: Annotated[Label, about("where the token stands in the answer, names joined by dots")] = "token"  # noqa: S105
    expires_path: Annotated[Label | None, about("where its end stands: Unix seconds, RFC 3339, or seconds from now")] = None


class OAuth2Login(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="oauth2"):
    """An OAuth2 token endpoint (RFC 6749, 4.3 and 4.4)."""

    url: Annotated[Label, about("the token endpoint, absolute, or a path below base_url's origin")]
    grant: Annotated[Literal["password", "client_credentials"], about("which grant")] = "password"
    client_id: Annotated[Text, about("the client's id")] = ""
    client_secret: Annotated[Secret | None, about("the client's secret")] = None
    scope: Annotated[Text, about("scope to ask for; empty = none")] = ""


LoginSpec = JsonLogin | OAuth2Login


class UpstreamSpec(Entry, frozen=True, kw_only=True):
    """One server, or one service, that runs models."""

    name: Annotated[UpstreamName, about("unique: a-z, 0-9, _ and -, at most 64")]
    kind: Annotated[Literal["openai", "demo"], about("openai: any compatible server; demo: embedded, no network")] = "openai"
    base_url: Annotated[Text, about("http(s), without user info, with or without /v1; required for kind openai")] = ""
    flavour: Annotated[
        Literal["auto", "vllm", "sglang", "llamacpp", "llamacpp_python", "transformers", "deepseek", "generic"],
        about("which server it is; auto = found out"),
    ] = "auto"
    direct_token: Annotated[bool, about("an unknown key is sent on as this upstream's token")] = False
    headers: Annotated[dict[Label, Secret], about("fixed extra headers")] = {}
    ca_file: Annotated[Label | None, about("CA certificates for TLS, relative to the config file")] = None
    ca_digest: Annotated[str, derived("SHA-256 of the file, so that a new one is taken up")] = ""
    pin: Annotated[str, derived("hex SHA-256 of the one certificate to trust; for the daemon itself")] = ""
    escape_special_tokens: Annotated[bool, about("break up text of special tokens that users typed")] = False
    pace_ms: Annotated[Annotated[int, Meta(ge=0, le=60000)], about("demo: milliseconds between two pieces")] = 0
    login: Annotated[LoginSpec | None, about("how accounts with a password get a token")] = None
    proxy: Annotated[
        Label | None, about("direct, env (HTTPS_PROXY ...), or a URL; null = direct for loopback and private addresses, else env")
    ] = None
    timeouts: Annotated[Timeouts, about("clocks of a call")] = Timeouts()
    max_inflight: Annotated[Inflight, about("requests at once, where the upstream has no accounts")] = 64
    poll_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=3600)], about("between looks at health and model list; 30 for deepseek")
    ] = 2.0
    tools: Annotated[Literal["auto", "native", "prompt", "off"], about("how tools are offered")] = "auto"
    thinking: Annotated[Literal["auto", "template", "deepseek", "effort", "none"], about("how thinking is switched")] = "auto"
    think_tags: Annotated[Literal["auto", "yes", "no"], about("split <think> out of text")] = "auto"


class AccountSpec(Entry, frozen=True, kw_only=True):
    """A credential on one upstream."""

    upstream: Annotated[Label | None, about("its upstream; may be left out if exactly one takes such accounts")] = None
    email: Annotated[Label | None, about("user name, with password")] = None
    mobile: Annotated[Label | None, about("user name, with password")] = None
    password: Annotated[Secret | None, about("for upstreams with a login")] = None
    token: Annotated[Secret | None, about("sent as Bearer")] = None
    name: Annotated[Label | None, about("a name for people and for X-Ds2-Target-Account")] = None
    group: Annotated[Label | None, about("accounts of one group share one budget")] = None
    max_inflight: Annotated[Inflight | None, about("requests at once; null = runtime.account_max_inflight")] = None
    weight: Annotated[Weight, about("share, where runtime.routing is weighted")] = 1.0
    disabled: Annotated[bool, about("not used")] = False
    remark: Annotated[Text, about("a note")] = ""

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every name it answers to: email, mobile, name, `token:<hash>`. The first is its identifier."""
        token = f"token:{self.token.fingerprint}" if self.token else None
        return tuple(name for name in (self.email, self.mobile, self.name, token) if name)

    @property
    def identifier(self) -> str:
        """What listings and the admin API call it."""
        return self.identifiers[0]


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a public model name stands for."""

    upstream: Annotated[tuple[Label, ...], about("a name or a list, any of them; empty = any that lists it", one=True)] = ()
    model: Annotated[Label | None, about("the upstream's id; default the public name")] = None
    context: Annotated[AtLeastOne | None, about("tokens of the window; learned where absent")] = None
    max_output: Annotated[AtLeastOne | None, about("tokens of an answer at most; learned where absent")] = None
    thinking: Annotated[Literal["on", "off", "switch"], about("always, never, or as the request says")] = "switch"
    tools: Annotated[Literal["auto", "native", "prompt", "off"], about("how tools are offered; auto = the upstream's")] = "auto"
    tool_format: Annotated[
        Literal[
            "auto", "json", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4", "deepseek_v41", "xml", "hermes", "text"
        ],
        about("how the model writes calls as text; auto = any of them"),
    ] = "auto"
    images: Annotated[bool, about("the model sees images")] = False
    system: Annotated[
        Literal["keep", "merge_leading", "merge_all"] | None,
        about("what happens to system messages; null = keep on the DeepSeek API, else merge_leading"),
    ] = None
    extra_body: Annotated[dict[str, Any], about("constant fields added to the upstream's body")] = {}


class BreakerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When an account and model are put aside after faults."""

    failures: Annotated[Annotated[int, Meta(ge=1, le=1000)], about("faults in a row that open it")] = 5
    open_seconds: Annotated[Annotated[float, Meta(ge=1, le=3600)], about("until the probe")] = 60.0
