"""Forms with a file in them: wherever they are cut, one field is found and replaced, and no more is held than needed."""

from __future__ import annotations

from typing import cast

import pytest
from aiohttp import web

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.web.uploads import FormUpload

KIND = 'multipart/form-data; boundary="b-1"'


def part(head: str, value: bytes) -> bytes:
    return b"--b-1\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + value + b"\r\n"


FILE = part('name="file"; filename="model"\r\nContent-Type: audio/wav', b'\x00--b-1 \r\nname="model"\r\n\r\nno')
MODEL = part('name="model"', b" whisper-1 ")
END = b"--b-1--\r\n"


class Body:
    """The pieces of a body as the test hands them out; past them it has ended."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def readany(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


class Incoming:
    """A request whose body comes as the test says."""

    def __init__(self, length: int | None, kind: str = KIND) -> None:
        self.headers = {"Content-Type": kind}
        self.content_length = length
        self.content = Body()

    def upload(self, limit: int = 10_000) -> FormUpload:
        return FormUpload(cast(web.Request, self), limit, 60)


async def through(body: bytes, cut: int, model: str) -> tuple[str, bytes, int | None]:
    request = Incoming(len(body))
    upload = request.upload()
    request.content.pieces += [piece for piece in (body[:cut], body[cut:]) if piece]
    found = await upload.find_model()
    _, length, pieces = upload.form(model)
    assert not upload.begun
    sent = b"".join([piece async for piece in pieces])
    assert upload.begun
    return found, sent, length


@pytest.mark.parametrize("body", [MODEL + FILE + END, FILE + MODEL + END])
async def test_the_field_is_found_and_replaced_wherever_the_form_is_cut(body: bytes) -> None:
    for cut in range(len(body)):
        found, sent, length = await through(body, cut, "team/a")
        assert found == "whisper-1"
        assert sent == body.replace(b" whisper-1 ", b"team/a")
        assert length == len(sent)


async def test_the_rest_is_read_only_as_it_is_sent_on() -> None:
    request = Incoming(None)
    upload = request.upload()
    request.content.pieces.append(MODEL + FILE[:-10])
    assert await upload.find_model() == "whisper-1"
    _, length, pieces = upload.form("m")
    assert length is None
    first = await anext(pieces) + await anext(pieces)
    assert first == (MODEL + FILE[:-10]).replace(b" whisper-1 ", b"m")
    request.content.pieces.append(FILE[-10:] + END)
    assert b"".join([piece async for piece in pieces]) == FILE[-10:] + END


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (FILE + END, "model"),
        (b"--b-1\r\n" + b"x" * 9000, "body"),
        (MODEL + MODEL + END, "model"),
        (part('name="file"; name="model"', b"x") + END, "body"),
        (part('name="mo\\del"', b"x") + END, "body"),
        (part("name*=utf-8''model", b"x") + END, "body"),
        (part('name="a"\r\nContent-Disposition: form-data; name="model"', b"x") + END, "body"),
        (part('name="a"\r\n ; name="model"', b"x") + END, "body"),
        (part('filename="x"', b"x") + END, "body"),
        (part('name="model"', b"x" * 600) + END, "model"),
        (b'--b-1\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + b"x" * 600, "model"),
    ],
)
async def test_what_has_no_model_of_any_sense_is_refused(body: bytes, param: str) -> None:
    request = Incoming(len(body))
    request.content.pieces.append(body)
    with pytest.raises(GatewayError) as caught:
        await request.upload().find_model()
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID_REQUEST, param)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=", ""])
def test_what_is_no_form_is_refused(kind: str) -> None:
    with pytest.raises(GatewayError):
        Incoming(3, kind).upload()


async def test_the_limit_holds_for_what_is_sent_on_too() -> None:
    request = Incoming(None)
    upload = request.upload(limit=500)
    request.content.pieces.append(MODEL + FILE[:-10])
    await upload.find_model()
    _, _, pieces = upload.form("m")
    request.content.pieces.append(b"x" * 600)
    with pytest.raises(GatewayError) as caught:
        async for _ in pieces:
            pass
    assert caught.value.kind is ErrorKind.BODY_TOO_LARGE


async def test_a_second_model_behind_the_file_is_refused_before_it_is_sent() -> None:
    """A server that takes the last of two would be asked for a model that nobody permitted."""
    request = Incoming(None)
    request.content.pieces += [MODEL + FILE, part('name="model"', b"another"), END]
    upload = request.upload()
    assert await upload.find_model() == "whisper-1"
    _, _, pieces = upload.form("m")
    assert b"".join([await anext(pieces) for _ in range(2)]).startswith(MODEL[:40])
    with pytest.raises(GatewayError) as caught:
        await anext(pieces)
    assert caught.value.param == "model"


@pytest.mark.parametrize("head", ["name=model", 'filename="a\\"b"; name="model"', "name=\"model\"; filename*=utf-8''a%20b"])
async def test_spellings_that_everybody_reads_alike_are_taken(head: str) -> None:
    request = Incoming(None)
    request.content.pieces.append(part(head, b"m") + END)
    assert await request.upload().find_model() == "m"
