"""Hostile graders that go around Python: sockets of every family, and raw system calls."""

import os

from tests.core.sandbox.hostile_programs import with_grade

SOCKETS = {
    "inet": "socket.create_connection(('127.0.0.1', item['port']))",
    "inet_datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "inet6": "socket.socket(socket.AF_INET6)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "unix": "socket.socket(socket.AF_UNIX).connect(item['folder'] + '/socket')",
    "abstract": "socket.socket(socket.AF_UNIX).connect('\\0' + item['mark'])",
    "pair": "socket.socketpair()",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "socket.socket(socket.AF_VSOCK)",
    "algorithms": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "names": "socket.getaddrinfo('localhost', item['port'])",
}

# Numbers on x86_64 and on aarch64, and arguments that an unprivileged process could use.
CALLS: dict[str, tuple[int, int, str]] = {
    "fork_by_clone": (56, 220, "17, 0, 0, 0, 0"),
    "fork_by_clone_with_a_new_user": (56, 220, "0x10000011, 0, 0, 0, 0"),
    "thread_with_a_new_network": (56, 220, "0x40010f00, 0, 0, 0, 0"),
    "fork_by_clone3": (435, 435, "ctypes.create_string_buffer(88), 88"),
    "vfork": (58, 220, "17, 0, 0, 0, 0"),
    "execve": (59, 221, "sys.executable.encode(), 0, 0"),
    "execveat": (322, 281, "-100, sys.executable.encode(), 0, 0, 0"),
    "memfd_create": (319, 279, "b'program', 0"),
    "memfd_secret": (447, 447, "0"),
    "ptrace": (101, 117, "0, 0, 0, 0"),
    "process_vm_readv": (310, 270, "item['process'], 0, 0, 0, 0, 0"),
    "pidfd_open": (434, 434, "os.getpid(), 0"),
    "kcmp": (312, 272, "1, 1, 0, 0, 0"),
    "add_key": (248, 217, "b'user', b'name', b'x', 1, -4"),
    "keyctl": (250, 219, "0, -3, 1"),
    "request_key": (249, 218, "b'user', b'name', 0, 0"),
    "io_uring_setup": (425, 425, "1, ctypes.create_string_buffer(120)"),
    "bpf": (321, 280, "0, ctypes.create_string_buffer(120), 120"),
    "userfaultfd": (323, 282, "1"),
    "perf_event_open": (298, 241, "ctypes.create_string_buffer(120), 0, -1, -1, 0"),
    "mount": (165, 40, "b'tmpfs', b'/tmp', b'tmpfs', 0, b''"),
    "umount": (166, 39, "b'/tmp', 2"),
    "open_tree": (428, 428, "-100, b'/', 1"),
    "fsopen": (430, 430, "b'tmpfs', 0"),
    "move_mount": (429, 429, "-100, b'/tmp', -100, b'/dev', 0"),
    "pivot_root": (155, 41, "b'/tmp', b'/tmp'"),
    "chroot": (161, 51, "b'/tmp'"),
    "unshare": (272, 97, "0x10000000"),
    "unshare_files": (272, 97, "0x20000"),
    "setns": (308, 268, "0, 0"),
    "setuid": (105, 146, "0"),
    "setresuid": (117, 147, "0, 0, 0"),
    "setgroups": (116, 159, "0, 0"),
    "capset": (126, 91, "ctypes.create_string_buffer(24), ctypes.create_string_buffer(24)"),
    "no_death_with_the_parent": (157, 167, "1, 0, 0, 0, 0"),
    "dumpable": (157, 167, "4, 1, 0, 0, 0"),
    "subreaper": (157, 167, "36, 1, 0, 0, 0"),
    "another_filter": (317, 277, "1, 0, 0"),
    "kill": (62, 129, "-1, 0"),
    "queue_a_signal": (129, 138, "1, 10, ctypes.create_string_buffer(128)"),
    "setpriority": (141, 140, "0, 0, -20"),
    "prlimit_of_another": (302, 261, "1, 7, 0, ctypes.create_string_buffer(16)"),
    "shared_memory": (29, 194, "0, 4096, 0o1600"),
    "message_queue": (68, 186, "0, 0o1600"),
    "posix_message_queue": (240, 180, "b'queue', 66, 0o600, 0"),
    "semaphores": (64, 190, "0, 1, 0o1600"),
    "inotify": (294, 26, "0"),
    "fanotify": (300, 262, "0, 0"),
    "open_by_handle": (304, 265, "-100, ctypes.create_string_buffer(128), 0"),
    "name_to_handle": (303, 264, "-100, b'/', ctypes.create_string_buffer(128), 0, 0"),
    "symlink": (266, 36, "b'/', -100, b'/tmp/link'"),
    "mknod": (259, 33, "-100, b'/tmp/pipe', 0o10600, 0"),
    "splice": (275, 76, "0, 0, 3, 0, 4096, 0"),
    "vmsplice": (278, 75, "3, ctypes.create_string_buffer(16), 1, 0"),
    "sendfile": (40, 71, "3, 0, 0, 4096"),
    "flock": (73, 32, "0, 2"),
    "pipe_of_a_megabyte": (72, 25, "3, 1031, 1 << 20"),
    "signals_from_a_file": (72, 25, "3, 8, 1"),
    "landlock": (444, 444, "0, 0, 0"),
    "timer": (222, 107, "0, 0, ctypes.create_string_buffer(8)"),
    "syslog": (103, 116, "10, 0, 0"),
    "personality": (135, 92, "0"),
    "x32": (0x40000000 + 39, 4096, ""),
    "unknown": (9999, 9999, ""),
}

REFUSED_BY_DOCKER = (
    *("add_key", "keyctl", "request_key", "io_uring_setup", "bpf", "userfaultfd", "kcmp"),
    *("perf_event_open", "open_tree", "fsopen", "move_mount", "chroot", "setns", "fanotify"),
    *("open_by_handle", "syslog", "personality", "memfd_secret", "pidfd_open"),
)
"""To a container without capabilities, but for those that the sandbox needs; some versions allow a
few of them."""


def number_of(call: str) -> int:
    """Return the number of a call on this machine."""
    return CALLS[call][int(os.uname().machine == "aarch64")]


def all_calls() -> str:
    """A grader that fails with the names of the calls that the kernel did anything about.

    The filter refuses with EPERM and ENOSYS; any other error comes from behind it.
    """
    lines = [f"attempt({name!r}, {number_of(name)}, {CALLS[name][2]})" for name in CALLS]
    return with_grade(
        "library = ctypes.CDLL(None, use_errno=True); library.syscall.restype = ctypes.c_long\n"
        "done = []\n"
        "def attempt(name, *words):\n"
        " words = [ctypes.c_long(word) if type(word) is int else word for word in words]\n"
        " result = library.syscall(*words)\n"
        " if result != -1 or ctypes.get_errno() not in (1, 38): done.append(name)\n"
        + "\n".join(lines)
        + f"\nassert not done, done\nreturn {len(CALLS)}"
    )


# mov eax, 20 (getpid of the 32-bit kernel); int 0x80; ret
OLD_DOOR = with_grade(
    "code = b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3'\n"
    "page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
    "page.write(code)\n"
    "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
    "return ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0"
)
