"""Everything that can go wrong with a turn, as one kind of exception and one table.

Rule: code below web/ raises `GatewayError` and nothing else on purpose; a dialect turns its kind into a status and a
body by its own column of `MATRIX` (errors.md 2), so no status code stands anywhere else.
Surprise: the HTTP status can differ from the row's by a setting (`runtime.timeout_status`), so it may ride on the error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec


class ErrorKind(StrEnum):
    """What went wrong, one member a row of errors.md 2."""

    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    UNSUPPORTED_TOOL = "unsupported_tool"
    IMAGE_NOT_SUPPORTED = "image_not_supported"
    INVALID_IMAGE = "invalid_image"
    THREAD_UNSUPPORTED = "thread_unsupported"
    MODEL_NOT_FOUND = "model_not_found"
    ROUTE_NOT_FOUND = "route_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    RESPONSE_NOT_FOUND = "response_not_found"
    ITEM_NOT_FOUND = "item_not_found"
    PREVIOUS_RESPONSE_NOT_FOUND = "previous_response_not_found"
    UPGRADE_REQUIRED = "upgrade_required"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    INVALID_KEY = "invalid_key"
    KEY_EXPIRED = "key_expired"
    FORBIDDEN = "forbidden"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    QUOTA_EXHAUSTED = "quota_exhausted"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    MODEL_UNAVAILABLE = "model_unavailable"
    CONTEXT_LENGTH = "context_length"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_TOO_LARGE = "upstream_too_large"
    UPSTREAM_AUTH = "upstream_auth"
    UPSTREAM_BILLING = "upstream_billing"
    UPSTREAM_NOT_FOUND = "upstream_not_found"
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_OVERLOADED = "upstream_overloaded"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_GARBLED = "upstream_garbled"
    UPSTREAM_DISCONNECTED = "upstream_disconnected"
    EMPTY_ANSWER = "empty_answer"
    TOOL_CHOICE_VIOLATION = "tool_choice_violation"
    MALFORMED_CALL = "malformed_call"
    CLIENT_CLOSED = "client_closed"
    CANCELLED = "cancelled"
    NOT_IMPLEMENTED = "not_implemented"
    SHUTTING_DOWN = "shutting_down"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    INTERNAL = "internal"


class Row(msgspec.Struct, frozen=True):
    """One row of the matrix: the status, each dialect's words for it, and whether another attempt may help.

    `retry` says whether the service may try another account before the first byte; `final` whether the client is told
    (`x-should-retry: false`) that asking again cannot help.
    """

    status: int
    openai_type: str
    openai_code: str
    anthropic: str
    gemini: str
    retry: bool = False
    final: bool = False


_BAD = "invalid_request_error"

MATRIX: dict[ErrorKind, Row] = {
    ErrorKind.INVALID_JSON: Row(400, _BAD, "invalid_request", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.INVALID_REQUEST: Row(400, _BAD, "invalid_request", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.UNSUPPORTED_PARAMETER: Row(400, _BAD, "unsupported_parameter", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.UNSUPPORTED_TOOL: Row(400, _BAD, "unsupported_tool", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.IMAGE_NOT_SUPPORTED: Row(400, _BAD, "image_not_supported", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.INVALID_IMAGE: Row(400, _BAD, "invalid_image", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.THREAD_UNSUPPORTED: Row(400, _BAD, "invalid_request", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.MODEL_NOT_FOUND: Row(404, _BAD, "model_not_found", "not_found_error", "NOT_FOUND"),
    ErrorKind.ROUTE_NOT_FOUND: Row(404, _BAD, "not_found", "not_found_error", "NOT_FOUND"),
    ErrorKind.METHOD_NOT_ALLOWED: Row(405, _BAD, "method_not_allowed", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.RESPONSE_NOT_FOUND: Row(404, _BAD, "response_not_found", "not_found_error", "NOT_FOUND"),
    ErrorKind.ITEM_NOT_FOUND: Row(404, _BAD, "item_not_found", "not_found_error", "NOT_FOUND"),
    ErrorKind.PREVIOUS_RESPONSE_NOT_FOUND: Row(400, _BAD, "previous_response_not_found", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.UPGRADE_REQUIRED: Row(426, _BAD, "upgrade_required", _BAD, "FAILED_PRECONDITION"),
    ErrorKind.REQUEST_TIMEOUT: Row(408, _BAD, "request_timeout", _BAD, "DEADLINE_EXCEEDED"),
    ErrorKind.BODY_TOO_LARGE: Row(413, _BAD, "request_too_large", "request_too_large", "INVALID_ARGUMENT"),
    ErrorKind.HEADERS_TOO_LARGE: Row(431, _BAD, "headers_too_large", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.UNSUPPORTED_ENCODING: Row(415, _BAD, "unsupported_encoding", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.INVALID_KEY: Row(401, "authentication_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    ErrorKind.KEY_EXPIRED: Row(401, "authentication_error", "api_key_expired", "authentication_error", "UNAUTHENTICATED"),
    ErrorKind.FORBIDDEN: Row(403, "permission_error", "forbidden", "permission_error", "PERMISSION_DENIED"),
    ErrorKind.MODEL_NOT_ALLOWED: Row(403, "permission_error", "model_not_allowed", "permission_error", "PERMISSION_DENIED"),
    ErrorKind.QUOTA_EXHAUSTED: Row(
        429, "insufficient_quota", "insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED", final=True
    ),
    ErrorKind.RATE_LIMITED: Row(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    ErrorKind.QUEUE_FULL: Row(429, "rate_limit_error", "queue_full", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    ErrorKind.QUEUE_TIMEOUT: Row(429, "rate_limit_error", "queue_timeout", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    ErrorKind.MODEL_UNAVAILABLE: Row(503, "server_error", "model_unavailable", "overloaded_error", "UNAVAILABLE"),
    ErrorKind.CONTEXT_LENGTH: Row(400, _BAD, "context_length_exceeded", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.UPSTREAM_REJECTED: Row(400, _BAD, "invalid_request", _BAD, "INVALID_ARGUMENT"),
    ErrorKind.UPSTREAM_TOO_LARGE: Row(413, _BAD, "request_too_large", "request_too_large", "INVALID_ARGUMENT"),
    ErrorKind.UPSTREAM_AUTH: Row(503, "server_error", "upstream_auth", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_BILLING: Row(503, "server_error", "upstream_billing", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_NOT_FOUND: Row(503, "server_error", "model_unavailable", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_RATE_LIMITED: Row(
        429, "rate_limit_error", "upstream_rate_limited", "rate_limit_error", "RESOURCE_EXHAUSTED", retry=True
    ),
    ErrorKind.UPSTREAM_ERROR: Row(503, "server_error", "upstream_error", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_OVERLOADED: Row(503, "server_error", "upstream_error", "overloaded_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_UNREACHABLE: Row(503, "server_error", "upstream_unreachable", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_TIMEOUT: Row(503, "server_error", "upstream_timeout", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_GARBLED: Row(503, "server_error", "upstream_error", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.UPSTREAM_DISCONNECTED: Row(503, "server_error", "upstream_disconnected", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.EMPTY_ANSWER: Row(503, "server_error", "empty_answer", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.TOOL_CHOICE_VIOLATION: Row(422, _BAD, "tool_choice_violation", _BAD, "FAILED_PRECONDITION", final=True),
    ErrorKind.MALFORMED_CALL: Row(503, "server_error", "upstream_error", "api_error", "UNAVAILABLE", retry=True),
    ErrorKind.CLIENT_CLOSED: Row(499, _BAD, "client_closed", _BAD, "CANCELLED"),
    ErrorKind.CANCELLED: Row(499, _BAD, "cancelled", _BAD, "CANCELLED"),
    ErrorKind.NOT_IMPLEMENTED: Row(501, "not_implemented_error", "not_implemented", "api_error", "UNIMPLEMENTED", final=True),
    ErrorKind.SHUTTING_DOWN: Row(503, "server_error", "shutting_down", "overloaded_error", "UNAVAILABLE"),
    ErrorKind.LEDGER_UNAVAILABLE: Row(503, "server_error", "ledger_unavailable", "api_error", "UNAVAILABLE"),
    ErrorKind.INTERNAL: Row(500, "server_error", "internal_error", "api_error", "INTERNAL"),
}


class GatewayError(Exception):
    """A turn cannot go on, with what the caller may know about it.

    `message` goes to the client: short English that names the field or limit, never a key, account, host or path.
    `param` is the path of the field in the client's own dialect. `retry_after` is seconds (any positive number; the
    header is clamped by web/). `details` are members a dialect adds to its body (errors.md 1). `status` replaces the
    row's. `limits` are numbers for texts that clients parse: prompt tokens, max_tokens, window (errors.md 2).
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: dict[str, object] | None = None,
        status: int | None = None,
        limits: tuple[int | None, int | None, int | None] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details = details
        self.limits = limits
        self._status = status

    @property
    def row(self) -> Row:
        return MATRIX[self.kind]

    @property
    def status(self) -> int:
        """The HTTP status this error has, or stands for inside a stream."""
        return self._status or self.row.status

    @status.setter
    def status(self, value: int) -> None:
        self._status = value

    def named(self, names: Mapping[str, str]) -> GatewayError:
        """This error with its field as the caller wrote it, itself where that is the same. `names`: from chat's names, which
        servers and the code that asks them use; what stands below such a field has other paths there and is left out."""
        field = names.get(re.split(r"[.\[]", self.param, maxsplit=1)[0]) if self.param else None
        if field is None:
            return self
        message = self.message
        if message.startswith(f"{self.param}: "):
            message = field + message.removeprefix(str(self.param))
        return GatewayError(
            self.kind,
            message,
            param=field,
            retry_after=self.retry_after,
            details=self.details,
            status=self._status,
            limits=self.limits,
        )

    def __repr__(self) -> str:
        return f"GatewayError({self.kind}, {self.message!r})"
