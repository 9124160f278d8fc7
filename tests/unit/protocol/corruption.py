"""Damage for messages: what a bad wire, a bug or malice might do to bytes."""

import random

EVIL = [0, 1, 2, 0x7F, 0x80, 0x81, 0xFE, 0xFF]


def corrupted(data: bytes, chance: random.Random) -> bytearray:
    """The same bytes with one to four of them changed, some cut out or some put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not changed:
            break
        place = chance.randrange(len(changed))
        what = chance.random()
        if what < 0.4:
            changed[place] = chance.choice(EVIL)
        elif what < 0.6:
            changed[place] ^= 1 << chance.randrange(8)
        elif what < 0.8:
            run = chance.choice(EVIL)
            changed[place : place + 4] = bytes([run]) * chance.randint(1, 8)
        elif what < 0.9:
            del changed[place : place + chance.randint(1, 5)]
        else:
            changed[place:place] = chance.randbytes(chance.randint(1, 5))
    return changed
