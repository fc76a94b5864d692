"""Hostile graders in plain Python. `grade` returns 1 where its attack succeeds, 0 where it fails.

Each has what must come out: `FAILS`, or a pattern of the error.
"""

import re

FAILS = "fails"
TIME = "exceeded the time limit of 0.4 seconds"

# Values for `grade` to return; a score is a finite number.
VALUES = {
    "nan": ("float('nan')", "returned nan; a score is a finite number"),
    "infinity": ("float('inf')", "returned inf"),
    "minus_infinity": ("float('-inf')", "returned -inf"),
    "an_integer_beyond_floats": ("10 ** 400", "returned inf"),
    "nothing": ("None", "type NoneType"),
    "a_text": ("'1'", "type str"),
    "a_complex_number": ("1j", "type complex"),
    "something_that_cannot_be_pickled": ("lambda: 0", "type function"),
    "an_object_with_a_float": ("type('Evil', (), {'__float__': lambda self: 1.0})()", "type Evil"),
    "a_class_with_a_long_name": ("type('a' * 10 ** 7, (), {})()", "type a{100};"),
    "a_float_that_lies": (
        "type('Evil', (float,), {'__float__': lambda self: 1 / 0})('nan')",
        "returned nan",
    ),
}

# Statements of `grade` that must end with an exception or a 0.
ATTACKS = {
    "prints_much": ("print('x' * 10 ** 7); return 0", FAILS),
    "closes_every_descriptor": ("os.closerange(0, 64); return 1", "gave no score"),
    "closes_every_descriptor_and_stays": (
        "os.closerange(0, 64)\nwhile True: pass",
        f"signal 9|{TIME}",
    ),
    "forks": ("os.fork(); return 1", "Operation not permitted"),
    "starts_a_program": ("subprocess.run(['/bin/sh', '-c', 'true']); return 1", "Error"),
    "replaces_itself": ("os.execv(sys.executable, ['python']); return 1", "Error"),
    "becomes_a_daemon": ("os.setsid(); os.fork(); return 1", "Error"),
    "leaves_work_for_the_exit": (
        "atexit.register(time.sleep, 1000); weakref.finalize(time, time.sleep, 1000); return 0",
        FAILS,
    ),
    "leaves_threads": (
        "for _ in range(4): threading.Thread(target=time.sleep, args=(1000,)).start()\nreturn 0",
        FAILS,
    ),
    "starts_too_many_threads": (
        "threading.stack_size(1 << 15); many = 0\n"
        "try:\n"
        " while many < 200:\n"
        "  threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); many += 1\n"
        "except RuntimeError: pass\n"
        "return many >= 16",
        FAILS,
    ),
    "ends_the_process": ("os._exit(3)", "status 3"),
    "crashes": ("ctypes.string_at(0)", "signal 11"),
    "aborts": ("os.abort()", "signal (6|11)"),
    "kills_all_others": (
        "os.kill(-1, 9); return 1",
        "Operation not permitted",
    ),
    "kills_its_parent": ("os.kill(os.getppid(), 9); return 1", "Operation not permitted"),
    "kills_the_first_process": (
        "library = ctypes.CDLL(None); number = 234 if os.uname().machine == 'x86_64' else 131\n"
        "for name in (9, 19, 15): library.syscall(number, 1, 1, name) if os.getpid() > 1 else 0\n"
        "time.sleep(0.1); return 0",
        FAILS,
    ),
    "kills_the_service": ("os.kill(item['process'], 9); return 1", "Operation not permitted"),
    "finds_descriptors_of_others": (
        "found = []\n"
        "for number in range(4096):\n"
        " try: os.fstat(number); found.append(number)\n"
        " except OSError: pass\n"
        "return found != [0, 1, 2, 3]",
        FAILS,
    ),
    "changes_the_device_of_the_host": ("os.fchmod(0, 0o600); return 1", "Error"),
    "touches_the_device_of_the_host": ("os.utime('/dev/null'); return 1", "Error"),
    "reads_proc": (
        "return any(os.path.exists(f'/proc/{name}') for name in ('self', '1', 'mounts', 'net'))",
        FAILS,
    ),
    "reads_the_environment": ("return bool(set(os.environ) - {'LC_CTYPE', 'PWD'})", FAILS),
    "reads_files_of_the_host": (
        "paths = ['passwd', 'shadow', 'hostname', 'hosts', 'resolv.conf', 'machine-id']\n"
        "paths = [f'/etc/{path}' for path in paths] + [item['folder'], '/sys', '/run', '/var']\n"
        "paths += ['/usr/bin', '/bin', '/home', '/boot', '/dev/zero', '/dev/tty', '/dev/pts']\n"
        "return any(os.path.lexists(path) for path in paths)",
        FAILS,
    ),
    "climbs_out": (
        "return os.path.exists('/' + '../' * 20 + item['folder'])",
        FAILS,
    ),
    "climbs_out_of_the_library": (
        "walks = [walk for top in (*sys.path, '/lib', '/etc') for walk in os.walk(top)]\n"
        "paths = [os.path.join(top, name) for top, *names in walks for name in sum(names, [])]\n"
        "links = [os.path.realpath(path) for path in paths if os.path.islink(path)]\n"
        "return bool(links) and any(path not in paths and os.path.exists(path) for path in links)",
        FAILS,
    ),
    "makes_a_link": ("os.symlink(item['folder'], '/tmp/link'); return 1", "Error"),
    "imports_packages_of_the_service": ("import pydantic; return 1", "No module named 'pydantic'"),
    "imports_the_service": ("import core.errors; return 1", "Error"),
    "reads_the_packages_of_the_host": (
        "import sysconfig; import glob\n"
        "return bool(glob.glob(sysconfig.get_path('stdlib') + '/site-packages/*'))",
        FAILS,
    ),
    "writes_outside_its_folder": (
        "worked = 0\n"
        "for folder in (item['folder'], '/', '/dev', '/dev/shm', '/var/tmp', '/etc', '/packages',\n"
        "               os.path.dirname(os.__file__), os.path.dirname(sys.executable)):\n"
        " try: open(os.path.join(folder, item['mark']), 'w').close(); worked = 1\n"
        " except OSError: pass\n"
        "return worked",
        FAILS,
    ),
    "writes_into_its_folder": ("open('/tmp/' + item['mark'], 'w').close(); return 0", FAILS),
    "changes_the_library": ("open(os.__file__, 'a'); return 1", "Error"),
    "makes_the_library_writable": ("os.chmod(os.__file__, 0o777); return 1", "Error"),
    "makes_a_device": ("os.mknod('/tmp/null', 0o20666, os.makedev(1, 3)); return 1", "Error"),
    "fills_its_folder": (
        "size = 0\n"
        "try:\n"
        " for number in range(100):\n"
        "  with open(f'/tmp/{number}', 'wb', 0) as file: size += file.write(bytes(1 << 20))\n"
        "except OSError: pass\n"
        "return size > 16 << 20",
        FAILS,
    ),
    "makes_a_huge_file": ("os.truncate(open('/tmp/huge', 'wb').name, 1 << 40); return 1", "Error"),
    "makes_many_files": (
        "many = 0\n"
        "try:\n"
        " while many < 10_000: open(f'/tmp/{many}', 'w').close(); many += 1\n"
        "except OSError: pass\n"
        "return many > 1024",
        FAILS,
    ),
    "opens_many_files": ("kept = [os.pipe() for _ in range(100)]; return 1", "OSError"),
    "runs_a_program_of_its_own": (
        "shutil.copy(ctypes.__file__, '/tmp/library.so'); ctypes.CDLL('/tmp/library.so'); return 1",
        "Error",
    ),
    "takes_memory_at_once": ("x = bytearray(10 ** 12)", "memory limit of 512 MiB"),
    "takes_memory_bit_by_bit": (
        "kept = []\nwhile True: kept.append(bytes(1 << 22))",
        "memory limit of 512 MiB",
    ),
    "maps_memory": ("mmap.mmap(-1, 1 << 40); return 1", "Error|memory"),
    "recurses_for_ever": ("def f(): f()\nf()", "RecursionError"),
    "recurses_without_a_limit": (
        "sys.setrecursionlimit(10 ** 9)\ndef f(x): f(x + 1)\nf(0)",
        f"memory limit|signal|RecursionError|{TIME}",
    ),
    "recurses_in_c": ("x = []\nfor _ in range(10 ** 5): x = [x]\nrepr(x)", "RecursionError"),
    "lifts_its_limits": (
        "import resource as r\n"
        "free = (r.RLIM_INFINITY, r.RLIM_INFINITY); worked = 0\n"
        "for which in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_NPROC, r.RLIMIT_NOFILE):\n"
        " try: r.setrlimit(which, free); worked = 1\n"
        " except (OSError, ValueError): pass\n"
        "return worked",
        FAILS,
    ),
    "types_on_the_terminal": (
        "import fcntl; worked = 0\n"
        "for number in range(64):\n"
        " try: fcntl.ioctl(number, 0x5412, b'x'); worked = 1\n"
        " except OSError: pass\n"
        "return worked",
        FAILS,
    ),
    "raises_a_surrogate": ("raise ValueError('\\udc80' * 3)", r"ValueError: .*udc80"),
    "raises_a_hundred_megabytes": ("raise ValueError('x' * 10 ** 8)", "x{1000}"),
    "raises_what_cannot_be_shown": (
        "class Evil(Exception):\n def __str__(self): raise self\nraise Evil",
        "Evil",
    ),
    "raises_an_exit": ("sys.exit(0)", "SystemExit"),
    "raises_a_chain_of_errors": (
        "error = None\n"
        "for _ in range(10 ** 4):\n"
        " new = ValueError('x' * 100); new.__cause__ = error; error = new\n"
        "raise error",
        ".",
    ),
    "audits_everything_away": (
        "def hook(*_): raise ValueError\nsys.addaudithook(hook)\nraise KeyError",
        ".",
    ),
    "fills_the_channel": (
        "while True:\n"
        " for number in range(3, 8):\n"
        "  try: os.write(number, b'x' * 10 ** 6)\n"
        "  except OSError: pass",
        "wrote more than 16384 bytes into its answer",
    ),
    "talks_nonsense_on_the_channel": ("os.write(3, b'nonsense'); os._exit(0)", "into the channel"),
    "answers_nan_on_the_channel": (
        "import struct; os.write(3, b'S' + struct.pack('<d', float('nan'))); os._exit(0)",
        "into the channel",
    ),
}

