# SPDX-License-Identifier: GPL-2.0-only
"""Runs the installed command up to its guest's first byte, and says when it had come how far.

    python -S benchmarks/start_watch.py COMMAND BEGIN ARGUMENTS...

BEGIN is time.monotonic_ns() before the exec. The answer, on standard error, is a JSON list of
[stage, ms, of these in modules]. Nothing of the program is changed: the watch sits in the list of
Python's finders, where the start image puts itself, and around the steps of Emulator.build.
"""

import sys
import time

STEPS = {
    "_add_object": "the IOThread",
    "_add_drive": "the disk's tree",
    "_make_board": "KVM, memory, board",
    "_add_device": "the disk as a device",
    "_load_kernel": "the kernel into memory",
}


class Watch:
    """Writes down the time at each stage, and how much of it modules took."""

    def __init__(self, begin):
        self.last = begin
        self.depth = self.modules = 0
        self.stages = []

    def stage(self, name):
        now = time.monotonic_ns()
        self.stages.append((name, (now - self.last) / 1e6, self.modules / 1e6))
        self.last, self.modules = time.monotonic_ns(), 0

    def around(self, function, name):
        def step(*arguments):
            result = function(*arguments)
            self.stage(name)
            return result

        return step


class Finders(list):
    """sys.meta_path, with a watch around the start image's finder."""

    def insert(self, place, finder):
        watch.stage("the start image is read")
        super().insert(place, Finder(finder))


class Finder:
    """The start image's finder and loader, with a clock."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        spec = self.finder.find_spec(name, path, target)
        if spec is not None and spec.loader is self.finder:
            spec.loader = self
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        begin = time.monotonic_ns()
        watch.depth += 1
        self.finder.exec_module(module)
        watch.depth -= 1
        if not watch.depth:
            watch.modules += time.monotonic_ns() - begin
        if module.__name__ == "miniqemu.cli.build":
            for step, name in STEPS.items():
                function = getattr(module.Emulator, step)
                setattr(module.Emulator, step, watch.around(function, name))
            init = module.Emulator.__init__
            module.Emulator.__init__ = watch.around(init, "the command line is read")


def first_byte(fd, data):
    """os.write, until the guest's first byte."""
    if fd != 1:
        return write(fd, data)
    watch.stage("the guest's first byte")
    import json

    write(2, json.dumps(watch.stages).encode())
    os._exit(0)


watch = Watch(int(sys.argv[2]))
watch.stage("the Python interpreter starts")
sys.meta_path = Finders(sys.meta_path)
import os  # noqa: E402  # the watch sees its import

write, os.write = os.write, first_byte
command = sys.argv[1]
sys.argv = [command, *sys.argv[3:]]
with open(command, encoding="utf-8") as file:
    exec(compile(file.read(), command, "exec"), {"__name__": "__main__", "__file__": command})
