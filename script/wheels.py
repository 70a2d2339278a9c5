"""What script/wheels runs: compiles the C core for each target, puts it where an app looks for it, and measures it."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "runtime" / "native"
DIST, BUILD = ROOT / "dist", ROOT / "build" / "wheels"
FLAGS = (NATIVE / "flags.txt").read_text(encoding="utf-8").split()
SOURCES = sorted(map(str, NATIVE.rglob("*.c")))
HEADER = NATIVE / "mobilenmt.h"
BIONIC = ROOT / "script" / "bionic.h"
# What the core includes and the compiler does not bring itself.
BIONIC_HEADERS = (
    *("errno", "fcntl", "math", "stdio", "stdlib", "string", "time", "unistd"),
    *("sys/auxv", "sys/mman", "sys/stat"),
)
ANDROID_PAGES = "-Wl,-z,max-page-size=16384"  # Android 15 and later refuse less
# Windows 10's own C library, by the names of its parts: zig's libraries for MinGW come whole, 100 kB of them.
WINDOWS = (
    *("-nostdlib", "-D__USE_MINGW_ANSI_STDIO=0", "script/windows.c", "-lkernel32"),
    *(f"-lapi-ms-win-crt-{part}-l1-1-0" for part in ("heap", "private", "stdio", "string")),
)
INSTALL_NAME = ("-Wl,-install_name,@rpath/_native.dylib",)  # else the place where it was built
MOST_BYTES, MOST_COMPRESSED = 300_000, 150_000


@dataclass(frozen=True)
class Target:
    """A system: zig's name for it and flags of its own; a wheel's platform tag, or a library's file in dist/."""

    triple: str
    flags: tuple[str, ...] = ()
    wheel: str | None = None
    library: str = ""


