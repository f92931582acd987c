# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACRN's own acrn-dm, and what it needs in a Service VM.

``ACRN_DM`` is a binary; without it, acrn-dm is built once from the source and kept. Libraries for screens, USB and
cryptography, some 60 files of 80 MB, are replaced by small ones with the same symbols, which are not called but for the
digest that names a disk: every byte of an image costs the emulator time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from image import libraries, run

STUBBED = ("libcrypto", "libusb-1", "libpixman", "libSDL2", "libEGL", "libGLES")
# Headers by the Debian packages that have them.
HEADERS = {
    "libpciaccess-dev": "pciaccess.h",
    "uuid-dev": "uuid/uuid.h",
    "libssl-dev": "openssl/md5.h",
    "libusb-1.0-0-dev": "libusb-1.0/libusb.h",
    "libcjson-dev": "cjson/cJSON.h",
    "liburing-dev": "liburing.h",
    "libpixman-1-dev": "pixman-1/pixman.h",
    "libsdl2-dev": "SDL2/SDL.h",
    "libegl-dev": "EGL/egl.h",
    "libdrm-dev": "libdrm/drm_fourcc.h",
}


def missing() -> str:
    """Debian packages that are not there, as words of a command line; empty where nothing is missing."""
    needs = {"acpica-tools": shutil.which("iasl") is not None, "bash": shutil.which("bash") is not None}
    if not os.environ.get("ACRN_DM"):
        needs.update({name: (Path("/usr/include") / header).exists() for name, header in HEADERS.items()})
    return " ".join(name for name, there in needs.items() if not there)


def program(tree: Path, version: tuple[int, int], cache: Path) -> Path:
    """Path of acrn-dm for an ACRN version: what ``ACRN_DM`` says, or what the tree gives (a minute of CPU time)."""
    given = os.environ.get("ACRN_DM")
    if given:
        return Path(given)
    kept = cache / f"acrn-dm-{version[0]}.{version[1]}"
    if kept.exists():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    compiler = "gcc-11" if shutil.which("gcc-11") else "gcc"
    with tempfile.TemporaryDirectory(dir=cache) as place:
        services = Path(place) / "services"
        services.mkdir()
        # As the Makefile at the top calls the two; it would also build tools that want more libraries.
        manager = tree / "misc/services/acrn_manager"
        run("make", "-C", str(manager), f"OUT_DIR={services}", f"CC={compiler}", "all")
        words = [f"DM_OBJDIR={place}/dm", f"TOOLS_OUT={place}", "IASL_MIN_VER=20190703", f"CC={compiler}"]
        build = ["DM_BUILD_VERSION=real", "DM_BUILD_TAG=real", "SYSROOT="]
        run("make", "-C", str(tree / "devicemodel"), f"-j{os.cpu_count() or 1}", *words, *build)
        fresh = kept.with_name(f".{kept.name}")
        shutil.copy(Path(place) / "dm/acrn-dm", fresh)
        run("strip", str(fresh))
        fresh.rename(kept)
    return kept


def _symbols(path: Path, which: str) -> Iterator[tuple[str, str]]:
    """Names and versions of the dynamic symbols that an object defines, or wants."""
    for line in run("nm", "--dynamic", f"--{which}-only", str(path)).splitlines():
        name, _at, version = line.split()[-1].partition("@")
        yield name, version.lstrip("@")


def _body(name: str) -> str:
    """A function in the place of one of a library. A disk is named by a digest of its path, which may be anything."""
    if name.startswith(("EVP_md5", "EVP_Digest", "EVP_MD_CTX_", "MD5_")):
        return f"void *{name}(void) {{ return 0; }}"
    return f"void {name}(void) {{ __builtin_trap(); }}"


def _stub(path: Path, library: Path, folder: Path) -> bytes:
    """A library in the place of another: the symbols that a program wants of it."""
    defined = {name for name, _version in _symbols(library, "defined")}
    wanted = [(name, version) for name, version in _symbols(path, "undefined") if name in defined]
    source, versions = folder / "stub.c", folder / "stub.map"
    source.write_text("".join(f"{_body(name)}\n" for name, _version in wanted))
    groups: dict[str, list[str]] = {}
    for name, version in wanted:
        groups.setdefault(version, []).append(name)
    unversioned = groups.pop("", [])
    versions.write_text("".join(f"{name} {{ global: {'; '.join(group)}; }};\n" for name, group in groups.items()))
    found = re.search(r"SONAME.*\[(.*)\]", run("readelf", "--dynamic", str(library)))
    soname = found.group(1) if found else library.name
    script = [f"-Wl,--version-script={versions}"] if groups and not unversioned else []
    target = folder / "stub.so"
    flags = ["-shared", "-nostdlib", "-fno-builtin", "-w", f"-Wl,-soname,{soname}", *script]
    run("gcc", *flags, "-o", str(target), str(source))
    run("strip", str(target))
    return target.read_bytes()


def files(path: Path, version: tuple[int, int]) -> tuple[dict[str, bytes], list[str]]:
    """acrn-dm with its libraries, iasl, and bash for the launch scripts: files by path, and which are programs."""
    # Up to v3.0 acrn-dm knows iasl by one path alone (hw/platform/acpi/acpi.c, ASL_COMPILER).
    compiler = "usr/bin/iasl" if version > (3, 0) else "usr/sbin/iasl"
    others = {name: shutil.which(Path(name).name) for name in (compiler, "usr/bin/bash")}
    found: dict[str, bytes] = {"usr/bin/acrn-dm": path.read_bytes()}
    programs = ["usr/bin/acrn-dm"]
    kept = [Path(place) for place in libraries(str(path))]
    stubs = [place for place in kept if place.name.startswith(STUBBED)]
    direct = set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "--dynamic", str(path))))
    with tempfile.TemporaryDirectory() as place:
        for library in stubs:
            if library.name in direct:
                found[str(library).lstrip("/")] = _stub(path, library, Path(place))
    real = [library for library in kept if library.name in direct and library not in stubs]
    needed = {name for library in real for name in libraries(str(library))} | {str(library) for library in real}
    for name, where in others.items():
        if where is None:
            raise RuntimeError(f"no {name}")
        found[name] = Path(where).read_bytes()
        programs.append(name)
        needed.update(libraries(where))
    for library_name in needed:
        found[library_name.lstrip("/")] = Path(library_name).read_bytes()
        programs.append(library_name.lstrip("/"))
    return found, programs


def digest(path: Path) -> str:
    """What tells one acrn-dm from another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def version(path: Path) -> str:
    """What a binary says of itself."""
    done = subprocess.run([str(path), "-v"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return (done.stdout + done.stderr).strip()
