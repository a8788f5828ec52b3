import errno
import io
import os
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from infer.pictures.decode import MAX_FILE_BYTES, RejectedImage, centre_crop, decode_crop, try_picture
from tests.crops import read_crop
from tests.fuzz import fuzz
from tests.synthetic import draw_cell

SIZE = 112
Pixels = npt.NDArray[np.uint8]


def positions(height: int, width: int) -> Pixels:
    """A picture whose pixels encode their position: row, column, 7."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, 7)], axis=-1).astype(np.uint8)


def encoded(picture: Pixels | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def read(folder: Path, data: bytes, name: str = "x.jpg") -> Pixels:
    (folder / name).write_bytes(data)
    return read_crop(folder / name, folder.resolve(), SIZE)


def code(path: Path, root: Path) -> str:
    """Why a picture is rejected."""
    with pytest.raises(RejectedImage) as caught:
        read_crop(path, root.resolve(), SIZE)
    return str(caught.value).partition(": ")[0]


def code_of(folder: Path, data: bytes) -> str:
    (folder / "x.jpg").write_bytes(data)
    return code(folder / "x.jpg", folder)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Make a test that hangs fail."""

    def too_late(*_: object) -> None:
        pytest.fail(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, pixels: bytes) -> bytes:
    """A PNG built by hand, because Pillow cannot write 16-bit colour."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_16_bit_rgb(side: int) -> bytes:
    """A TIFF built by hand: header, three bits-per-sample values, one directory, one strip."""
    strip = np.full((side, side, 3), 300, "<u2").tobytes()
    bits_at, directory_at = 8, 14
    strip_at = directory_at + 2 + 9 * 12 + 4
    short, long = 3, 4
    tags = [
        (256, short, 1, side),
        (257, short, 1, side),
        (258, short, 3, bits_at),
        (259, short, 1, 1),
        (262, short, 1, 2),
        (273, long, 1, strip_at),
        (277, short, 1, 3),
        (278, short, 1, side),
        (279, long, 1, len(strip)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", directory_at) + struct.pack("<HHH", 16, 16, 16) + directory + strip


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [(224, 224, 56, 56), (128, 128, 8, 8), (112, 112, 0, 0), (113, 115, 0, 1), (225, 112, 56, 0), (112, 255, 0, 71)],
)
def test_the_crop_is_the_centre(tmp_path: Path, height: int, width: int, top: int, left: int) -> None:
    crop = read(tmp_path, encoded(positions(height, width)))
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.dtype == np.uint8
    assert crop[0, 0].tolist() == [top, left, 7]
    assert crop[-1, -1].tolist() == [top + 111, left + 111, 7]
    np.testing.assert_array_equal(crop, positions(height, width)[top : top + 112, left : left + 112])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_the_content_decides_not_the_suffix(tmp_path: Path, kind: str) -> None:
    picture = positions(128, 128)
    np.testing.assert_array_equal(read(tmp_path, encoded(picture, kind)), picture[8:120, 8:120])


def test_a_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    picture = draw_cell(1, np.random.default_rng(0))
    crop = read(tmp_path, encoded(picture, "JPEG", quality=95))
    assert np.abs(crop.astype(int) - picture[56:168, 56:168]).mean() < 3


@pytest.mark.parametrize(
    ("image", "kind", "rgb"),
    [
        (Image.new("RGB", (120, 120), (10, 20, 30)), "PNG", [10, 20, 30]),
        (Image.new("L", (120, 120), 77), "PNG", [77, 77, 77]),
        (Image.new("L", (120, 120), 77), "TIFF", [77, 77, 77]),
        (Image.new("1", (120, 120), 1), "PNG", [255, 255, 255]),
        (Image.new("RGB", (120, 120), (10, 20, 30)).quantize(4), "PNG", [10, 20, 30]),
        (Image.new("CMYK", (120, 120), (255, 0, 0, 0)), "TIFF", [0, 255, 255]),
        (Image.new("RGBA", (120, 120), (10, 20, 30, 255)), "PNG", [10, 20, 30]),
        (Image.new("LA", (120, 120), (77, 255)), "PNG", [77, 77, 77]),
    ],
    ids=["rgb", "grey png", "grey tiff", "one bit", "palette", "cmyk", "opaque alpha", "opaque grey alpha"],
)
def test_eight_bit_modes_become_rgb(tmp_path: Path, image: Image.Image, kind: str, rgb: list[int]) -> None:
    crop = read(tmp_path, encoded(image, kind))
    np.testing.assert_array_equal(crop, np.full((SIZE, SIZE, 3), rgb, np.uint8))


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    crop = read(tmp_path, encoded(Image.new("CMYK", (120, 120), (255, 0, 0, 0)), "JPEG", quality=95))
    np.testing.assert_allclose(crop[60, 60], [0, 255, 255], atol=3)


def test_a_progressive_jpeg_is_the_same_picture(tmp_path: Path) -> None:
    picture = draw_cell(1, np.random.default_rng(0))
    plain, progressive = (encoded(picture, "JPEG", quality=95, progressive=way) for way in (False, True))
    assert plain != progressive
    np.testing.assert_array_equal(read(tmp_path, progressive), read(tmp_path, plain))


ORIENTATION, XMP = 274, 700


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_tag_is_ignored(tmp_path: Path, kind: str, orientation: int) -> None:
    """Pixels stay in stored orientation, in training and in scoring: analysers write no orientation tag."""
    picture = draw_cell(1, np.random.default_rng(0))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = encoded(picture, kind, exif=exif)
    np.testing.assert_array_equal(read(tmp_path, turned), read(tmp_path, encoded(picture, kind)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (120, 150), (150, 113)])
def test_an_orientation_tag_in_a_tiff_is_ignored(compression: str, orientation: int, height: int, width: int) -> None:
    """Pillow rotates these pictures."""
    picture = draw_cell(1, np.random.default_rng(0))[:height, :width]
    stored = centre_crop(picture, SIZE)
    turn = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    for tags in ({ORIENTATION: orientation}, {XMP: turn}, {ORIENTATION: orientation, XMP: turn.replace(b"9", b"3")}):
        data = encoded(picture, "TIFF", compression=compression, tiffinfo=tags)
        crop, size = decode_crop(data, SIZE)
        np.testing.assert_array_equal(crop, stored)
        assert size == (width, height)


@pytest.mark.parametrize("kind", [4, 5, 11, 12], ids=["long", "rational", "float", "double"])
@pytest.mark.parametrize("orientation", [5, 6])
def test_an_orientation_of_another_number_type_is_ignored_too(kind: int, orientation: int) -> None:
    """Pillow applies this tag."""
    picture = draw_cell(1, np.random.default_rng(0))[:120, :150]
    tags = ImageFileDirectory_v2()
    tags[ORIENTATION] = orientation
    tags.tagtype[ORIENTATION] = kind
    data = encoded(picture, "TIFF", tiffinfo=tags)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == (120, 150)  # rotated
    np.testing.assert_array_equal(decode_crop(data, SIZE)[0], centre_crop(picture, SIZE))


def one_clear_pixel() -> Image.Image:
    image = Image.new("RGBA", (120, 120), (10, 20, 30, 255))
    image.putpixel((60, 60), (10, 20, 30, 254))
    return image


@pytest.mark.parametrize(
    "data",
    [
        encoded(one_clear_pixel()),
        encoded(Image.new("L", (120, 120), 77), transparency=77),
        encoded(Image.new("RGB", (120, 120), (10, 20, 30)).quantize(4), transparency=0),
        encoded(Image.new("RGB", (120, 120), (10, 20, 30)), transparency=(10, 20, 30)),
    ],
    ids=["alpha", "grey with a transparent level", "palette", "rgb with a transparent colour"],
)
def test_transparent_pixels_are_rejected(tmp_path: Path, data: bytes) -> None:
    assert code_of(tmp_path, data) == "transparent"


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(np.full((120, 120), 300, np.uint16))),
        png(120, 120, 16, 2, (b"\0" + bytes(720)) * 120),
        png(120, 120, 16, 6, (b"\0" + bytes(960)) * 120),
        encoded(Image.fromarray(np.full((120, 120), 300, np.uint16)), "TIFF"),
        tiff_16_bit_rgb(120),
        encoded(Image.fromarray(np.full((120, 120), 0.5, np.float32)), "TIFF"),
    ],
    ids=["png grey", "png rgb", "png rgba", "tiff grey", "tiff rgb", "tiff float"],
)
def test_more_than_8_bits_are_rejected_never_clipped(tmp_path: Path, data: bytes) -> None:
    assert code_of(tmp_path, data) == "not_8_bit"


def test_other_colours_are_named(tmp_path: Path) -> None:
    lab = encoded(Image.new("LAB", (120, 120), (100, 5, 7)), "TIFF")
    assert code_of(tmp_path, lab) == "other_colours"
    with pytest.raises(RejectedImage, match=r"^other_colours: LAB instead of RGB or grey\. Save the picture as RGB$"):
        decode_crop(lab, SIZE)


def png_with(*chunks: bytes) -> bytes:
    """A generated picture with chunks between header and pixels."""
    data = encoded(draw_cell(1, np.random.default_rng(0)))
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "note",
    [
        chunk(b"tEXt", b"Comment\0" + b"x" * 3 * 2**20),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2 * 2**20)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 2 * 2**20)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 * 2**20))),
        chunk(b"eXIf", b"Exif\0\0" + bytes(70_000)),
        chunk(b"tEXt", b"Comment\0x") * 5000,
        chunk(b"tEXt", b"Comment\0x")[:-1] + b"?",
        chunk(b"zTXt", b"Comment\0\0 not packed"),
    ],
    ids=["text", "packed text", "packed unicode", "profile", "camera data", "many", "wrong checksum", "not packed"],
)
def test_what_is_written_in_a_png_does_not_matter(tmp_path: Path, note: bytes) -> None:
    picture = draw_cell(1, np.random.default_rng(0))
    np.testing.assert_array_equal(read(tmp_path, png_with(note)), centre_crop(picture, SIZE))


def test_a_wrong_checksum_of_a_pngs_pixels(tmp_path: Path) -> None:
    data = png_with()
    end_of_pixels = data.rindex(b"IEND") - 4
    assert code_of(tmp_path, data[: end_of_pixels - 1] + b"?" + data[end_of_pixels:]) == "damaged"
    assert code_of(tmp_path, png_with(chunk(b"gAMA", bytes(4))[:-1] + b"?")) == "damaged"


def test_the_hand_built_png_itself_is_good(tmp_path: Path) -> None:
    assert read(tmp_path, png(120, 120, 8, 2, (b"\0" + bytes([10, 20, 30] * 120)) * 120))[5, 5].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_several_frames_are_rejected(tmp_path: Path, kind: str) -> None:
    others = [Image.fromarray(positions(128, 128) + np.uint8(50))]
    data = encoded(positions(128, 128), kind, save_all=True, append_images=others)
    assert code_of(tmp_path, data) == "several_frames"


@pytest.mark.parametrize(("height", "width"), [(111, 200), (200, 111), (1, 1)])
def test_too_small(tmp_path: Path, height: int, width: int) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(positions(height, width)))
    with pytest.raises(RejectedImage, match=f"^too_small: {width} x {height}, at least 112 x 112 is needed$"):
        read_crop(tmp_path / "x.jpg", tmp_path.resolve(), SIZE)


def test_empty(tmp_path: Path) -> None:
    assert code_of(tmp_path, b"") == "empty"


@pytest.mark.parametrize("data", [b"no picture\n" * 50, b"\0" * 5000, encoded(positions(128, 128), "GIF")])
def test_not_an_image(tmp_path: Path, data: bytes) -> None:
    assert code_of(tmp_path, data) == "not_an_image"


@pytest.mark.parametrize(
    ("kind", "reason"), [("JPEG", "damaged"), ("PNG", "damaged"), ("BMP", "undecodable"), ("TIFF", "undecodable")]
)
def test_truncated_by_its_last_kilobyte(tmp_path: Path, kind: str, reason: str) -> None:
    data = encoded(draw_cell(1, np.random.default_rng(0)), kind)
    assert read(tmp_path, data).shape == (SIZE, SIZE, 3)
    assert code_of(tmp_path, data[:-1024]) == reason


@pytest.mark.parametrize("lost", [2, 100, 1024, 4000])
def test_a_jpeg_whose_tail_was_never_written(tmp_path: Path, lost: int) -> None:
    data = encoded(draw_cell(1, np.random.default_rng(0)), "JPEG", quality=90)
    assert code_of(tmp_path, data[:-lost]) == "damaged"
    assert code_of(tmp_path, data[:-lost] + bytes(lost)) == "damaged"


@pytest.mark.parametrize("side", [30_000, 10_000, 5_001])
def test_a_bomb_is_not_unpacked(tmp_path: Path, side: int) -> None:
    assert code_of(tmp_path, png(side, side, 8, 2, b"")) == "too_many_pixels"


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert code(tmp_path / "x.jpg", tmp_path) == "too_large"


def test_a_folder_named_like_a_picture(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    assert code(tmp_path / "x.jpg", tmp_path) == "not_a_file"


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with within(10):
        assert code(tmp_path / "x.jpg", tmp_path) == "not_a_file"


def test_a_socket_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 108 characters
    with socket.socket(socket.AF_UNIX) as server, within(10):
        server.bind("x.jpg")
        assert code(tmp_path / "x.jpg", tmp_path) == "unreadable"


def test_links(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    (cohort / "P1").mkdir(parents=True)
    good = encoded(positions(128, 128))
    (cohort / "good.png").write_bytes(good)
    (tmp_path / "outside.png").write_bytes(good)
    links = {"inside": "../good.png", "outside": "../../outside.png", "gone": "nowhere.png", "loop": "loop.jpg"}
    (tmp_path / "cohort2").mkdir()
    (tmp_path / "cohort2/x.png").write_bytes(good)
    links |= {"beside": "../../cohort2/x.png", "long": "x" * 300}
    for name, target in links.items():
        (cohort / "P1" / f"{name}.jpg").symlink_to(target)
    crop = read_crop(cohort / "P1/inside.jpg", cohort.resolve(), SIZE)
    np.testing.assert_array_equal(crop, positions(128, 128)[8:120, 8:120])
    assert code(cohort / "P1/outside.jpg", cohort) == "outside"
    assert code(cohort / "P1/gone.jpg", cohort) == "unreadable"
    assert code(cohort / "P1/loop.jpg", cohort) == "unreadable"
    assert code(cohort / "P1/beside.jpg", cohort) == "outside"  # its path starts like the cohort's
    assert code(cohort / "P1/long.jpg", cohort) == "unreadable"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_picture_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Simulated, because root may read everything."""

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("infer.pictures.decode.os.open", refused)
    assert code(tmp_path / "x.jpg", tmp_path) == "unreadable"


