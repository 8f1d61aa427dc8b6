# SPDX-License-Identifier: GPL-2.0-only
"""luks: what the file looks like (luks-file.svg), how a password opens it (luks-key.svg), and the
long number that holds all tweaks (luks-tweaks.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def note(made: Picture, y: float, *lines: str) -> None:
    """Writes lines below a picture."""
    for number, line in enumerate(lines):
        made.text(20, y + 17 * number, f"~{line}")


def file() -> Picture:
    """Draws the regions of a volume with a 64-byte key, with their offsets."""
    made = Picture("luks-file", 860, 250, "A LUKS volume: the header, eight slots, the payload")
    made.text(20, 30, "the file", style="title")
    slots = [("header", "violet", 92, "0")]
    slots += [(f"slot {n}", "green" if n == 0 else "plain", 62, "") for n in range(8)]
    slots += [("payload: the disk", "amber", 220, "2068480")]
    x = 20.0
    for word, kind, width, offset in slots:
        made.box(x, 44, width, 48, word, kind=kind)
        if offset:
            made.text(x, 110, f"`{offset}`")
        x += width
    made.text(112, 110, "`4096`")
    made.text(174, 110, "`262144`")
    made.text(20, 134, "~592 bytes: the names of the algorithms,")
    made.text(20, 151, "~for each slot salt, iterations and state,")
    made.text(20, 168, "~and a digest of the master key.")
    made.text(330, 134, "~250 KiB each: the master key, cut into 4000")
    made.text(330, 151, "~stripes, encrypted with a password. A slot")
    made.text(330, 168, "~that is not in use holds nothing, or noise.")
    made.text(620, 134, "~AES-XTS with the master key;")
    made.text(620, 151, "~sector 0 of the disk is the")
    made.text(620, 168, "~sector 0 of the encryption.")
    note(
        made, 214,
        "Offsets are those of new volumes with AES-256 in XTS mode; others have shorter keys, and",
        "shorter slots. The file is longer than the disk by the header and the slots, no more.",
    )  # fmt: skip
    return made


def key() -> Picture:
    """Draws the way from a password to the disk."""
    made = Picture("luks-key", 860, 330, "From a password to the disk")
    word = made.box(20, 20, 130, 48, "password", "~a secret", kind="green")
    kdf = made.box(210, 20, 170, 48, "PBKDF2", "~slow on purpose", kind="blue")
    slot_key = made.box(440, 20, 130, 48, "slot key", kind="plain")
    salt = made.box(210, 104, 170, 44, "~salt, iterations", "~of the slot", kind="violet")
    made.arrow(word.right(), kdf.left())
    made.arrow(salt.top(), kdf.bottom())
    made.arrow(kdf.right(), slot_key.left())
    material = made.box(210, 184, 170, 48, "key material", "~of the slot", kind="plain")
    decrypt = made.box(440, 184, 130, 48, "decrypt", kind="blue")
    made.arrow(slot_key.bottom(), decrypt.top())
    made.arrow(material.right(), decrypt.left())
    merge = made.box(620, 184, 200, 48, "merge 4000 stripes", kind="blue")
    made.arrow(decrypt.right(), merge.left())
    master = made.box(655, 20, 130, 48, "master key", kind="amber")
    made.arrow(merge.top(), master.bottom())
    made.box(20, 184, 130, 48, "~digest of the", "~master key", kind="violet")
    note(
        made, 268,
        "Is it the right one? PBKDF2 of the master key must be the header's digest. If not, the",
        "password was another slot's: the next slot in use is tried. The master key never changes,",
        "so a new password costs one slot, and not the whole disk.",
    )  # fmt: skip
    return made


def tweaks() -> Picture:
    """Draws T again and again every 129 bits, over places of 128."""
    made = Picture("luks-tweaks", 860, 236, "All tweaks of a sector in one long number")
    place, shift = 180.0, 22.0
    left = 96.0
    made.text(20, 50, "places")
    for n in range(4):
        made.box(left + n * place, 30, place, 32, f"~place {n}: 128 bits", kind="none")
    made.text(20, 104, "the row")
    kinds = ("amber", "green", "blue", "violet")
    for n in range(4):
        x = left + n * (place + shift)
        width = min(place, 850 - x)
        made.box(x, 84, width, 32, "T", kind=kinds[n])
    for n in range(1, 4):
        x = left + n * place
        made.rule((x, 62), (x, 128))
    note(
        made, 152,
        "The lowest bit is at the left. In place 1 the T begins one bit late: it is shifted by 1.",
        "The bit that does not fit stands at the start of place 2, before the T there, and so on:",
        "place j begins with what fell out of place j - 1. One mask takes out the shifted T's,",
        "another, one place further, what fell out; four XORs put that back where it belongs.",
    )  # fmt: skip
    return made
