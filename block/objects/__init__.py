# SPDX-License-Identifier: GPL-2.0-only
"""What a person makes by -object, for drivers to share.

    secret                  passwords and keys
    throttle_group          limits that several disks share
    throttle_member, throttle_bucket, throttle_options    one disk's part in it; how long a request
                            waits; the names of the limits
"""