TARGETS = {
    "linux-x86_64": Target("x86_64-linux-gnu.2.17", ("-fPIC",), wheel="manylinux2014_x86_64"),
    "linux-aarch64": Target("aarch64-linux-gnu.2.17", ("-fPIC",), wheel="manylinux2014_aarch64"),
    "musl-x86_64": Target("x86_64-linux-musl", ("-fPIC",), wheel="musllinux_1_1_x86_64"),
    "musl-aarch64": Target("aarch64-linux-musl", ("-fPIC",), wheel="musllinux_1_1_aarch64"),
    "macos-x86_64": Target("x86_64-macos.11.0", INSTALL_NAME, wheel="macosx_11_0_x86_64"),
    "macos-arm64": Target("aarch64-macos.11.0", INSTALL_NAME, wheel="macosx_11_0_arm64"),
    "windows-amd64": Target("x86_64-windows-gnu", WINDOWS, wheel="win_amd64"),
    "android-arm64-v8a": Target("aarch64-linux-android", library="android/arm64-v8a/libmobilenmt.so"),
    # clang fails at NEON under zig's name for this system; by this name it makes the same code, with Android's calls.
    "android-armeabi-v7a": Target(
        "arm-linux-musleabihf",
        (
            *("-mcpu=cortex_a8", "-mfloat-abi=softfp", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
            *("-fno-builtin-bcmp", "-lcompiler_rt"),
        ),
        library="android/armeabi-v7a/libmobilenmt.so",
    ),
    "android-x86_64": Target("x86_64-linux-android", library="android/x86_64/libmobilenmt.so"),
    "ios": Target("aarch64-ios.13.0", library="ios/arm64/libmobilenmt.a"),
    "ios-simulator-arm64": Target("aarch64-ios.14.0-simulator", library="ios/simulator-arm64/libmobilenmt.a"),
    "ios-simulator-x86_64": Target("x86_64-ios.13.0-simulator", library="ios/simulator-x86_64/libmobilenmt.a"),
    "wasm": Target("wasm32-wasi", ("-msimd128",), library="wasm/mobilenmt.wasm"),
    "wasm-relaxed": Target("wasm32-wasi", ("-msimd128", "-mrelaxed-simd"), library="wasm/mobilenmt-relaxed.wasm"),
}


def compiler(target: Target) -> list[str]:
    """The command of zig's C compiler for a target."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple, *target.flags]
    if "-nostdlib" in target.flags:  # without its libraries, zig gives no headers either
        command += ["-isystem", str(headers("windows"))]
    return command


def headers(system: str) -> Path:
    """Where zig keeps a system's headers: it looks for them only where it links that system's libraries, too."""
    import ziglang

    return Path(ziglang.__file__).parent / "lib" / "libc" / "include" / f"any-{system}-any"


def run(command: Sequence[object], **environment: str) -> None:
    """Run a command.

    Raises:
        SystemExit: it failed; its own message is above.
    """
    words = list(map(str, command))
    if subprocess.run(words, check=False, cwd=ROOT, env=os.environ | environment).returncode:
        raise SystemExit(f"error: {shlex.join(words)[:300]} failed (its message is above)")


def build_wheel(name: str, target: Target) -> tuple[str, int]:
    """A wheel in dist/; name and bytes of the library in it."""
    assert target.wheel is not None
    base = BUILD / name
    shutil.rmtree(base, ignore_errors=True)  # setuptools would take along what lies there
    steps = ["build", "--build-base", base, "bdist_wheel", "--bdist-dir", base / "wheel", "--dist-dir", DIST]
    environment = {"MOBILENMT_CC": shlex.join(compiler(target)), "MOBILENMT_PLATFORM": target.wheel}
    run([sys.executable, "-W", "ignore", "setup.py", "-q", *steps], **environment)
    (wheel,) = DIST.glob(f"mobilenmt-*-py3-none-{target.wheel}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (library,) = (entry for entry in archive.infolist() if "/native/_native." in entry.filename)
    return wheel.name, library.file_size


def build_android(target: Target, out: Path) -> None:
    """A library that takes libc and libm from the device, which are stood in for while it is linked."""
    place = BUILD / target.triple
    for header in BIONIC_HEADERS:
        path = place / "include" / f"{header}.h"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#include "{BIONIC}"\n', encoding="utf-8")
    command = [*compiler(target), "-nostdlib", "-fPIC", "-shared"]
    stand_ins = [place / "libc.so", place / "libm.so"]
    declared = BIONIC.read_text(encoding="utf-8").partition("/* libc.so */")[2].partition("#define")[0]
    for library, functions in zip(stand_ins, declared.split("/* libm.so */"), strict=True):
        names = re.findall(r"^[\w ]+[ *](\w+)\(.*\);$", functions, re.MULTILINE)
        source = library.with_suffix(".c")
        source.write_text("".join(f"void {name}(void) {{}}\n" for name in names), encoding="utf-8")
        run([*command, "-fno-builtin", "-w", f"-Wl,-soname,{library.name}", "-o", library, source])
    include = [f"-I{place / 'include'}", f"-I{NATIVE}"]  # first, before any that zig brings
    link = ["-s", ANDROID_PAGES, "-Wl,-soname,libmobilenmt.so", "-Wl,--no-undefined", *stand_ins]
    run([*command, *FLAGS, *include, "-o", out, *SOURCES, *link])


def build_archive(target: Target, out: Path) -> None:
    """A static library: iOS takes no other from strangers."""
    objects = BUILD / target.triple
    shutil.rmtree(objects, ignore_errors=True)
    objects.mkdir(parents=True)
    made = []
    for source in map(Path, SOURCES):
        made.append(objects / ("-".join(source.relative_to(NATIVE).with_suffix("").parts) + ".o"))
        run([*compiler(target), *FLAGS, f"-I{NATIVE}", "-isystem", headers("darwin"), "-c", "-o", made[-1], source])
    out.unlink(missing_ok=True)
    run([sys.executable, "-m", "ziglang", "ar", "rcs", out, *made])


def build_wasm(target: Target, out: Path) -> None:
    """A module that a page loads; all it imports is the clock."""
    exported = [
        "malloc",
        "free",
        *re.findall(r"^MN_API .*\b(mn_\w+)\(", HEADER.read_text(encoding="utf-8"), re.MULTILINE),
    ]
    exports = [f"-Wl,--export={name}" for name in exported if name != "mn_open"]
    link = ["-mexec-model=reactor", "-s", "-Wl,-z,stack-size=262144", "-Wl,--export-table", "-Wl,--growable-table"]
    run([*compiler(target), *FLAGS, "-DMN_NO_FILES", f"-I{NATIVE}", "-o", out, *SOURCES, *link, *exports])


def build_library(target: Target) -> tuple[str, int]:
    """A library in dist/, the header beside it; its name and bytes."""
    out = DIST / target.library
    out.parent.mkdir(parents=True, exist_ok=True)
    build = {".a": build_archive, ".wasm": build_wasm, ".so": build_android}[out.suffix]
    build(target, out)
    shutil.copyfile(HEADER, DIST / out.relative_to(DIST).parts[0] / HEADER.name)
    return target.library, out.stat().st_size


def compress(data: bytes) -> dict[str, int]:
    """Bytes of it as a web server sends it; by brotli if that is installed."""
    sizes = {"gzip": len(gzip.compress(data, 9))}
    if importlib.util.find_spec("brotli") is not None:
        import brotli

        sizes["brotli"] = len(brotli.compress(data))
    return sizes


def main() -> None:
    """Build what is asked for.

    Raises:
        SystemExit: something does not compile, or is larger than it may be.
    """
    parser = argparse.ArgumentParser(prog="script/wheels")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all if none is named")
    parser.add_argument("--list", action="store_true", help="print the targets and stop")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if arguments.list:
        print(*TARGETS, sep="\n")
        return
    DIST.mkdir(exist_ok=True)
    rows, too_large = [], []
    for name in arguments.targets or TARGETS:
        target = TARGETS[name]
        print(f"{name} ...", file=sys.stderr)
        made, size = build_wheel(name, target) if target.wheel else build_library(target)
        zipped = f"{(DIST / made).stat().st_size:,}" if target.wheel else ""
        if made.endswith(".wasm"):
            compressed = compress((DIST / made).read_bytes())
            zipped = ", ".join(f"{bytes_:,} {way}" for way, bytes_ in compressed.items())
            too_large += [made] if compressed["gzip"] > MOST_COMPRESSED else []
        too_large += [made] if size > MOST_BYTES and not made.endswith(".a") else []
        rows.append(f"| {name} | `{made}` | {size:,} | {zipped} |")
    table = "\n".join(["| target | in dist/ | library, bytes | compressed |", "|---|---|---|---|", *rows, ""])
    (DIST / "sizes.md").write_text(table, encoding="utf-8")
    print(table, end="")
    if too_large:
        raise SystemExit(f"error: larger than {MOST_BYTES:,} bytes, or {MOST_COMPRESSED:,} compressed: {too_large}")


if __name__ == "__main__":
    main()
