"""A program of its own that looks into answers: pictures are decoded and patterns are matched here, with little
memory, time and rights, because an answer may be crafted to exploit its decoder.

Needs nothing of this package. One line of JSON on stdin says what to do, then come the bodies; one line of JSON on
stdout is the result: ``{"error": ...}``, or the answer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import sys
import warnings
from typing import Any

MEMORY_MAX = 1 << 30
CPU_SECONDS_MAX = 10
PIXELS_MAX = 16_000_000
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Modes with eight bits a channel or less: a comparison would not see all of deeper pictures."""
NOBODY = 65534


class Unusable(Exception):
    """Why a body cannot be compared; a sentence's end."""


def confine() -> None:
    """Give up what is not needed: memory beyond a limit, time, files, and root's rights."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def strip(body: bytes, patterns: list[str]) -> dict[str, Any]:
    """SHA-256 of a text without what the patterns match, in their order."""
    for pattern in patterns:
        body = re.sub(pattern.encode(), b"", body)
    return {"sha256": hashlib.sha256(body).hexdigest()}


def decoded(body: bytes) -> Any:
    """The picture, its colours multiplied by its opacity: invisible pixels do not differ."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(body), formats=("PNG", "JPEG"))
        if picture.width * picture.height > PIXELS_MAX:
            raise Unusable(f"is {picture.width} x {picture.height} pixels, the limit is {PIXELS_MAX}")
        if picture.mode not in MODES:
            raise Unusable(f"has pixels of kind {picture.mode}, which cannot be compared")
        return picture.convert("RGBA").convert("RGBa")
    except UnidentifiedImageError:
        raise Unusable(f"is no PNG or JPEG image: it begins with {body[:40]!r}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable(f"cannot be decoded as an image: {error}") from None


def compare(one: bytes, other: bytes, tolerance: int) -> dict[str, Any]:
    """The largest difference of a channel, and the share of pixels (percent) that differ by more than
    ``tolerance``."""
    from PIL import ImageChops

    before, after = decoded(one), decoded(other)
    sizes = [list(before.size), list(after.size)]
    if before.size != after.size:
        return {"sizes": sizes, "largest": 255, "share_percent": 100.0}
    bands = [ImageChops.difference(*pair) for pair in zip(before.split(), after.split(), strict=True)]
    worst = bands[0]
    for band in bands[1:]:
        worst = ImageChops.lighter(worst, band)
    counts = worst.histogram()
    largest = max(value for value, count in enumerate(counts) if count)
    share = 100 * sum(counts[tolerance + 1 :]) / sum(counts)
    return {"sizes": sizes, "largest": largest, "share_percent": share}


def work(order: dict[str, Any], bodies: list[bytes]) -> dict[str, Any]:
    if order["do"] == "strip":
        return strip(bodies[0], order["patterns"])
    if order["do"] == "look":
        return {"size": list(decoded(bodies[0]).size)}
    return compare(bodies[0], bodies[1], order["tolerance"])


def tell(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    if order["do"] != "strip":
        try:
            from PIL import Image
        except ImportError:
            tell({"error": "cannot be compared: Pillow is not installed"})
            return
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.preinit()  # reads the code of the decoders while files may still be read
    try:
        confine()
    except OSError as error:
        tell(
            {
                "error": f"cannot be looked at: the program that does could not give up its rights: {error.strerror}"
            }
        )
        return
    bodies = [sys.stdin.buffer.read(size) for size in order["sizes"]]
    try:
        result = work(order, bodies)
    except Unusable as error:
        result = {"error": str(error)}
    except MemoryError:
        result = {"error": f"needs more than {MEMORY_MAX >> 20} MiB to be looked at"}
    tell(result)


if __name__ == "__main__":
    main()
