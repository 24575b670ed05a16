"""Random damage to bytes."""

from random import Random

PIECES = (
    *(b"\0", b"\xff", b'"', b"'", b",", b";", b"\n", b"\r", b":", b"\\", b"\xef\xbb\xbf"),
    *(b"(" * 300, b"1e999", b"-1", b"nan", b"9" * 30, b"__import__", b"True", b"\x80\0\0\0"),
)


def damage(data: bytes, rng: Random) -> bytes:
    """Changes, removes, inserts or repeats some of the bytes; often one bit, or the end."""
    match rng.randrange(4):
        case 0:
            return data[: rng.randrange(len(data) + 1)]
        case 1 if data:
            place = rng.randrange(len(data))
            changed = data[place] ^ (1 << rng.randrange(8))
            return data[:place] + bytes([changed]) + data[place + 1 :]
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.randrange(13))
        piece = rng.choice((*PIECES, rng.randbytes(rng.randrange(5)), data[start:stop]))
        data = data[:start] + piece + data[rng.choice((start, stop, len(data))) :]
    return data
