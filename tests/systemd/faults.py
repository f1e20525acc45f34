#!/usr/bin/env python3
"""Brings faults upon one thread of a running server, as a debugger would: by ptrace, on x86-64.

faults.py stick PROCESS THREAD SECONDS   the thread stands still for so long, or until the process is killed
faults.py panic PROCESS THREAD           the thread's next system call fails with EBADF, which a shard does not survive

THREAD is its name, such as shard-0.
"""

import ctypes
import errno
import os
import pathlib
import sys
import time

ATTACH, DETACH, GETREGS, SETREGS = 16, 17, 12, 13
# Positions of registers in the kernel's user_regs_struct.
RAX, ORIG_RAX, REGISTERS = 10, 15, 27
WAIT_ALL_THREADS = 0x40000000
ATTEMPTS_MAX = 1000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread, data=None):
    if libc.ptrace(request, thread, None, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def find(process, name):
    for thread in pathlib.Path(f"/proc/{process}/task").iterdir():
        if (thread / "comm").read_text().strip() == name:
            return int(thread.name)
    sys.exit(f"process {process} has no thread {name}")


def attach(thread):
    ptrace(ATTACH, thread)
    os.waitpid(thread, WAIT_ALL_THREADS)


def stick(thread, seconds):
    attach(thread)
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.path.exists(f"/proc/{thread}"):
        time.sleep(0.1)
        # A traced thread that is killed waits to be looked at.
        gone, _ = os.waitpid(thread, WAIT_ALL_THREADS | os.WNOHANG)
        if gone:
            return


def fail_next_call(thread):
    registers = (ctypes.c_ulonglong * REGISTERS)()
    for _ in range(ATTEMPTS_MAX):
        attach(thread)
        ptrace(GETREGS, thread, ctypes.addressof(registers))
        if ctypes.c_longlong(registers[ORIG_RAX]).value >= 0:
            break
        # It was at work just then; it will wait in a system call again.
        ptrace(DETACH, thread)
        time.sleep(0.01)
    else:
        sys.exit("the thread was never found in a system call")
    registers[RAX] = ctypes.c_ulonglong(-errno.EBADF).value
    # The kernel would begin the interrupted call anew.
    registers[ORIG_RAX] = ctypes.c_ulonglong(-1).value
    ptrace(SETREGS, thread, ctypes.addressof(registers))
    ptrace(DETACH, thread)


def main():
    fault, process, name, *rest = sys.argv[1:]
    thread = find(process, name)
    if fault == "stick":
        stick(thread, float(rest[0]))
    elif fault == "panic":
        fail_next_call(thread)
    else:
        sys.exit(__doc__)


main()
