"""Draw the icon of the program and of its setup program, from plain shapes."""

from __future__ import annotations

import struct

SIZES = (16, 32, 48)
SAMPLES = 4  # per pixel, in each direction
BLUE, WHITE, GREEN = (0x1F, 0x5F, 0xA8), (0xFF, 0xFF, 0xFF), (0x2E, 0x9E, 0x4F)
NOTHING = (0, 0, 0)
Colour = tuple[int, int, int]


def icon() -> bytes:
    """Return a file .ico with each size: 32 bits a pixel, as all of Windows reads it.

    The format is that of ICONDIR and BITMAPINFOHEADER: rows from the bottom up, first
    the colours with alpha, then an empty mask.
    """
    images = [_image(size) for size in SIZES]
    head = struct.pack("<HHH", 0, 1, len(SIZES))
    offset = len(head) + 16 * len(SIZES)
    for size, image in zip(SIZES, images, strict=True):
        head += struct.pack(*("<BBBBHHII", size, size, 0, 0, 1, 32, len(image), offset))
        offset += len(image)
    return head + b"".join(images)


def _image(size: int) -> bytes:
    mask = bytes((size + 31) // 32 * 4 * size)
    info = struct.pack(
        *("<IiiHHIIiiII", 40, size, 2 * size, 1, 32, 0, 0, 0, 0, 0, 0),
    )
    rows = [_pixel(x, y, size) for y in reversed(range(size)) for x in range(size)]
    return info + b"".join(rows) + mask


def _pixel(x: int, y: int, size: int) -> bytes:
    """Return blue, green, red and alpha: the mean of what is seen in the pixel."""
    steps = [(step + 0.5) / SAMPLES for step in range(SAMPLES)]
    seen = [_seen((x + dx) / size, (y + dy) / size) for dy in steps for dx in steps]
    colours = [colour for colour in seen if colour is not None]
    count = len(colours) or 1
    mean = [
        sum(channel) // count for channel in zip(*(colours or [NOTHING]), strict=True)
    ]
    return bytes([*reversed(mean), 255 * len(colours) // len(seen)])


def _seen(x: float, y: float) -> Colour | None:
    """Return the colour at a point, 0 to 1 from the top left: a letter with a seal."""
    from_seal = ((x - 0.72) ** 2 + (y - 0.70) ** 2) ** 0.5
    if from_seal < 0.24:  # noqa: PLR2004 - shapes are numbers
        return GREEN if from_seal < 0.19 else WHITE  # noqa: PLR2004
    across = min(x, 1 - x)
    if across > 0.13 and 0.24 < y < 0.76:  # noqa: PLR2004
        # The flap: two lines that meet in the middle.
        from_flap = abs(y - 0.26 - 0.8 * (across - 0.13))
        return BLUE if from_flap < 0.035 else WHITE  # noqa: PLR2004
    # A square with round corners of 0.16.
    dx, dy = max(0.16 - across, 0), max(0.16 - min(y, 1 - y), 0)
    return BLUE if (dx**2 + dy**2) ** 0.5 <= 0.16 else None  # noqa: PLR2004
