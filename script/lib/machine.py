# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the project's scripts need of the machine: Debian packages, virtual environments, copies of the collection.

Everything that is made here lies in one directory (``.cache`` of the checkout, or ``$ACRN_IVSHMEM_CACHE``), except
Debian packages. Each function makes what is missing and returns at once where it is there; locks make it safe to call
them from several processes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("ACRN_IVSHMEM_CACHE") or ROOT / ".cache").absolute()

# Command -> Debian package. A group is what one kind of work needs.
APT = {
    "tools": {
        "bc": "bc",
        "gcc": "gcc",
        "git": "git",
        "iasl": "acpica-tools",
        "make": "make",
        "rsync": "rsync",
        "shellcheck": "shellcheck",
        "ssh": "openssh-client",
        "xmllint": "libxml2-utils",
        "xsltproc": "xsltproc",
    },
    "lab": {
        "busybox": "busybox-static",
        "cpio": "cpio",
        "mke2fs": "e2fsprogs",
        "mmdebstrap": "mmdebstrap",
        "qemu-img": "qemu-utils",
        "qemu-system-x86_64": "qemu-system-x86",
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
    },
    "bench": {"modprobe": "kmod"},
    "faults": {"strace": "strace"},
    "browser": {"chromium": "chromium"},
    # The emulator that boots ACRN itself, and the small kernel of its virtual machines.
    "emulator": {
        "/usr/lib/grub/i386-pc": "grub-pc-bin",
        "/usr/share/bochs/BIOS-bochs-latest": "bochsbios",
        "/usr/share/bochs/VGABIOS-lgpl-latest": "vgabios",
        "/usr/share/doc/bochs-term": "bochs-term",
        "/usr/share/doc/linux-source-6.1": "linux-source-6.1",
        "/usr/include/gelf.h": "libelf-dev",
        "bison": "bison",
        "bochs": "bochs",
        "busybox": "busybox-static",
        "flex": "flex",
        "gcc-11": "gcc-11",
        "grub-mkimage": "grub-common",
        "lz4": "lz4",
        "script": "bsdutils",
        "xorriso": "xorriso",
        # What ACRN's own acrn-dm is built with.
        "/usr/include/EGL/egl.h": "libegl-dev",
        "/usr/include/SDL2/SDL.h": "libsdl2-dev",
        "/usr/include/cjson/cJSON.h": "libcjson-dev",
        "/usr/include/libdrm/drm_fourcc.h": "libdrm-dev",
        "/usr/include/liburing.h": "liburing-dev",
        "/usr/include/libusb-1.0/libusb.h": "libusb-1.0-0-dev",
        "/usr/include/openssl/md5.h": "libssl-dev",
        "/usr/include/pciaccess.h": "libpciaccess-dev",
        "/usr/include/pixman-1/pixman.h": "libpixman-1-dev",
        "/usr/include/uuid/uuid.h": "uuid-dev",
        "iasl": "acpica-tools",
    },
    # A Service VM that boots through GRUB.
    "host": {
        "/usr/lib/grub/i386-pc": "grub-pc-bin",
        "/usr/lib/grub/x86_64-efi": "grub-efi-amd64-bin",
        "/usr/share/OVMF/OVMF_CODE.fd": "ovmf",
        "grub-mkimage": "grub-common",
        "mcopy": "mtools",
        "mkfs.vfat": "dosfstools",
    },
}

# Name -> versions of Python that its requirements install on, the best one first.
VENVS = {
    "main": ("3.11", "3.12", "3.13"),
    "floor": ("3.11", "3.12", "3.10"),
    "newest": ("3.12", "3.13", "3.14"),
    "security": ("3.11", "3.12", "3.13"),
    "docs": ("3.11", "3.12", "3.13"),
}

Say = Callable[[str], None]


class MachineError(Exception):
    """Something is missing that cannot be made here; the message tells the user what to do."""


class NoPython(MachineError):
    """No Python of a fitting version is on this machine."""


