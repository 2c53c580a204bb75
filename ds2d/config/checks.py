"""What must hold between the keys of a config, after each was found sound by itself.

Rule: a check looks at sound entries only (`UNSET` stands for a faulty one) and says all it finds. What costs one entry is
a warning and the entry's `problem`; what makes the meaning of the file doubtful is an error.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from ds2d.config.addresses import fault_of_network, fault_of_url
from ds2d.config.notices import Notice, child, nearest
from ds2d.config.references import Sources, UnreadableError, digest_of
from ds2d.config.schema import Tls
from ds2d.core.secrets import is_hashed, is_password_hash
from ds2d.core.settings import AccountSpec, JsonLogin, KeySpec, OAuth2Login, Secret, UpstreamSpec

Say = Callable[..., None]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MAX_SOCKET_PATH = 107
"""What Linux has room for in the address of a UNIX socket."""

_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type", "content-encoding"})


class Check:
    """One run over the fields of a config; `values` is changed where an entry goes out of use or gets its upstream.

    `key_paths` says where each of the keys stands: those of `api_keys` come after those of `keys`. `upstream_names` are
    those of all upstreams, faulty ones too.
    """

    def __init__(self, values: dict[str, Any], key_paths: Sequence[str], upstream_names: Sequence[str], sources: Sources) -> None:
        self.errors: list[Notice] = []
        self.warnings: list[Notice] = []
        self._values = values
        self._key_paths = key_paths
        self._upstream_names = upstream_names
        self._sources = sources

    def run(self) -> None:
        """All checks, in the order of the file."""
        self._keys()
        self._upstreams()
        self._accounts()
        self._models()
        self._aliases()
        self._admin()
        self._server()
        if (vercel := self._sound("vercel")) and (fault := fault_of_url(vercel.api_base)):
            self._error("vercel.api_base", fault)

    def _error(self, path: str, message: str, hint: str = "") -> None:
        self.errors.append(Notice(path, message, hint))

    def _warn(self, path: str, message: str, hint: str = "") -> None:
        self.warnings.append(Notice(path, message, hint))

    def _sound(self, name: str) -> Any:
        """A section or map, None if it is absent or faulty."""
        value = self._values.get(name)
        return None if value is UNSET else value

    def _entries(self, name: str) -> Iterator[tuple[str, Any]]:
        """The sound entries of a list with their paths."""
        for index, entry in enumerate(self._sound(name) or ()):
            if entry is not UNSET:
                yield child(name, index), entry

    def _keys(self) -> None:
        names: dict[str, str] = {}
        keys = list(self._sound("keys") or ())
        for index, (path, key) in enumerate(zip(self._key_paths, keys, strict=True)):
            if key is not UNSET:
                self._once(names, key.name, child(path, "name"), "name")
                keys[index] = self._key(key, path)
        self._twins(keys)
        if keys:
            self._values["keys"] = tuple(keys)

    def _key(self, key: KeySpec, path: str) -> KeySpec:
        """The key, out of use if it is malformed and the file only says where it is: who writes there is another."""
        place = child(path, "key")
        if key.key is None:
            if key.name != "anonymous":
                self._error(place, "is required", "only the entry named anonymous has none")
            return key
        text = key.key.reveal()
        if text is None or is_hashed(text):
            return key
        if text.lower().startswith("sha256:"):
            fault = "must have 64 hex digits after sha256:"
        elif not text.isprintable() or text != text.strip():
            fault = "must not hold control characters, or blanks at its ends"
        else:
            return key
        if key.key.reference is None:
            self._error(place, fault)
            return key
        return self._without_key(key, path, fault)

    def _twins(self, keys: list[Any]) -> None:
        """One key is one entry's. Of two, the one that is kept elsewhere goes out of use; two in the file itself are an error."""
        digests: dict[str, int] = {}
        sound = [index for index, key in enumerate(keys) if key is not UNSET and key.digest]
        for index in sorted(sound, key=lambda index: keys[index].key.reference is not None):
            twin = digests.setdefault(keys[index].digest, index)
            if twin == index:
                continue
            path, fault = self._key_paths[index], f"is the same key as {self._key_paths[twin]}"
            if keys[index].key.reference is None:
                self._error(path, fault)
            else:
                keys[index] = self._without_key(keys[index], path, fault)

    def _without_key(self, key: KeySpec, path: str, fault: str) -> KeySpec:
        self._warn(child(path, "key"), f"{fault}; the key is out of use")
        return msgspec.structs.replace(key, key=_emptied(key.key), problem="secret_unusable")

    def _upstreams(self) -> None:
        names: dict[str, str] = {}
        upstreams = list(self._sound("upstreams") or ())
        for index, upstream in enumerate(upstreams):
            if upstream is UNSET:
                continue
            path = child("upstreams", index)
            self._once(names, upstream.name, child(path, "name"), "name")
            self._upstream(upstream, path)
            upstreams[index] = self._adapted(self._with_headers(upstream, child(path, "headers")), path)
        if upstreams:
            self._values["upstreams"] = tuple(upstreams)

    def _upstream(self, upstream: UpstreamSpec, path: str) -> None:
        if upstream.kind == "openai" and not upstream.base_url:
            self._error(child(path, "base_url"), "is required for kind openai")
        elif upstream.base_url:
            self._url(upstream.base_url, child(path, "base_url"), bare=True)
        if upstream.proxy not in {None, "direct", "env"} and (fault := fault_of_url(upstream.proxy or "", user_info=True)):
            self._error(child(path, "proxy"), f"must be direct, env or a URL, which {fault}")
        if upstream.login is not None:
            self._login(upstream.login, child(path, "login"))

    def _with_headers(self, upstream: UpstreamSpec, path: str) -> UpstreamSpec:
        """The upstream, out of use if what a header is to say is kept elsewhere and cannot be said."""
        for name, value in upstream.headers.items():
            text, fault = value.reveal(), ""
            if not _HEADER_NAME.fullmatch(name):
                self._error(child(path, name), "is no name of a header")
            elif name.lower() in _OURS:
                self._error(child(path, name), "is set by the daemon itself")
            elif text and not _is_sendable(text):
                fault = "must be printable ASCII"
            if fault and value.reference is None:
                self._error(child(path, name), fault)
            elif fault:
                self._warn(child(path, name), f"{fault}; the upstream is out of use")
                upstream = msgspec.structs.replace(upstream, problem="secret_unusable")
        return upstream

    def _login(self, login: JsonLogin | OAuth2Login, path: str) -> None:
        if not login.url.startswith("/"):
            self._url(login.url, child(path, "url"))
        if isinstance(login, OAuth2Login) and login.grant == "client_credentials":
            if not login.client_id:
                self._error(child(path, "client_id"), "is required for the grant client_credentials")
            if login.client_secret is None:
                self._error(child(path, "client_secret"), "is required for the grant client_credentials")

    def _adapted(self, upstream: UpstreamSpec, path: str) -> UpstreamSpec:
        """The upstream with its CA file's whole path and digest."""
        if upstream.ca_file is None:
            return upstream
        try:
            path_there, digest = self._sources.located(upstream.ca_file)
        except UnreadableError as reason:
            self._warn(child(path, "ca_file"), f"{reason}; the upstream is out of use")
            return msgspec.structs.replace(upstream, problem="ca_file_unreadable")
        return msgspec.structs.replace(upstream, ca_file=path_there, ca_digest=digest)

    def _accounts(self) -> None:
        taken: dict[str, str] = {}
        accounts = list(self._sound("accounts") or ())
        for index, account in enumerate(accounts):
            if account is UNSET:
                continue
            path = child("accounts", index)
            account = self._with_token(account, path, taken)
            names = [name for name in account.identifiers if name == account.identifier or not name.startswith("token:")]
            for name in dict.fromkeys(map(str.lower, names)):  # as they are compared wherever somebody names one
                self._once(taken, name, path, "identifier, but for case,")
            if self._has_credential(account, path):
                accounts[index] = self._placed(account, path)
        if accounts:
            self._values["accounts"] = tuple(accounts)

    def _with_token(self, account: AccountSpec, path: str, taken: Mapping[str, str]) -> AccountSpec:
        """The account, out of use if its token cannot be sent in a header, or, being kept elsewhere, is another account's."""
        token = account.token
        text = token.reveal() if token else None
        if token is None or text is None:
            return account
        if not _is_sendable(text) or text != text.strip():
            fault = "must be printable ASCII without blanks at its ends"
        elif token.reference is not None and account.identifier in taken and account.identifier.startswith("token:"):
            fault = f"is the token of {taken[account.identifier]}"
        else:
            return account
        self._warn(child(path, "token"), f"{fault}; the account is out of use")
        kept = token if token.reference is None else _emptied(token)
        return msgspec.structs.replace(account, token=kept, problem="secret_unusable")

    def _has_credential(self, account: AccountSpec, path: str) -> bool:
        """A token, a user with a password, or a name on an upstream whose login needs neither."""
        if account.token or (account.password and (account.email or account.mobile)):
            return True
        upstreams = [upstream for _, upstream in self._entries("upstreams") if upstream.name == account.upstream]
        if account.identifiers and any(map(_needs_no_account, upstreams)):
            return True
        self._error(path, "needs a token, or email or mobile with password")
        return False

    def _placed(self, account: AccountSpec, path: str) -> AccountSpec:
        """The account with its upstream, or with the problem that it fits none."""
        upstreams = [upstream for _, upstream in self._entries("upstreams")]
        if account.upstream is None:
            fits = [upstream for upstream in upstreams if fits_account(upstream, account)]
            if len(fits) == 1:
                return msgspec.structs.replace(account, upstream=fits[0].name)
            message = "fits several upstreams: say which" if fits else "fits no upstream"
            self._warn(child(path, "upstream"), f"{message}; the account is out of use")
            return msgspec.structs.replace(account, problem=account.problem or "no_upstream")
        named = next((upstream for upstream in upstreams if upstream.name == account.upstream), None)
        if named is None:
            known = [upstream.name for upstream in upstreams]
            self._warn(
                child(path, "upstream"), "no upstream has this name; the account is out of use", nearest(account.upstream, known)
            )
        elif not fits_account(named, account):
            self._warn(path, f"upstream {named.name} takes no such credential; the account is out of use")
        else:
            return account
        return msgspec.structs.replace(account, problem=account.problem or "no_upstream")

    def _models(self) -> None:
        names: dict[str, str] = {}
        for name, model in (self._sound("models") or {}).items():
            path = child("models", name)
            self._name(names, name, path)
            for upstream in () if model is UNSET else model.upstream:
                if upstream not in self._upstream_names:
                    hint = nearest(upstream, self._upstream_names)
                    self._error(child(path, "upstream"), f"no upstream is named {upstream}", hint)

    def _aliases(self) -> None:
        names: dict[str, str] = {}
        for name in self._sound("model_aliases") or {}:
            self._name(names, name, child("model_aliases", name))

    def _name(self, names: dict[str, str], name: str, path: str) -> None:
        """Model names are trimmed and compared without case, so two that differ in nothing else are one (config.md 3)."""
        if name != name.strip():
            self._error(path, "must not begin or end with blanks")
        self._once(names, name.strip().lower(), path, "name, but for case,")

    def _admin(self) -> None:
        admin = self._sound("admin")
        if admin and admin.password_hash and not is_password_hash(admin.password_hash):
            self._warn("admin.password_hash", "no password can match this: the admin API is closed", "`ds2d init` makes a hash")

    def _server(self) -> None:
        server = self._sound("server")
        if server is None:
            return
        for key, networks in (("open_networks", server.open_networks), ("trusted_proxies", server.trusted_proxies)):
            for index, network in enumerate(networks):
                path = child(f"server.{key}", index)
                if fault := fault_of_network(network):
                    self._error(path, fault)
                elif network.endswith("/0"):
                    self._warn(path, "is every address there is")
        self._values["server"] = msgspec.structs.replace(
            server, tls=self._with_files(server.tls), unix_socket=self._whole_path(server.unix_socket)
        )
        if server.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", server.root_path):
            self._error("server.root_path", "must be empty or a path as in /ds2d, without a slash at its end")

    def _with_files(self, tls: Tls) -> Tls:
        """The certificate and its key with their whole paths and digest."""
        files = {"cert_file": tls.cert_file, "key_file": tls.key_file}
        if not any(files.values()):
            return tls
        found: dict[str, str] = {}
        digests = ""
        for name, file in files.items():
            path = f"server.tls.{name}"
            if file is None:
                self._error(path, "is required: a certificate and its key go together")
                continue
            try:
                found[name], digest = self._sources.located(file)
            except UnreadableError as reason:
                self._error(path, str(reason))
            else:
                digests += digest
        return msgspec.structs.replace(tls, **found, digest=digest_of(digests.encode()))

    def _whole_path(self, name: str | None) -> str | None:
        """Where the UNIX socket is to be."""
        if name is None:
            return None
        path = os.path.normpath(os.path.join(self._sources.base_dir, name))
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            self._error("server.unix_socket", f"must have at most {MAX_SOCKET_PATH} bytes as a whole path")
        return path

    def _url(self, url: str, path: str, *, bare: bool = False) -> None:
        if fault := fault_of_url(url):
            self._error(path, fault)
        elif bare and ("?" in url or "#" in url):
            self._error(path, "must not have a query or a fragment")

    def _once(self, seen: dict[str, str], value: str | None, path: str, what: str) -> None:
        """Note an error where this value came before."""
        if value is None:
            return
        if value in seen:
            self._error(path, f"has the same {what} as {seen[value]}")
        else:
            seen[value] = path


def _is_sendable(text: str) -> bool:
    """Whether a header can have this value (RFC 9110, 5.5; ours are ASCII)."""
    return text.isascii() and text.isprintable()


def _emptied(secret: Secret | None) -> Secret:
    """The reference without what it leads to."""
    return Secret(None, secret.reference if secret else None)


def fits_account(upstream: UpstreamSpec, account: AccountSpec) -> bool:
    """Whether this upstream can use this account's credential: a token, or a password where there is a login."""
    if upstream.kind != "openai":
        return False
    if account.token is not None:
        return True
    return upstream.login is not None and (account.password is not None or _needs_no_account(upstream))


def _needs_no_account(upstream: UpstreamSpec) -> bool:
    """Whether the login asks for nothing but the client's id and secret."""
    return isinstance(upstream.login, OAuth2Login) and upstream.login.grant == "client_credentials"
