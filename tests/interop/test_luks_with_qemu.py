# SPDX-License-Identifier: GPL-2.0-only
"""Encrypted images, ours and the real QEMU's: each opens what the other made, and says the same.

volumes     images of the format luks
qcow2       images with encrypt.format
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniqemu.cli.img import main as img
from tests.block.crypto.test_luks_amend import REFUSALS
from tests.block.crypto.test_luks_volume import LIES, Damage
from tests.support.luks_images import (
    PASSWORD,
    described,
    make_volume,
    opened,
    qemu_with_secret,
    secret,
)
from tests.support.qcow2_work import OurImage, Work
from tests.support.qemu_tools import qemu

pytestmark = pytest.mark.full

SIZE = (1 << 20) + 512
KINDS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "xts-128": {"cipher_alg": "aes-128", "hash_alg": "sha1"},
    "cbc-essiv": {"cipher_alg": "aes-128", "cipher_mode": "cbc", "ivgen_alg": "essiv"},
    "cbc-plain": {"cipher_mode": "cbc", "ivgen_alg": "plain", "hash_alg": "sha512"},
    "ctr": {"cipher_mode": "ctr", "hash_alg": "sha384"},
    "ecb": {"cipher_mode": "ecb", "cipher_alg": "aes-128", "hash_alg": "sha224"},
    "serpent": {"cipher_alg": "serpent-256"},
    "serpent-cbc-essiv": {"cipher_alg": "serpent-128", "cipher_mode": "cbc", "ivgen_alg": "essiv"},
    "twofish": {"cipher_alg": "twofish-192", "hash_alg": "ripemd160"},
    "twofish-ctr": {"cipher_alg": "twofish-256", "cipher_mode": "ctr", "ivgen_alg": "plain"},
    "cast5-cbc": {"cipher_alg": "cast5-128", "cipher_mode": "cbc"},
    "cast5-ctr-essiv": {
        "cipher_alg": "cast5-128",
        "cipher_mode": "ctr",
        "ivgen_alg": "essiv",
        "ivgen_hash_alg": "md5",
    },
    "xts-essiv": {"ivgen_alg": "essiv", "ivgen_hash_alg": "sha256", "hash_alg": "md5"},
}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("block.crypto.luks.keyslot.count_iters", lambda alg, length: 1)
    with secret():
        yield


def make_by_qemu(path: Path, **options: str) -> None:
    named = {"key-secret": "s", "iter-time": "10"}
    named.update({name.replace("_", "-"): text for name, text in options.items()})
    words = ",".join(f"{name}={text}" for name, text in named.items())
    done = qemu_with_secret("qemu-img", "create", "-q", "-f", "luks", "-o", words, path, str(SIZE))
    assert done.returncode == 0, done.stderr


def qemu_io(path: Path, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    done = qemu_with_secret("qemu-io", *words, "--image-opts", described(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pattern verification failed" not in done.stdout
    return done.stdout


BOTH = [
    *((kind, False) for kind in KINDS),
    ("cbc-essiv", True),  # one only: QEMU takes a second and more to make it
]


@pytest.mark.parametrize(("kind", "by_qemu"), BOTH)
def test_each_reads_what_the_other_wrote(tmp_path: Path, kind: str, by_qemu: bool) -> None:
    path = tmp_path / "disk.luks"
    if by_qemu:
        make_by_qemu(path, **KINDS[kind])
    else:
        make_volume(path, SIZE, **KINDS[kind])
    model = bytearray(random.Random(kind).randbytes(SIZE))
    with opened(path) as disk:
        assert disk.length == SIZE
        disk.pwrite(0, model)
    qemu_io(path, "write -P 0x5a 65024 100000", f"write -P 0x77 {SIZE - 512} 512")
    model[65024 : 65024 + 100000] = b"\x5a" * 100000
    model[SIZE - 512 :] = b"\x77" * 512
    with opened(path) as disk:
        assert disk.pread(0, SIZE) == model
    raw = tmp_path / "disk.raw"
    done = qemu_with_secret(
        "qemu-img", "convert", "--image-opts", "-O", "raw", described(path), raw
    )
    assert done.returncode == 0, done.stderr
    assert raw.read_bytes() == model


QCOW2: dict[str, dict[str, str]] = {
    "luks": {},
    "luks, small clusters": {"cluster_size": "512", "compat": "0.10"},
    "luks, subclusters": {"extended_l2": "on"},
    "luks, serpent": {"encrypt.cipher-alg": "serpent-192"},
    "luks, cast5": {"encrypt.cipher-alg": "cast5-128", "encrypt.cipher-mode": "cbc"},
    "aes": {"encrypt.format": "aes"},
    "aes, old": {"encrypt.format": "aes", "compat": "0.10", "cluster_size": "4096"},
}
BOTH_QCOW2 = [*((kind, False) for kind in QCOW2), ("luks", True), ("aes", True), ("aes, old", True)]


def make_qcow2(path: Path, kind: str, by_qemu: bool = False) -> None:
    keys = {"encrypt.format": "luks", "encrypt.key-secret": "s", **QCOW2[kind]}
    if keys["encrypt.format"] == "luks":
        keys["encrypt.iter-time"] = "10" if by_qemu else "0"
    words = ",".join(f"{name}={text}" for name, text in keys.items())
    line = ("create", "-q", "-f", "qcow2", "-o", words, os.fspath(path), str(SIZE))
    if by_qemu:
        done = qemu_with_secret("qemu-img", *line)
        assert done.returncode == 0, done.stderr
    else:
        assert img.main(["qemu-img", *line]) == 0


@pytest.mark.parametrize(("kind", "by_qemu"), BOTH_QCOW2)
def test_qcow2_images_go_back_and_forth(tmp_path: Path, kind: str, by_qemu: bool) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, kind, by_qemu)
    cluster = int(QCOW2[kind].get("cluster_size", 65536))
    version = 2 if "compat" in QCOW2[kind] else 3
    work = Work(len(kind), SIZE, cluster)
    for _ in range(2):
        OurImage(path, work, version, **{"encrypt.key-secret": "s"}).work_on(60)
        commands = writes_by_qemu(work, 20, version)
        done = qemu_with_secret("qemu-io", *commands, "--image-opts", described(path, "qcow2"))
        assert done.returncode == 0, done.stdout + done.stderr
    raw = tmp_path / "disk.raw"
    line = ("convert", "--image-opts", "-O", "raw", described(path, "qcow2"), raw)
    assert qemu_with_secret("qemu-img", *line).returncode == 0
    assert raw.read_bytes() == work.model
    done = qemu_with_secret("qemu-img", "check", "--image-opts", described(path, "qcow2"))
    assert done.returncode == 0, done.stdout + done.stderr


def writes_by_qemu(work: Work, count: int, version: int) -> list[str]:
    """Commands for qemu-io; the model has what they leave."""
    words: list[str] = []
    for op in work.ops(count):
        command = {"write": f"write -P {op.pattern}", "zeroes": "write -z"}.get(op.what)
        if command is not None:
            words += ["-c", f"{command} {op.offset} {op.nbytes}"]
            work.note(op, version=version)
    return words


@pytest.mark.parametrize("kind", QCOW2)
@pytest.mark.parametrize("output", ["human", "json"])
def test_qcow2_info_is_the_same_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, output: str
) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, kind)
    line = ("info", f"--output={output}", os.fspath(path))
    assert img.main(["qemu-img", *line]) == 0
    assert capfd.readouterr().out == qemu("qemu-img", *line).stdout


@pytest.mark.parametrize("kind", ["as it comes", "cbc-essiv"])
@pytest.mark.parametrize("output", ["human", "json"])
def test_info_is_the_same_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, output: str
) -> None:
    path = tmp_path / "disk.luks"
    make_volume(path, SIZE, **KINDS[kind])
    line = ("info", f"--output={output}", os.fspath(path))
    assert img.main(["qemu-img", *line]) == 0
    assert capfd.readouterr().out == qemu("qemu-img", *line).stdout


@pytest.mark.parametrize(("damage", "complaint"), LIES, ids=[lie[1] for lie in LIES])
def test_qemu_says_the_same_of_a_header_that_lies(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Damage, complaint: str
) -> None:
    path = tmp_path / "disk.luks"
    make_volume(path, 512, iter_time="0")
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    line = ("info", "-f", "luks", os.fspath(path))
    assert img.main(["qemu-img", *line]) == 1
    assert capfd.readouterr().err == qemu("qemu-img", *line).stderr


OBJECTS = [
    "secret",
    "secret,id=t",
    "secret,id=t,data=x,file=y",
    "secret,id=t,file=nowhere",
    "secret,id=t,data=x,format=foo",
    "secret,id=t,data=?,format=base64",
    "secret,id=t,data=x,foo=1",
    "secret,id=t,data=x,keyid=u",
    "secret,id=1t,data=x",
    '{"qom-type":"secret","id":"s","data":3}',
    "id=s",
    "foo,id=s",
    "iothread,id=s",
]


@pytest.mark.parametrize("text", OBJECTS)
def test_objects_are_refused_with_the_same_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    line = ("info", "--object", text, "-f", "raw", os.fspath(tmp_path / "disk"))
    assert img.main(["qemu-img", *line]) == 1
    theirs = qemu("qemu-img", *line).stderr
    assert capfd.readouterr().err.strip() == theirs.strip()


LINES = [
    ("create", "-f", "luks", "{new}", "1M"),
    ("create", "-f", "luks", "-o", "key-secret=t", "{new}", "1M"),
    ("create", "-f", "luks", "-o", "key-secret=s,cipher-alg=3des", "{new}", "1M"),
    ("create", "-f", "luks", "-o", "key-secret=s,cipher-mode=foo", "{new}", "1M"),
    ("create", "-f", "luks", "-o", "key-secret=s,cipher-alg=cast5-128", "{new}", "1M"),
    *(
        (
            "create",
            "-f",
            "luks",
            "-o",
            f"key-secret=s,cipher-alg={alg},cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg={hash_alg}",
            "{new}",
            "1M",
        )
        for alg, hash_alg in (
            ("cast5-128", "sha1"),
            ("serpent-256", "sha1"),
            ("twofish-128", "sha512"),
        )
    ),
    ("create", "-f", "luks", "-o", "help"),
    ("measure", "-O", "luks", "--size", "1M"),
    ("amend", "-o", "encrypt.state=active", "--image-opts", "{qcow2}"),
    ("amend", "-o", "size=2M", "--image-opts", "{described}"),
    ("amend", "-f", "luks", "-o", "help"),
    ("create", "-f", "qcow2", "-o", "encryption=on", "{new}", "1M"),
    ("create", "-f", "qcow2", "-o", "encryption=on,encrypt.format=aes", "{new}", "1M"),
    ("create", "-f", "qcow2", "-o", "encryption=on,encrypt.key-secret=s", "{new}", "1M"),
    ("create", "-f", "qcow2", "-o", "encrypt.format=foo", "{new}", "1M"),
    ("create", "-f", "qcow2", "-o", "encrypt.key-secret=s", "{new}", "1M"),
    ("convert", "-c", "-O", "qcow2", "-o", "{keys}", "{old}", "{new}"),
    ("info", "--image-opts", "{qcow2}", "--output=json"),
    ("map", "--image-opts", "{qcow2}"),
    ("check", "--image-opts", "{qcow2}"),
    ("measure", "-O", "qcow2", "-o", "{keys}", "--image-opts", "{described}"),
    ("map", "{old}"),
    ("map", "--image-opts", "{described}"),
    ("check", "--image-opts", "{described}"),
    ("info", "--image-opts", "{described}", "--output=json"),
    ("resize", "--image-opts", "{described}", "2M"),
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_line_is_answered_as_qemu_answers_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    places = {"old": tmp_path / "old.luks", "new": tmp_path / "new.luks"}
    named = {name: os.fspath(path) for name, path in places.items()}
    named["described"] = described(places["old"])
    named["qcow2"] = described(tmp_path / "a.qcow2", "qcow2")
    named["keys"] = "encrypt.format=aes,encrypt.key-secret=s"
    make_qcow2(tmp_path / "a.qcow2", "aes")
    line = [word.format(**named) for word in words]
    answers = []
    for theirs in (False, True):
        make_volume(places["old"], 1 << 20, iter_time="0")
        if theirs:
            done = qemu_with_secret("qemu-img", *line)
            said = done.stdout, done.stderr
        else:
            command, *rest = line
            with_secret = [command, "--object", f"secret,id=s2,data={PASSWORD}", *rest]
            img.main(["qemu-img", *with_secret])
            captured = capfd.readouterr()
            said = captured.out, captured.err
        answers.append(tuple(_without_uuid(text) for text in said))
    assert answers[0] == answers[1]


def amend_line(path: Path, fmt: str, text: str) -> list[str]:
    prefix = "" if fmt == "luks" else "encrypt."
    words = ",".join(prefix + pair for pair in text.split(","))
    return ["amend", "-o", words, "--image-opts", described(path, fmt)]


@pytest.mark.parametrize("fmt", ["luks", "qcow2"])
def test_passwords_that_one_changes_open_the_image_for_the_other(tmp_path: Path, fmt: str) -> None:
    path = tmp_path / f"a.{fmt}"
    if fmt == "luks":
        make_volume(path, SIZE)
    else:
        make_qcow2(path, "luks")
    with secret("t", "another"):
        words = amend_line(path, fmt, "state=active,new-secret=t,keyslot=3,iter-time=0")
        assert img.main(["qemu-img", *words]) == 0
    erase = amend_line(path, fmt, "state=inactive,keyslot=0")
    assert qemu_with_secret("qemu-img", *erase).returncode == 0
    read = ("-c", "read 0 512", "--image-opts", described(path, fmt))
    assert qemu_with_secret("qemu-io", *read, data="another").returncode == 0
    assert "Invalid password" in qemu_with_secret("qemu-io", *read).stderr
    erase_last = amend_line(path, fmt, "state=inactive,keyslot=3")
    done = qemu_with_secret("qemu-img", *erase_last, data="another")
    assert "irreversibly" in done.stderr


@pytest.mark.parametrize(("text", "complaint"), REFUSALS)
def test_a_change_is_refused_with_the_same_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    path = tmp_path / "a.luks"
    make_volume(path, SIZE)
    words = amend_line(path, "luks", text)
    with secret("new", "x"), secret("wrong", "y"):
        assert img.main(["qemu-img", *words]) == 1
    others = [
        word for name in ("new", "wrong") for word in ("--object", f"secret,id={name},data=z")
    ]
    done = qemu_with_secret("qemu-img", words[0], *others, *words[1:])
    assert capfd.readouterr().err == done.stderr


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("luks", "key-secret=s,iter-time=0"),
        ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=0"),
        ("qcow2", "encryption=on,encrypt.key-secret=s"),
    ],
)
def test_convert_makes_an_encrypted_copy(tmp_path: Path, fmt: str, options: str) -> None:
    data = random.Random(fmt).randbytes(300_032) + bytes(700_416)
    raw, copy = tmp_path / "disk.raw", tmp_path / f"copy.{fmt}"
    raw.write_bytes(data)
    words = ["-f", "raw", "-O", fmt, "-o", options, os.fspath(raw), os.fspath(copy)]
    assert img.main(["qemu-img", "convert", *words]) == 0
    assert data[:4096] not in copy.read_bytes()
    back = tmp_path / "back.raw"
    line = ("convert", "--image-opts", "-O", "raw", described(copy, fmt), back)
    assert qemu_with_secret("qemu-img", *line).returncode == 0
    assert back.read_bytes() == data


def _without_uuid(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "uuid" not in line)
