"""Draws the demo desktop's wallpaper: a morning over hills. One colour a row or an area, so that it
is cheap to send to a browser.

    python3 wallpaper.py OUT.png
"""

import math
import struct
import sys
import zlib

WIDTH, HEIGHT = 1280, 800
SKY = ((0x1D, 0x4E, 0x66), (0x4F, 0x9C, 0xA6), (0xF3, 0xD9, 0xA4))
SUN = (0xFF, 0xE9, 0xB8)
# Height at rest, swing and wavelength in pixels, phase, colour; far to near.
HILLS = (
    (470, 46, 610, 0.6, (0x6F, 0xA9, 0xA6)),
    (530, 58, 760, 2.1, (0x4A, 0x8C, 0x90)),
    (600, 44, 540, 4.0, (0x2F, 0x6F, 0x7A)),
    (668, 52, 880, 5.2, (0x20, 0x55, 0x64)),
    (735, 30, 690, 1.2, (0x16, 0x3F, 0x4D)),
)


def mix(a, b, share):
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b))


def sky(y):
    place = min(1.0, y / 560) * 2
    return mix(SKY[0], SKY[1], place) if place < 1 else mix(SKY[1], SKY[2], place - 1)


def outline(hill, x):
    rest, swing, wave, phase, _ = hill
    angle = x / wave * 2 * math.pi + phase
    return rest + swing * math.sin(angle) + swing * 0.35 * math.sin(2.3 * angle + 1)


def main(out):
    lines = [[outline(hill, x) for x in range(WIDTH)] for hill in HILLS]
    rows = bytearray()
    for y in range(HEIGHT):
        back = sky(y)
        rows.append(0)
        for x in range(WIDTH):
            colour = back
            edge = 92 - math.hypot(x - 905, y - 415)
            if edge > 0:
                colour = mix(colour, SUN, min(1, edge))
            for line, hill in zip(lines, HILLS):
                inside = y - line[x]
                if inside > 0:
                    colour = mix(colour, hill[4], min(1, inside))
            rows += bytes(colour)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    with open(out, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
        file.write(chunk(b"IDAT", zlib.compress(bytes(rows), 9)) + chunk(b"IEND", b""))


main(sys.argv[1])