def quiet(text: str) -> None:
    """Drop a progress message."""


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold an exclusive lock among all processes that use this cache."""
    directory = CACHE / "lock"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / name, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def search_path() -> list[str]:
    """Directories to look for commands in: PATH without pyenv's shims, plus the system's.

    A shim exists for every command that any installed Python has and fails for the others; ansible-test takes it for
    the real thing. mke2fs and its like are not on the PATH of a user who is not root.
    """
    found = [d for d in os.environ.get("PATH", "").split(os.pathsep) if d and not d.rstrip("/").endswith("/shims")]
    return list(dict.fromkeys([*found, "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]))


def which(command: str) -> str | None:
    """Path of a command, or None."""
    return shutil.which(command, path=os.pathsep.join(search_path()))


def present(what: str) -> bool:
    """Whether there is a command, or a file or directory where a path is given."""
    return os.path.exists(what) if what.startswith("/") else which(what) is not None


def apt(group: str, say: Say = quiet) -> None:
    """Install the packages of a group that are missing. Raises MachineError where that is not possible."""
    with locked("apt"):
        missing = sorted({package for what, package in APT[group].items() if not present(what)})
        if missing:
            apt_install(missing, say)


def apt_install(packages: Sequence[str], say: Say) -> None:
    """Install Debian packages, as root or by sudo without a password."""
    names = " ".join(packages)
    prefix: list[str] = []
    if os.geteuid() != 0:
        prefix = ["sudo", "-n"]
        if which("sudo") is None or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
            raise MachineError(f"Missing packages: {names}. Install them, or run this as root once.")
    if which("apt-get") is None:
        raise MachineError(f"Missing: {names} (names of Debian packages), and there is no apt-get here. Install them.")
    say(f"apt: {names}")
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=900"]
    install = [*command, "install", "--no-install-recommends", *packages]
    # The package lists may be absent or old: the first try is cheap, and right on a machine that is up to date.
    if subprocess.run(install, capture_output=True, text=True, check=False).returncode == 0:
        return
    for words in ([*command, "update"], install):
        result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        raise MachineError(f"apt-get could not install {names}:\n{result.stdout.strip()}")


# Says its version if it can make virtual environments and is none itself.
USABLE = """\
import ensurepip, ssl, sys, venv
assert sys.prefix == sys.base_prefix
print("%d.%d" % sys.version_info[:2])
"""


def pythons() -> dict[str, str]:
    """Every Python >= 3.8 of this machine that can make virtual environments: version ("3.11") -> path."""
    # pyenv's first: its python3 puts its own directory in front of PATH, that of a virtual environment does not, and
    # another Python found would mean another virtual environment, in the place of the one in use.
    places: list[Path] = []
    roots = [os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")]
    roots += re.findall(r"(?:^|:)([^:]*pyenv)/shims/?(?=:|$)", os.environ.get("PATH", ""))
    for root in dict.fromkeys(r for r in roots if r):
        places += sorted(Path(root).glob("versions/*/bin"), reverse=True)
    places += [Path(d) for d in search_path()]
    found: dict[str, str] = {}
    for place in places:
        for path in sorted(place.glob("python3.*")) if place.is_dir() else []:
            match = re.fullmatch(r"python(3\.(\d+))", path.name)
            if not match or int(match.group(2)) < 8 or match.group(1) in found:
                continue
            result = subprocess.run([str(path), "-c", USABLE], capture_output=True, text=True, check=False)
            if result.returncode == 0 and result.stdout.strip() == match.group(1):
                found[match.group(1)] = str(path)
    return found


def python_for(name: str, say: Say = quiet) -> str:
    """The Python that a virtual environment is made with. Raises NoPython where there is none."""
    with locked("apt"):
        have = pythons()
        if not set(have) & set(VENVS[name]) and any(which(f"python{version}") for version in VENVS[name]):
            # Debian's own Python, without the package that makes virtual environments.
            apt_install(["python3-venv"], say)
            have = pythons()
    for version in VENVS[name]:
        if version in have:
            return have[version]
    raise NoPython(f"no Python {' or '.join(sorted(VENVS[name], key=lambda v: int(v[2:])))} with venv on this machine")


def requirements(name: str) -> Path:
    """The file that pins what a virtual environment holds."""
    return ROOT / "tests" / f"requirements-{name}.txt"


def venv(name: str, say: Say = quiet) -> Path:
    """Make a virtual environment unless one of the same requirements and Python is there; return its directory."""
    with locked(f"venv-{name}"):
        python = python_for(name, say)
        real = subprocess.run(
            [python, "-c", "import sys; print(sys.version, sys.prefix)"], capture_output=True, text=True, check=True
        ).stdout
        digest = hashlib.sha256(requirements(name).read_bytes() + real.encode()).hexdigest()[:12]
        parent = CACHE / "venv"
        directory = parent / f"{name}-{digest}"
        complete = directory / ".complete"
        if complete.exists():
            return directory
        say(f"venv {name}: {os.path.basename(python)}, {requirements(name).relative_to(ROOT)}")
        for old in parent.glob(f"{name}-*"):
            shutil.rmtree(old)
        parent.mkdir(parents=True, exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")}
        pip = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for words in ([python, "-m", "venv", str(directory)], [*pip, "--retries", "5", "-r", str(requirements(name))]):
            result = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=clean
            )
            if result.returncode != 0:
                raise MachineError(f"{' '.join(words)} failed:\n{result.stdout.strip()[-4000:]}")
        complete.touch()
        return directory


def source_files() -> list[str]:
    """Paths of the project's files, relative to its root: what git tracks or would track, else all that is there."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    if which("git"):
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
        if top.returncode == 0 and Path(top.stdout.strip()).resolve() == ROOT:
            words = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            listed = subprocess.run(words, capture_output=True, check=True).stdout.decode().split("\0")
            return sorted(p for p in set(listed) if p and os.path.lexists(ROOT / p))
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [n for n in names if n not in (".git", ".cache", ".ansible", ".venv", "__pycache__")]
        names[:] = [n for n in names if Path(directory, n) != CACHE]
        found += [os.path.relpath(os.path.join(directory, f), ROOT) for f in files]
    return sorted(found)


