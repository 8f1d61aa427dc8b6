# SPDX-License-Identifier: GPL-2.0-only
"""The pages of the bug museum, made of each piece's files and of what the explorer finds.

R1  There is no list: a folder of tutorials/museum with a scenario is a page.
R2  A piece's `story.md` is its page. It begins with a title, and has two marks, where these come:
    `[[museum:difference]]`, the functions of then beside those of today, and
    `[[museum:interleaving]]`, the order that goes wrong, searched and drawn when the site is built.
R3  Words that no code can tell are in the story; all else is taken from the code.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap

from block.testing.replaced import owner_of
from docs.tools.interleaving import picture
from tutorials.museum.pieces import HERE, Piece, pieces

DIFFERENCE = "[[museum:difference]]"
INTERLEAVING = "[[museum:interleaving]]"
NO_BREAK = "\xa0"
MOSTLY_NEW = 0.4
UPSTREAM = "https://gitlab.com/qemu-project/qemu/-/commit/"
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip


def story(name: str) -> str:
    """Returns what the author of a piece tells."""
    return (HERE / name / "story.md").read_text()


def title(name: str) -> str:
    """Returns the title of a piece's page."""
    return story(name).partition("\n")[0].removeprefix("# ")


def page(piece: Piece) -> str:
    """Returns the page of a piece."""
    head, _, text = story(piece.name).partition("\n")
    text = text.replace(DIFFERENCE, difference(piece)).replace(INTERLEAVING, interleaving(piece))
    return "\n".join(["---", "hide: [toc]", "---", head, "", facts(piece), text, see(piece)])


def date(piece: Piece) -> str:
    """Returns the day or the month of the mend in words."""
    year, month, *day = piece.date.split("-")
    return " ".join([*(number.lstrip("0") for number in day), MONTHS[int(month) - 1], year])


def facts(piece: Piece) -> str:
    """Returns the plate under the title."""
    return (
        '<div class="plate" markdown>\n\n'
        f"**The mistake**: {piece.mistake}  \n"
        f"**What one saw**: {piece.seen}  \n"
        f"**Mended**: {date(piece)}, QEMU's commit [`{piece.fix}`]({UPSTREAM}{piece.fix})\n\n"
        "</div>\n"
    )


def hall() -> str:
    """Returns the table of all pieces."""
    lines = ["| when | piece | the mistake | what one saw |", "|---|---|---|---|"]
    for piece in pieces():
        when = date(piece).replace(" ", NO_BREAK)
        link = f"[{title(piece.name)}]({piece.name}.md)"
        lines.append(f"| {when} | {link} | {piece.mistake} | {piece.seen} |")
    return "\n".join(lines)


def interleaving(piece: Piece) -> str:
    """Looks for the mistake, and returns the order that shows it as a picture."""
    result = piece.search(True)
    assert result.failure is not None, f"{piece.name}: the mistake was not found"
    if piece.in_one_run:
        return f"```text\n{type(result.failure.error).__name__}: {result.failure.error}\n```"
    svg = picture(piece.name, result.failure).svg()
    return (
        f'<figure class="mq" markdown="0">\n{svg}'
        f"<figcaption>{result.failure.n_steps} steps; the lines that matter are shown. "
        f"{force(result.failure.preemptions)}</figcaption>\n</figure>"
    )


def force(preemptions: int) -> str:
    """Says how often a thread loses its turn."""
    if not preemptions:
        return "No turn is taken away."
    return f"A turn is taken away {('', 'once', 'twice', 'three times')[preemptions]}."


def see(piece: Piece) -> str:
    """Returns the end of the page: how to have it on one's own screen, and the scenario."""
    scene = (HERE / piece.name / "scenario.py").read_text()
    _, _, scene = scene.partition('"""\n\n')
    code = textwrap.indent(scene.strip(), "    ")
    how = "once" if piece.in_one_run else "in every order that matters"
    return (
        "\n## On your own screen\n\n"
        f"```console\n$ make museum ARGS={piece.name}\n```\n\n"
        f"puts these functions back, and runs this program {how}. {piece.text}\n\n"
        f'??? example "tutorials/museum/{piece.name}/scenario.py"\n\n'
        f"    ```python\n{code}\n    ```\n"
    )


def difference(piece: Piece) -> str:
    """Returns each function twice, as it was and as it is, with the lines that differ marked."""
    parts = []
    for key, form in piece.forms.items():
        owner, name = owner_of(key)
        there = inspect.getattr_static(owner, name)
        there = getattr(there, "fget", None) or getattr(there, "__func__", there)
        then, now = plain(form), plain(there)
        if then != now:
            parts.append(beside(key.partition(":")[2], then, now, *marked(then, now)))
    if needed := helpers(piece):
        parts.append(f'```python title="what that year had beside it"\n{needed}\n```\n')
    return "\n".join(parts)


def beside(name: str, then: str, now: str, lost: list[int], new: list[int]) -> str:
    """Returns two blocks of code, one beside the other."""
    return (
        '<div class="then-and-now" markdown>\n<div class="then" markdown>\n\n'
        f"{block(f'{name}, then', then, lost)}\n\n"
        '</div>\n<div class="now" markdown>\n\n'
        f"{block(f'{name}, today', now, new)}\n\n</div>\n</div>\n"
    )


def block(name: str, code: str, lines: list[int]) -> str:
    """Returns a block of code with lines marked."""
    marks = f' hl_lines="{" ".join(map(str, lines))}"' if lines else ""
    return f'```python title="{name}"{marks}\n{code}\n```'


def marked(then: str, now: str) -> tuple[list[int], list[int]]:
    """Returns the numbers of the lines that only one of two texts has; comments do not count.

    Where nearly all has changed, marks would say nothing, and there are none.
    """
    before, after = then.splitlines(), now.splitlines()
    lost: list[int] = []
    new: list[int] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    if matcher.ratio() < MOSTLY_NEW:
        return [], []
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        if kind != "equal":
            lost += [n + 1 for n in range(a, a_end) if is_code(before[n])]
            new += [n + 1 for n in range(b, b_end) if is_code(after[n])]
    return lost, new


def is_code(line: str) -> bool:
    """Whether a line is more than a comment."""
    return bool(line.strip()) and not line.strip().startswith("#")


def plain(function: object) -> str:
    """Returns a function's source without its docstring, decorators and the type of self."""
    source = inspect.unwrap(function)  # type: ignore[arg-type]  # a function, as FORMS has it
    text = textwrap.dedent(inspect.getsource(source))
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    lines = text.splitlines()
    if ast.get_docstring(node) is not None:
        first = node.body[0]
        del lines[first.lineno - 1 : first.end_lineno]
    del lines[: node.lineno - 1]
    me = node.args.args[0] if node.args.args else None
    if me is not None and me.arg == "self" and me.annotation is not None:
        lines[0] = lines[0].replace(f"self: {ast.unparse(me.annotation)}", "self")
    if len(node.body) == 1 and ast.get_docstring(node) is not None:
        lines.append("    pass")
    return "\n".join(lines)


def helpers(piece: Piece) -> str:
    """Returns what the functions of then need: all else of before.py but its imports and table."""
    text = (HERE / piece.name / "before.py").read_text()
    forms = {form.__name__ for form in piece.forms.values()}
    kept = [
        "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
        for node in ast.parse(text).body
        if is_helper(node, forms)
    ]
    return "\n\n".join(kept)


def is_helper(node: ast.stmt, forms: set[str]) -> bool:
    """Whether a statement of before.py is neither an import, nor a form, nor the table."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name not in forms
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id != "FORMS" for target in targets)