# Statements of `grade` that only a limit ends.
ENDLESS = {
    "prints_until_it_is_stopped": ("while True: print('x' * 10 ** 6)", TIME),
    "prints_errors_until_it_is_stopped": ("while True: os.write(2, b'x' * 10 ** 6)", TIME),
    "forks_for_ever": (
        "while True:\n try: os.fork()\n except OSError: pass",
        TIME,
    ),
    "ignores_all_signals": (
        "for number in signal.valid_signals():\n"
        " try: signal.signal(number, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "while True: pass",
        TIME,
    ),
    "swallows_all_exceptions": (
        "while True:\n try:\n  while True: pass\n except BaseException: pass",
        TIME,
    ),
    "sleeps": ("time.sleep(1000)", TIME),
    "waits_for_a_lock": ("lock = threading.Lock(); lock.acquire(); lock.acquire()", TIME),
    "stops_itself": ("while True: signal.raise_signal(signal.SIGSTOP)", TIME),
    "raises_what_cannot_be_shown_in_time": (
        "class Evil(Exception):\n def __str__(self):\n  while True: pass\nraise Evil",
        TIME,
    ),
    "interrupts_the_words_about_it": (
        "def alarm(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGALRM, alarm); signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-3)\n"
        "raise ValueError",
        ".",
    ),
}

