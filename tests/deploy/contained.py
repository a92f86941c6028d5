"""Becomes a program inside an image's root, confined as a container engine does it with `--read-only --cap-drop ALL`.

usage: unshare --mount --pid --fork contained.py SPECIFICATION

SPECIFICATION is JSON: `root`, `user` (a number), `directory`, `command`, `environment`, `writable` and `files` (places in the
image, each with what of the host is mounted there). Everything else in the image is read-only, and /tmp is memory.
"""

import ctypes
import json
import os
import subprocess
import sys

NO_NEW_PRIVILEGES, DROP_FROM_BOUNDING_SET, CAPABILITIES = 38, 24, 41


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def place(root, inside, directory):
    """A mount point, made as an engine makes it: before the root is read-only."""
    path = root + inside
    if directory:
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
    return path


def furnish(root, writable, files):
    mount("--make-rprivate", "/")
    mount("--bind", root, root)
    points = [(place(root, inside, True), outside, "rw") for inside, outside in writable.items()]
    points += [(place(root, inside, False), outside, "ro") for inside, outside in files.items()]
    devices = [place(root, f"/dev/{name}", False) for name in ("null", "zero", "urandom")]
    for empty in ("/proc", "/tmp"):
        place(root, empty, True)
    mount("-o", "remount,bind,ro,nosuid", root)
    mount("-t", "proc", "proc", root + "/proc")
    mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=1777", "tmpfs", root + "/tmp")
    for device in devices:
        mount("--bind", device[len(root):], device)
    for inside, outside, mode in points:
        mount("--bind", outside, inside)
        mount("-o", f"remount,bind,nosuid,nodev,{mode}", inside)


def give_up_privileges(user):
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(CAPABILITIES):
        libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def main(specification):
    spec = json.loads(specification)
    furnish(spec["root"], spec["writable"], spec["files"])
    os.chroot(spec["root"])
    os.chdir(spec["directory"])
    give_up_privileges(spec["user"])
    os.execve(spec["command"][0], spec["command"], spec["environment"])


if __name__ == "__main__":
    main(sys.argv[1])
