# SPDX-License-Identifier: GPL-2.0-only
"""The programs: command lines, and what is made of them.

miniqemu
    miniqemu                the program
    options, getopt, help   its options in one table; how they are read; what --help prints
    config                  what a line asked for
    machine_options, devices, disks, drives     -machine and such, -device, -drive
    objects, secrets, iothreads, throttling     -object: what all have, and each kind
    build                   makes it, runs it, takes it apart
    doctor, create, completion  its commands that start no machine
    qemu_names              what QEMU knows and we do not have

The tools
    img, io                 miniqemu-img and miniqemu-io
    image_opts, user_objects    --image-opts and --object
    signals                 how they end, and go on after a stop

All three
    output                  lines that arrive whole, under the program's name
    start_image             the compiled code of a start in one file
"""
