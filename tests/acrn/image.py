# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the virtual machines boot: a small kernel, and an initramfs with Python and the collection's own guest modules.

The kernel is Debian's source with the few options of guest/kernel.config; it is built once and kept. The initramfs has
this machine's /usr/bin/python3 with the parts of the standard library that the modules import, and busybox.
"""

from __future__ import annotations

import ast
import binascii
import gzip
import hashlib
import importlib.util
import json
import marshal
import os
import py_compile
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
SOURCES = Path("/usr/src")

# What Python imports by itself, or late. What the guests' program and the modules import is read from them.
STDLIB = (
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "importlib._bootstrap_external",
    "signal",
    "traceback",
)


class ImageError(Exception):
    """Something is missing, or a tool failed; the message tells what."""


def run(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-30:])
        raise ImageError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{last}")
    return done.stdout


# -- kernel ------------------------------------------------------------------------------------------------------------


def kernel_source() -> Path:
    """The archive of Debian's package linux-source-VERSION, the newest that is installed."""
    found = sorted(SOURCES.glob("linux-source-*.tar.xz"))
    if not found:
        raise ImageError("no kernel source: install the Debian package linux-source-6.1")
    return found[-1]


def kernel(cache: Path) -> Path:
    """Path of the bzImage, built if the cache has none of this source and these options (some minutes of CPU time)."""
    source, options = kernel_source(), HERE / "guest/kernel.config"
    digest = hashlib.sha256(options.read_bytes())
    digest.update(f"{source.name} {source.stat().st_size}".encode())
    kept = cache / f"bzImage-{digest.hexdigest()[:16]}"
    if kept.exists():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as place:
        run("tar", "--extract", "--file", str(source), "--strip-components=1", cwd=Path(place))
        quiet = {"KCONFIG_CONFIG": ".config"}
        run("make", "-s", "allnoconfig", cwd=Path(place))
        run("scripts/kconfig/merge_config.sh", "-m", ".config", str(options), cwd=Path(place), env=quiet)
        run("make", "-s", "olddefconfig", cwd=Path(place))
        chosen = (Path(place) / ".config").read_text().splitlines()
        lost = [line for line in options.read_text().splitlines() if line.startswith("CONFIG_") and line not in chosen]
        if lost:
            raise ImageError(f"{options.name}: options that {source.name} does not take: {' '.join(lost)}")
        run("make", "-s", f"-j{os.cpu_count() or 1}", "bzImage", cwd=Path(place))
        fresh = cache / f".{kept.name}"
        shutil.copy(Path(place) / "arch/x86/boot/bzImage", fresh)
        fresh.rename(kept)
    return kept


def with_room(kernel: bytes) -> bytes:
    """A bzImage with nothing behind it, as long as what it uses while it unpacks itself.

    That is init_size of its header, from an aligned address on (Documentation/x86/boot.rst of Linux).
    """
    (alignment,), (init_size,) = struct.unpack_from("<I", kernel, 0x230), struct.unpack_from("<I", kernel, 0x260)
    return kernel.ljust(init_size + 2 * alignment, b"\0")