def test_reading_that_breaks_off_is_no_matter_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x.jpg").write_bytes(b"good")
    monkeypatch.setattr("infer.pictures.decode.open", lambda *_, **__: Broken(), raising=False)
    with pytest.raises(OSError, match="Input/output error"):
        read_crop(tmp_path / "x.jpg", tmp_path.resolve(), SIZE)


def test_too_little_memory_to_read_is_no_matter_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("infer.pictures.decode.read_picture", short_of_memory)
    content, found = try_picture(tmp_path / "x.jpg", tmp_path)
    assert isinstance(found, OSError)
    assert (found.errno, content) == (errno.ENOMEM, str(found))


def test_no_file_is_left_open(tmp_path: Path) -> None:
    for name, data in (("good", encoded(positions(128, 128))), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("good", "empty", "folder"):
        try_picture(tmp_path / name, tmp_path.resolve())
    assert len(os.listdir("/proc/self/fd")) == before


def test_whatever_a_decoder_raises_is_undecodable(tmp_path: Path) -> None:
    """In this case Pillow raises SyntaxError, neither an OSError nor a ValueError."""
    pixels = zlib.compress((b"\0" + bytes(360)) * 120)
    broken = png(120, 120, 8, 2, b"")[:33] + chunk(b"IDAT", pixels[:20]) + chunk(b"\0\0\0\0", pixels[20:])
    assert code_of(tmp_path, broken + chunk(b"IEND", b"")) == "undecodable"


def test_a_missing_picture(tmp_path: Path) -> None:
    assert code(tmp_path / "x.jpg", tmp_path) == "unreadable"


def assert_crop_or_rejected(folder: Path, data: bytes) -> None:
    try:
        crop = read(folder, data)
    except RejectedImage:
        return
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.dtype == np.uint8


MAGIC = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*", b"BM", b"\xff\xd8\xff\xdb"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on broken TIFF tags
@fuzz(100)
@given(magic=st.sampled_from(MAGIC), data=st.binary(max_size=300))
@example(magic=b"\x89PNG\r\n\x1a\n", data=chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 16, 2, 0, 0, 0)))
def test_any_bytes_are_a_crop_or_rejected(tmp_path_factory: pytest.TempPathFactory, magic: bytes, data: bytes) -> None:
    assert_crop_or_rejected(tmp_path_factory.getbasetemp(), magic + data)


VALID = [encoded(draw_cell(2, np.random.default_rng(1), size=120), kind) for kind in ("JPEG", "PNG", "TIFF", "BMP")]


@pytest.mark.filterwarnings("ignore::UserWarning")
@fuzz(150)
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    early=st.booleans(),
    kept=st.floats(0.5, 1),
)
def test_damaged_pictures_are_a_crop_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[float, int]], early: bool, kept: float
) -> None:
    damaged = bytearray(data)
    reach = 200 if early else len(data)  # headers are short and can break in more ways
    for place, value in changes:
        damaged[int(place * reach)] = value
    assert_crop_or_rejected(tmp_path_factory.getbasetemp(), bytes(damaged[: int(kept * len(damaged))]))
