# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's own tests of its tools, run with QEMU's tools and with ours, side by side.

    python -m tests.interop.iotests FOLDER FORMAT[:OPTIONS] TEST...

FOLDER is tests/qemu-iotests of a checkout of QEMU, whose scripts are not ours and not copied. A
script prints what its tools say; it is run twice at once, each run in a folder of its own, and the
two outputs are compared. One line a test: same, or how many lines differ; these follow.

R1  A script has ten minutes, then it and all that it has started ends.
R2  The field of a header that our messages name behind QEMU's text is blanked: it is on purpose.
R3  Who needs a machine gets the real qemu-system-x86_64, in both runs.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import needs

LIMIT = 600
FIELD = re.compile(r" \((?:header|at|type|entry|snapshot|L[12])[^\n]*?\)$", re.M)
CACHE = "--cache writeback --aio threads"


def tools(folder: Path, side: str) -> Path:
    """A folder with the tools under the names that scripts expect."""
    made = folder / side / "bin"
    made.mkdir(parents=True)
    ours = Path(sys.executable).parent
    for name in ("qemu-img", "qemu-io", "qemu-nbd"):
        mine = side == "ours" and name != "qemu-nbd"
        program = str(ours / f"mini{name}") if mine else needs.program(name)
        (made / name).symlink_to(program)
    return made


def environment(source: Path, programs: Path, work: Path, fmt: str, options: str) -> dict[str, str]:
    """What QEMU's `check` hands to a script."""
    by_options = fmt == "luks"
    more = {"luks": "iter-time=10", "vmdk": "zeroed_grain=on"}.get(fmt, "")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "IMGFMT": fmt, "IMGPROTO": "file", "IMGFMT_GENERIC": "true", "CACHEMODE": "writeback",
        "CACHEMODE_IS_DEFAULT": "true", "AIOMODE": "threads", "LANG": "C", "VALGRIND_QEMU": "",
        "IMGOPTS": ",".join(filter(None, (options, more))), "SOCKET_SCM_HELPER": "",
        "IMGOPTSSYNTAX": str(by_options).lower(), "IMGKEYSECRET": "123456" * by_options,
        "QEMU_PROG": needs.program("qemu-system-x86_64"), "QEMU_IMG_PROG": f"{programs}/qemu-img",
        "QEMU_IO_PROG": f"{programs}/qemu-io", "QEMU_NBD_PROG": f"{programs}/qemu-nbd",
        "QEMU_OPTIONS": "-nodefaults -display none -accel qtest", "QEMU_IMG_OPTIONS": "",
        "QEMU_IO_OPTIONS": CACHE if by_options else f"{CACHE} -f {fmt}",
        "QEMU_IO_OPTIONS_NO_FMT": CACHE, "QEMU_NBD_OPTIONS": "", "QEMU_DEFAULT_MACHINE": "pc",
        "TEST_DIR": f"{work}", "SOCK_DIR": f"{work}/socket", "OUTPUT_DIR": f"{work}/output",
        "SAMPLE_IMG_DIR": f"{source}/sample_images", "PYTHON": sys.executable,
    }  # fmt: skip


def run(source: Path, test: str, fmt: str, options: str, side: str) -> str:
    """Runs one script with one side's tools; what it prints, or why it does not run."""
    first = (source / test).read_text(errors="replace").partition("\n")[0]
    command = [sys.executable, test] if "python" in first else [f"./{test}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs, work = tools(folder, side), folder / side / "work"
        for part in ("socket", "output"):
            (work / part).mkdir(parents=True)
        script = subprocess.Popen(
            command, cwd=source, env=environment(source, programs, work, fmt, options),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            output = script.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            os.killpg(script.pid, signal.SIGKILL)  # R1
            output = script.communicate()[0] + b"\nout of time\n"
        for reason in (work / "output").glob("*.notrun"):
            return f"not run: {reason.read_text().strip()}\n"
        text = output.decode(errors="backslashreplace").replace(f"{folder}/{side}", "FOLDER")
        return FIELD.sub("", re.sub(r"line \d+: +\d+ ", "line N: PID ", text))


def compare(source: Path, test: str, fmt: str, options: str) -> list[str]:
    """The lines in which the two sides differ, with + before ours."""
    with ThreadPoolExecutor() as pool:
        sides = pool.map(lambda side: run(source, test, fmt, options, side), ("theirs", "ours"))
        theirs, ours = (text.splitlines() for text in sides)
    return list(difflib.unified_diff(theirs, ours, n=0, lineterm=""))[2:]


def main(folder: str, kind: str, *tests: str) -> int:
    """Runs the tests; how many differ."""
    fmt, _, options = kind.partition(":")
    differing = 0
    for test in tests:
        lines = compare(Path(folder).resolve(), test, fmt, options)
        print(f"{kind} {test}", f"{len(lines)} lines differ" if lines else "same", flush=True)
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
        differing += bool(lines)
    return differing


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:]), 1))
