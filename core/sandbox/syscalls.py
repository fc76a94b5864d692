"""What a grader may ask of the kernel: an allow-list, with the numbers of two architectures.

CPython needs these to compute, import its standard library, use threads, and read and write files.
All that makes processes, sockets, mounts, or reaches other processes is missing on purpose.
"""

from typing import Final, NamedTuple


class Numbers(NamedTuple):
    """Numbers of a system call; None: the architecture has none of that name."""

    x86_64: int | None
    aarch64: int | None


ALLOWED: Final[dict[str, Numbers]] = {
    # the most frequent ones first: the filter is a list
    "read": Numbers(0, 63),
    "write": Numbers(1, 64),
    "futex": Numbers(202, 98),
    "mmap": Numbers(9, 222),
    "munmap": Numbers(11, 215),
    "mprotect": Numbers(10, 226),
    "brk": Numbers(12, 214),
    "close": Numbers(3, 57),
    "fstat": Numbers(5, 80),
    "newfstatat": Numbers(262, 79),
    "stat": Numbers(4, None),
    "lstat": Numbers(6, None),
    "openat": Numbers(257, 56),
    "open": Numbers(2, None),
    "lseek": Numbers(8, 62),
    "getdents64": Numbers(217, 61),
    "rt_sigaction": Numbers(13, 134),
    "rt_sigprocmask": Numbers(14, 135),
    "rt_sigreturn": Numbers(15, 139),
    # memory
    "mremap": Numbers(25, 216),
    "madvise": Numbers(28, 233),
    # files
    "readv": Numbers(19, 65),
    "writev": Numbers(20, 66),
    "pread64": Numbers(17, 67),
    "pwrite64": Numbers(18, 68),
    "statx": Numbers(332, 291),
    "access": Numbers(21, None),
    "faccessat": Numbers(269, 48),
    "faccessat2": Numbers(439, 439),
    "readlink": Numbers(89, None),
    "readlinkat": Numbers(267, 78),
    "getcwd": Numbers(79, 17),
    "chdir": Numbers(80, 49),
    "mkdir": Numbers(83, None),
    "mkdirat": Numbers(258, 34),
    "rmdir": Numbers(84, None),
    "unlink": Numbers(87, None),
    "unlinkat": Numbers(263, 35),
    "rename": Numbers(82, None),
    "renameat": Numbers(264, 38),
    "renameat2": Numbers(316, 276),
    "truncate": Numbers(76, 45),
    "ftruncate": Numbers(77, 46),
    "fsync": Numbers(74, 82),
    "fdatasync": Numbers(75, 83),
    "chmod": Numbers(90, None),
    "fchmod": Numbers(91, 52),
    "fchmodat": Numbers(268, 53),
    "utimensat": Numbers(280, 88),
    "umask": Numbers(95, 166),
    "dup": Numbers(32, 23),
    "dup2": Numbers(33, None),
    "dup3": Numbers(292, 24),
    "pipe": Numbers(22, None),
    "pipe2": Numbers(293, 59),
    "poll": Numbers(7, None),
    "ppoll": Numbers(271, 73),
    "select": Numbers(23, None),
    "pselect6": Numbers(270, 72),
    # time
    "clock_gettime": Numbers(228, 113),
    "clock_getres": Numbers(229, 114),
    "clock_nanosleep": Numbers(230, 115),
    "nanosleep": Numbers(35, 101),
    "gettimeofday": Numbers(96, 169),
    "time": Numbers(201, None),
    "times": Numbers(100, 153),
    "alarm": Numbers(37, None),
    "setitimer": Numbers(38, 103),
    "getitimer": Numbers(36, 102),
    # itself
    "getpid": Numbers(39, 172),
    "getppid": Numbers(110, 173),
    "gettid": Numbers(186, 178),
    "getuid": Numbers(102, 174),
    "geteuid": Numbers(107, 175),
    "getgid": Numbers(104, 176),
    "getegid": Numbers(108, 177),
    "getgroups": Numbers(115, 158),
    "getresuid": Numbers(118, 148),
    "getresgid": Numbers(120, 150),
    "getrlimit": Numbers(97, 163),
    "getrusage": Numbers(98, 165),
    "sched_getaffinity": Numbers(204, 123),
    "sched_yield": Numbers(24, 124),
    "getcpu": Numbers(309, 168),
    "uname": Numbers(63, 160),
    "sysinfo": Numbers(99, 179),
    "getrandom": Numbers(318, 278),
    "sigaltstack": Numbers(131, 132),
    "set_robust_list": Numbers(273, 99),
    "set_tid_address": Numbers(218, 96),
    "rseq": Numbers(334, 293),
    "restart_syscall": Numbers(219, 128),
    "exit": Numbers(60, 93),
    "exit_group": Numbers(231, 94),
}


class OneOf(NamedTuple):
    """Allowed if an argument, of which the kernel reads 32 bits, has one of some values."""

    numbers: Numbers
    argument: int
    values: tuple[int, ...]


BY_ARGUMENT: Final[dict[str, OneOf]] = {
    # FIOCLEX, FIONCLEX, FIONBIO, FIONREAD, and two questions whether a file is a terminal. Not
    # TIOCSTI, which types on one.
    "ioctl": OneOf(Numbers(16, 29), 1, (0x5451, 0x5450, 0x5421, 0x541B, 0x5401, 0x5413)),
    # duplicates, flags and locks. Not F_SETPIPE_SZ, F_SETOWN, F_SETLEASE, F_NOTIFY.
    "fcntl": OneOf(Numbers(72, 25), 1, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),
    "prctl": OneOf(Numbers(157, 167), 0, (15, 16)),  # PR_SET_NAME, PR_GET_NAME, of a thread
    "tgkill": OneOf(Numbers(234, 131), 0, (2,)),  # abort(); itself, not the first process
    "prlimit64": OneOf(Numbers(302, 261), 0, (0,)),  # its own; none of them can be raised
}

CLONE: Final = Numbers(56, 220)
"""Allowed for threads only."""

CLONE_THREAD: Final = 0x00010000
NEVER_WITH_CLONE: Final = 0x7E02E080
"""Every CLONE_NEW…, CLONE_PTRACE, CLONE_VFORK and CLONE_PARENT."""

REFUSED: Final[dict[str, Numbers]] = {
    "fork": Numbers(57, None),
    "vfork": Numbers(58, None),
    "execve": Numbers(59, 221),
    "execveat": Numbers(322, 281),
    "socket": Numbers(41, 198),
    "socketpair": Numbers(53, 199),
    "kill": Numbers(62, 129),
    "ptrace": Numbers(101, 117),
    "mount": Numbers(165, 40),
    "unshare": Numbers(272, 97),
    "setuid": Numbers(105, 146),
}
"""Asked for by usual programs: "Operation not permitted". All others do not exist."""