# Whole sources.
SOURCES = {
    "no_function": ("x = 1", "defines no function grade"),
    "a_number_as_function": ("grade = 1", "defines no function grade"),
    "wrong_arguments": ("def grade(): return 1", "TypeError"),
    "no_python": ("def grade(sample, item) return 1", "SyntaxError"),
    "nul": ("def grade(sample, item):\n return '\0'", "null bytes"),
    "surrogate": ("def grade(sample, item):\n return '\udc80'", "UnicodeEncodeError"),
    "deep": ("x = " + "(" * 10_000 + ")" * 10_000, "SyntaxError|MemoryError|memory|nested"),
    "constant_that_is_huge": ("x = (1,) * 10 ** 9 * 100", "memory limit"),
    "loops_at_import": ("while True: pass", TIME),
    "too_long": ("#" * (256 * 1024 + 1), "262145 bytes; at most 262144 are allowed"),
}

_MODULES = ("atexit", "ctypes", "mmap", "os", "shutil", "signal", "socket", "subprocess", "sys")
_MODULES += ("threading", "time", "weakref")


def with_grade(body: str) -> str:
    """Return a source whose `grade` has these statements, with the modules that they name."""
    used = [name for name in _MODULES if re.search(rf"\b{name}\.", body)]
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    imports = f"import {', '.join(used)}\n" if used else ""
    return f"{imports}def grade(sample, item):\n{lines}\n"