# -- initramfs ---------------------------------------------------------------------------------------------------------


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """A member of a cpio archive in the "newc" form, which the kernel unpacks. Owner root, time 0."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(head + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def archive(
    files: Mapping[str, bytes], executable: Iterable[str] = (), links: Mapping[str, str] | None = None
) -> bytes:
    """A cpio archive of files by path (without a leading /), with the folders that they are in, and a console."""
    folders = {"dev", "proc", "sys", "run", "tmp", "etc"}
    for path in [*files, *(links or {})]:
        folders.update(str(parent) for parent in Path(path).parents if str(parent) != ".")
    runs = set(executable)
    parts = [_entry(folder, stat.S_IFDIR | 0o755) for folder in sorted(folders)]
    parts.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    for path, data in sorted(files.items()):
        parts.append(_entry(path, stat.S_IFREG | (0o755 if path in runs else 0o644), data))
    for path, target in sorted((links or {}).items()):
        parts.append(_entry(path, stat.S_IFLNK | 0o777, target.encode()))
    return b"".join([*parts, _entry("TRAILER!!!", 0)])


def libraries(program: str) -> list[str]:
    """Paths of the shared libraries of a program, the loader included."""
    words = run("ldd", program).split()
    return sorted({word for word in words if word.startswith("/")})


def _imported(source: str) -> set[str]:
    """Names of the modules of the standard library that a program imports, anywhere in it."""
    found: set[str] = set()
    # What is imported from a module is a module itself, or a name in it.
    parts: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            parts.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if _standard(name)} | {name for name in parts if _standard(name) and is_module(name)}


def _standard(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        # It stands in what is no package.
        return False


def needed(sources: Iterable[str]) -> list[str]:
    """Names of the library modules that programs with these sources use."""
    return sorted({*STDLIB, *(name for source in sources for name in _imported(source))})


def sources_of(bundle: str) -> list[str]:
    """The sources in what an action plugin sends to a target."""
    parts, _magic = marshal.loads(zlib.decompress(binascii.a2b_base64(bundle)))
    return [source for _name, source, _code in parts]


def compiled(sources: Sequence[str]) -> dict[str, bytes]:
    """Sources by their path, so that the guest need not compile them."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    code = "import py_compile, sys\nfor number, path in enumerate(sys.argv[1:]):"
    code += " py_compile.compile(path, f'{number}.pyc', "
    code += f"doraise=True, optimize=2, invalidation_mode=py_compile.PycInvalidationMode({unchecked.value}))"
    with tempfile.TemporaryDirectory() as place:
        run(PYTHON, "-S", "-E", "-c", code, *sources, cwd=Path(place))
        return {path: (Path(place) / f"{number}.pyc").read_bytes() for number, path in enumerate(sources)}