def tree(name: str) -> Path:
    """Copy the project to where Ansible's tools want a collection to be.

    Returns the directory that holds ``ansible_collections/``. A real copy: ansible-test resolves symbolic links. Files
    that are not the project's (left by an earlier run) are removed. An own, empty git repository makes the copy the top
    for tools that look for one; else they would find the checkout's, which ignores the cache, and check nothing.
    """
    base = CACHE / "trees" / name
    target = collection(base)
    with locked(f"tree-{name}"):
        wanted = source_files()
        keep = set(wanted)
        for path in wanted:
            source, copy = ROOT / path, target / path
            if copy.is_dir() and not copy.is_symlink():
                shutil.rmtree(copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink() or copy.is_symlink() or not same(source, copy):
                if os.path.lexists(copy):
                    copy.unlink()
                shutil.copy2(source, copy, follow_symlinks=False)
        for directory, names, files in os.walk(target, topdown=False):
            # git's own, and what ansible-test keeps: virtual environments that it would make again.
            if re.match(r"(\.git|tests/output)(/|$)", os.path.relpath(directory, target)):
                continue
            for file in files:
                if os.path.relpath(os.path.join(directory, file), target) not in keep:
                    os.unlink(os.path.join(directory, file))
            for child in names:
                path = os.path.join(directory, child)
                if os.path.islink(path):
                    if os.path.relpath(path, target) not in keep:
                        os.unlink(path)
                elif not os.listdir(path):
                    os.rmdir(path)
        if not (target / ".git").is_dir():
            subprocess.run(["git", "init", "-q", str(target)], capture_output=True, check=True)
    return base


def same(source: Path, copy: Path) -> bool:
    """Whether a copy made by copy2 is still what its source is."""
    try:
        a, b = source.stat(), copy.stat()
    except FileNotFoundError:
        return False
    return (a.st_size, a.st_mtime_ns, a.st_mode) == (b.st_size, b.st_mtime_ns, b.st_mode)


def collection(base: Path) -> Path:
    """The collection's directory in a tree."""
    return base / "ansible_collections" / "acrn" / "ivshmem"


def python_farm() -> Path:
    """A directory with a link ``python3.X`` for each Python found, and nothing else of theirs, to put on PATH."""
    farm = CACHE / "pythons"
    with locked("pythons"):
        farm.mkdir(parents=True, exist_ok=True)
        have = pythons()
        for link in farm.iterdir():
            if link.name[len("python") :] not in have:
                link.unlink()
        for version, path in have.items():
            link = farm / f"python{version}"
            if not link.is_symlink() or os.readlink(link) != path:
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    return farm


def pip_settings(python: Path) -> str:
    """pip's effective settings (files and PIP_* variables) as the text of a pip.conf.

    ansible-test and the tests run with an own HOME, and ansible-test drops PIP_* variables; their pip shall ask the
    same index as the user's.
    """
    words = [str(python), "-m", "pip", "config", "list"]
    sections: dict[str, dict[str, str]] = {}
    for line in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
        key, literal = line.split("=", 1)
        section, option = key.split(".", 1)
        if option in ("config-file", "require-virtualenv", "user", "target", "prefix"):
            continue
        value = str(ast.literal_eval(literal)).strip().replace("\n", "\n    ")
        # pip lists the variables before the files, though they win.
        sections.setdefault("global" if section == ":env:" else section, {}).setdefault(option, value)
    return "".join(
        f"[{section}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for section, options in sections.items()
    )


def home(name: str, directory: Path) -> Path:
    """An own home directory for the tools of a virtual environment, ready for ansible-test."""
    base = CACHE / "home" / name
    with locked(f"home-{name}"):
        (base / ".config/pip").mkdir(parents=True, exist_ok=True)
        (base / ".config/pip/pip.conf").write_text(pip_settings(directory / "bin/python"))
        # The copies may have been made by another user: a run as root after one as oneself.
        (base / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        # ansible-test fetches a script that installs pip from a server of its own; Python's ensurepip does the same.
        for source in directory.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py"):
            for version in set(re.findall(r"\bpip='([0-9.]+)'", source.read_text())):
                script = base / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
                script.parent.mkdir(parents=True, exist_ok=True)
                script.write_text(GET_PIP)
    return base


GET_PIP = """\
import subprocess
import sys

packages = [word for word in sys.argv[1:] if not word.startswith("-")]
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
"""


def environment(name: str, base: Path, own_home: bool = True) -> dict[str, str]:
    """Environment variables for a command that works on a tree with the virtual environment ``name``.

    Settings of the user that would change what is tested (ANSIBLE_*, MOLECULE_*, PYTHON*, PYTEST_*) are left out.
    """
    directory = venv(name)
    drop = re.compile(r"(ANSIBLE|MOLECULE|PYTHON|PYTEST|GALAXY)_?|VIRTUAL_ENV$")
    env = {key: value for key, value in os.environ.items() if not drop.match(key)}
    env["PATH"] = os.pathsep.join([str(directory / "bin"), str(python_farm()), *search_path()])
    env["LC_ALL"] = "C.UTF-8"
    env["ANSIBLE_COLLECTIONS_PATH"] = str(base)
    env["ACRN_IVSHMEM_CACHE"] = str(CACHE)
    env["PYTHONPYCACHEPREFIX"] = str(CACHE / "pycache")
    env["HYPOTHESIS_STORAGE_DIRECTORY"] = str(CACHE / "hypothesis")
    env["MYPY_CACHE_DIR"] = str(CACHE / "mypy")
    env["RUFF_CACHE_DIR"] = str(CACHE / "ruff")
    if (ROOT.parent / "shared").is_dir():
        env.setdefault("ACRN_IVSHMEM_SHARED", str(ROOT.parent / "shared"))
    if own_home:
        env["HOME"] = str(home(name, directory))
    else:
        env["ANSIBLE_CONFIG"] = str(collection(base) / "ansible.cfg")
    return env


def main(arguments: Sequence[str]) -> int:
    """The command line of script/setup."""
    parser = argparse.ArgumentParser(prog="script/setup", description="Make a part of what the project's scripts need.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    part = commands.add_parser("apt", help="install groups of Debian packages")
    part.add_argument("groups", nargs="+", choices=sorted(APT), metavar="GROUP", help=", ".join(sorted(APT)))
    part = commands.add_parser("venv", help="make a virtual environment, print its directory")
    part.add_argument("name", choices=sorted(VENVS), metavar="NAME", help=", ".join(sorted(VENVS)))
    part = commands.add_parser("tree", help="copy the collection, print the directory for ANSIBLE_COLLECTIONS_PATH")
    part.add_argument("name", metavar="NAME", help="name of the copy; one that exists is brought up to date")
    part = commands.add_parser("run", help="run a command in a copy, with virtual environment and ansible.cfg")
    part.add_argument("--venv", default="main", choices=sorted(VENVS), metavar="NAME", help="main is the default")
    part.add_argument("--tree", default="run", metavar="NAME", help="name of the copy, run is the default")
    part.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD ...")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        if options.command == "apt":
            for group in options.groups:
                apt(group, say)
        elif options.command == "venv":
            print(venv(options.name, say))
        elif options.command == "tree":
            print(tree(options.name))
        else:
            words = options.words[1:] if options.words[:1] == ["--"] else options.words
            if not words:
                parser.error("run: a command is missing")
            venv(options.venv, say)
            base = tree(options.tree)
            execute(words, collection(base), environment(options.venv, base, own_home=False))
    except MachineError as error:
        say(f"script/setup: {error}")
        return 1
    return 0


def execute(words: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
    """Become a command."""
    os.chdir(directory)
    sys.stdout.flush()
    try:
        os.execvpe(words[0], list(words), dict(env))
    except OSError as error:
        raise MachineError(f"{words[0]}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
