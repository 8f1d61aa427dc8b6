# SPDX-License-Identifier: GPL-2.0-only
"""Records a real session of `make run` at a terminal and draws it: docs/images/boot.svg.

    .venv/bin/python -m docs.tools.session

Needs /dev/kvm and `rich` (the `bench` extra).
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.terminal import TerminalSession

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "boot.svg"
COMMANDS = ("info", "iwrite 1 hello", "id", "bench 2000 8 irq", "flush")
WIDTH = 92


def record() -> str:
    """What a person sees who types COMMANDS and then Ctrl-A x."""
    with tempfile.TemporaryDirectory() as place:
        disk = Path(place) / "demo.img"
        program = str(ROOT / ".venv" / "bin" / "python")
        subprocess.run([program, "-m", "guest.demo_disk", str(disk)], cwd=ROOT, check=True)
        line = ["make", "--no-print-directory", "run", f"DISK={disk}"]
        with TerminalSession(line, cwd=ROOT) as session:
            seen = session.expect("> ")
            for command in COMMANDS:
                session.type(f"{command}\r")
                seen += session.expect("> ")
            session.type("\x01x")
            session.wait()
            seen += session.text
    return seen.replace(str(disk), "demo.img")


def clean(seen: str) -> list[str]:
    """The lines as a terminal shows them, the command that make echoes made readable."""
    lines = [line.rstrip() for line in re.sub(r"\r+\n?\r*", "\n", seen).split("\n")]
    start = next(i for i, line in enumerate(lines) if "bin/miniqemu" in line)
    banner = next(i for i, line in enumerate(lines) if line.startswith("miniqemu guest"))
    command = " ".join(" ".join(lines[start:banner]).split())
    command = command.replace(" \\ ", " ").replace("\\", "")
    rest = [line for line in lines[banner:] if line]
    return ["$ make run", *fold(" ".join(command.split())), *rest]


def fold(command: str) -> list[str]:
    """Breaks a long command line at its options, as a person would write it."""
    out = [""]
    for part in re.split(r" (?=-[a-zA-Z])", command):
        if len(out[-1]) + len(part) + 3 > WIDTH:
            out[-1] += " \\"
            out.append("   ")
        out[-1] += f" {part}" if out[-1] else part
    return out


def styled(line: str) -> Text:
    """Prompts and what was typed stand out."""
    text = Text(line)
    if line.startswith("$ "):
        text.stylize("bold green", 0, 1)
        text.stylize("bold", 2)
    elif match := re.match(r"disk\d+> ?", line):
        text.stylize("cyan", 0, match.end())
        text.stylize("bold", match.end())
    elif ".venv/bin/miniqemu" in line or line.startswith("    -"):
        text.stylize("dim")
    return text


def draw(lines: list[str]) -> str:
    """The picture, with no font from elsewhere."""
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    for line in lines:
        console.print(styled(line), soft_wrap=False, highlight=False)
    svg = console.export_svg(title="make run", unique_id="boot")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("font-family: Fira Code", "font-family: ui-monospace, Menlo, Consolas")


def main() -> None:
    """Records and draws."""
    PICTURE.write_text(draw(clean(record())))
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