def python(names: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """Python and as much of its library as these names import: files by path, and which of them are programs."""
    listing = (
        "import sys, importlib, json\n"
        f"for name in {list(names)!r}: importlib.import_module(name)\n"
        "print(json.dumps([sys.executable, sorted({m.__file__ for m in list(sys.modules.values())"
        " if getattr(m, '__file__', None)})]))"
    )
    program, modules = json.loads(run(PYTHON, "-S", "-E", "-c", listing))
    # hashlib does without OpenSSL, a quarter of all bytes.
    modules = [path for path in modules if "/_hashlib." not in path]
    real = os.path.realpath(program)
    files: dict[str, bytes] = {"usr/bin/python3": Path(real).read_bytes()}
    shared = [real]
    sources = [path for path in modules if path.endswith(".py")]
    # Beside where its source would be.
    files.update({path.lstrip("/") + "c": data for path, data in compiled(sources).items()})
    for path in modules:
        if not path.endswith(".py"):
            files[path.lstrip("/")] = Path(path).read_bytes()
            shared.append(path)
    for library in {found for program in shared for found in libraries(program)}:
        files[library.lstrip("/")] = Path(library).read_bytes()
    return files, ["usr/bin/python3"]


def base(cache: Path, names: Sequence[str]) -> bytes:
    """Python with these library modules, and busybox, compressed: the same for every guest, kept in a cache."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise ImageError("no busybox: install the Debian package busybox-static")
    version = run(PYTHON, "-c", "import sys; print(sys.version)")
    digest = hashlib.sha256("\0".join([version, *names, Path(__file__).read_text()]).encode()).hexdigest()[:16]
    kept = cache / f"base-{digest}.cpio.gz"
    if kept.exists():
        return kept.read_bytes()
    files, programs = python(names)
    files["bin/busybox"] = Path(busybox).read_bytes()
    files["etc/group"] = b"root:x:0:\n"
    files["etc/passwd"] = b"root:x:0:0:root:/:/bin/sh\n"
    loaders = [path for path in files if "ld-linux" in path]
    names = run(busybox, "--list").split()
    links = {f"bin/{name}": "busybox" for name in names if name != "busybox"}
    data = gzip.compress(archive(files, [*programs, "bin/busybox", *loaders], links), 6, mtime=0)
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f".{kept.name}"
    fresh.write_bytes(data)
    fresh.rename(kept)
    return data


def initramfs(
    cache: Path,
    job: Mapping[str, object],
    bundles: Mapping[str, str],
    service: Mapping[str, bytes] | None = None,
    programs: Iterable[str] = (),
) -> bytes:
    """What a guest boots: ``base``, the program guest.py, its job, and the modules that it runs, by name.

    ``bundles`` holds, by name of a module, what the action plugins send to a target. ``service`` are files that only
    the Service VM has, and ``programs`` which of them are programs; it also gets what its guests boot.
    """
    program = HERE / "guest/guest.py"
    files = {
        "init": b"#!/bin/busybox sh\n" + (HERE / "guest/init.sh").read_bytes(),
        "guest.pyc": compiled([str(program)])[str(program)],
        "job.json": json.dumps(job).encode(),
        **{f"modules/{name}": text.encode() for name, text in bundles.items()},
    }
    sources = [program.read_text(), *(source for text in bundles.values() for source in sources_of(text))]
    # The kernel unpacks archives that follow each other.
    data = base(cache, needed(sources)) + gzip.compress(archive(files, ["init"]), 6, mtime=0)
    if not service:
        return data
    there = {library.lstrip("/") for library in libraries(os.path.realpath(PYTHON))}
    last = {name: content for name, content in service.items() if name not in there}
    small = gzip.compress(archive(last, programs, {"usr/bin/env": "/bin/busybox"}), 6, mtime=0)
    # Packed already.
    return data + small + gzip.compress(archive({"guest/initrd": data}), 0, mtime=0)


# -- bootable image ----------------------------------------------------------------------------------------------------

GRUB = Path("/usr/lib/grub/i386-pc")
GRUB_MODULES = [
    "biosdisk",
    "iso9660",
    "configfile",
    "normal",
    "multiboot2",
    "memrw",
    "serial",
    "echo",
    "boot",
    "terminal",
    "mmap",
    "test",
    "search",
    "search_fs_uuid",
]
LOAD = "set root=(cd)\nset prefix=(cd)/boot/grub\nconfigfile /boot/grub/grub.cfg\n"


def disc(path: Path, files: Mapping[str, Path | bytes], config: str, made: str) -> None:
    """Write a bootable disc image with files by path and a configuration of GRUB.

    ``made``: the time that stands in it, in 16 digits, by which GRUB knows it (YYYY-MM-DD-hh-mm-ss-cc is its UUID).
    """
    if not GRUB.is_dir():
        raise ImageError("no GRUB for BIOS: install the Debian package grub-pc-bin")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, source in files.items():
            target = root / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        boot = root / "boot/grub"
        boot.mkdir(parents=True, exist_ok=True)
        (boot / "grub.cfg").write_text(config)
        load = root / "load.cfg"
        load.write_text(LOAD)
        core = boot / "core.img"
        words = ["-d", str(GRUB), "-O", "i386-pc-eltorito", "-p", "/boot/grub", "-c", str(load), "-o", str(core)]
        run("grub-mkimage", *words, *GRUB_MODULES)
        load.unlink()
        words = ["-as", "mkisofs", "-quiet", "-R", "-o", str(path), "-b", "boot/grub/core.img", "-no-emul-boot"]
        run("xorriso", *words, "-boot-load-size", "4", "-boot-info-table", f"--modification-date={made}", str(root))


# What grub-mkconfig runs for the beginning of each menu, and what it tells it.
HEADER = "/etc/grub.d/00_header"
ASKED = {
    "pkgdatadir": "/usr/share/grub",
    "GRUB_TERMINAL_OUTPUT": "serial",
    "GRUB_SERIAL_COMMAND": "serial --unit=0 --speed=115200",
    "GRUB_TIMEOUT_STYLE": "menu",
    "GRUB_TIMEOUT": "0",
    "GRUB_DEFAULT": "0",
}


def menu(own: str, prelude: Iterable[str] = ()) -> str:
    """A grub.cfg as grub-mkconfig makes it, with a host's own entries and what is to be done before any of them."""
    header = run("sh", HEADER, env=ASKED) + "".join(f"{line}\n" for line in prelude)
    sections = {HEADER: header, "/etc/grub.d/10_linux": own}
    parts = [f"### BEGIN {name} ###\n{text}### END {name} ###\n" for name, text in sections.items()]
    return "\n".join(["# DO NOT EDIT THIS FILE\n", *parts])


# Where the file system of a disk begins, and the UUID by which GRUB finds it.
PARTITION = 1 << 20
DISK_UUID = "ac120000-0000-4000-8000-000000000001"
DISK_LOAD = "set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/boot/grub\n"
DISK_MODULES = ["part_msdos", "ext2", "loadenv", "gzio"]


def disk(path: Path, root: Path, cylinder: int, *, kind: str = "ext4", least: int = 0, behind: int = 0) -> None:
    """Write a disk that boots GRUB from its first sectors, with all files below ``root`` in one partition.

    ``least``: bytes that it has at least; ``behind``: how many of them are free behind the partition.
    """
    used = sum(each.stat().st_size for each in root.rglob("*") if each.is_file())
    whole = -(-max(least, PARTITION + used * 5 // 4 + (16 << 20) + behind) // cylinder) * cylinder
    size = whole - behind
    with tempfile.TemporaryDirectory() as place:
        load, core = Path(place) / "load.cfg", Path(place) / "core.img"
        load.write_text(DISK_LOAD)
        words = ["-d", str(GRUB), "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-c", str(load), "-o", str(core)]
        run("grub-mkimage", *words, *GRUB_MODULES, *DISK_MODULES)
        first = bytearray((GRUB / "boot.img").read_bytes()[:440].ljust(512, b"\0"))
        entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", PARTITION // 512, 0)
        first[446:462] = entry[:12] + struct.pack("<I", (size - PARTITION) // 512)
        first[510:512] = b"\x55\xaa"
        with path.open("wb") as handle:
            handle.truncate(whole)
            handle.write(first + core.read_bytes())
            if handle.tell() > PARTITION:
                raise ImageError("GRUB does not fit in front of the partition")
    words = ["-q", "-F", "-t", kind, "-O", "^metadata_csum,^64bit", "-U", DISK_UUID, "-d", str(root)]
    run("mke2fs", *words, "-E", f"offset={PARTITION}", str(path), f"{(size - PARTITION) // 1024}k")


def read_disk(path: Path, name: str) -> bytes:
    """A file of a disk's partition."""
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "file"
        run("debugfs", "-R", f"dump {name} {target}", f"{path}?offset={PARTITION}")
        return target.read_bytes()


def write_disk(path: Path, name: str, data: bytes) -> None:
    """Replace a file of a disk's partition, of the same size."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "file"
        source.write_bytes(data)
        commands = Path(place) / "commands"
        commands.write_text(f"rm {name}\nwrite {source} {name}\n")
        run("debugfs", "-w", "-f", str(commands), f"{path}?offset={PARTITION}")


def missing() -> str:
    """Debian packages that are not there, as words of a command line; empty where nothing is missing."""
    needs = {
        "grub-pc-bin": GRUB.is_dir(),
        "grub-common": shutil.which("grub-mkimage") is not None,
        "xorriso": shutil.which("xorriso") is not None,
        "e2fsprogs": shutil.which("mke2fs") is not None,
        "busybox-static": shutil.which("busybox") is not None,
        "linux-source-6.1": bool(list(SOURCES.glob("linux-source-*.tar.xz"))),
        "flex": shutil.which("flex") is not None,
        "bison": shutil.which("bison") is not None,
        "lz4": shutil.which("lz4") is not None,
        # What the kernel's own tool for its objects is built with.
        "libelf-dev": Path("/usr/include/gelf.h").exists(),
        "python3": os.path.exists(PYTHON),
    }
    return " ".join(name for name, there in needs.items() if not there)


if __name__ == "__main__":
    print(kernel(Path(sys.argv[1])))
