"""Describes the compiled extension; everything else stands in pyproject.toml.

libcrypto is looked for, in this order: the folder named by N2N_OPENSSL_PREFIX (with include/ and
lib/ or lib64/; a static libcrypto.a in it is preferred), then pkg-config.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

from setuptools import Extension, setup

HERE = pathlib.Path(__file__).resolve().parent
FAST = pathlib.Path("src/n2n/_fastpath")
OPENSSL_MIN = "3.0"
BUILDS = {"build_ext", "build", "install", "bdist_wheel", "develop", "editable_wheel"}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}


def stop(what: str, apt: str, dnf: str) -> None:
    sys.exit(
        f"\nn2n cannot be built: {what}.\n"
        f"  Debian, Ubuntu:  apt-get install -y {apt}\n"
        f"  Fedora, RHEL:    dnf install -y {dnf}\n"
    )


def need_compiler() -> None:
    words = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    packages = ("gcc libc6-dev", "gcc glibc-devel")
    if not shutil.which(words[0]):
        stop(f"there is no C compiler ({words[0]!r} is not on PATH)", *packages)
    # Debian's gcc only recommends the C library's headers.
    trial = subprocess.run(
        [*words, "-E", "-x", "c", "-"], input="#include <stdio.h>\n", capture_output=True, text=True, check=False
    )
    if trial.returncode:
        said = (trial.stderr.strip() or f"exit status {trial.returncode}").splitlines()[0]
        stop(f"the C compiler {' '.join(words)!r} cannot read <stdio.h> ({said})", *packages)


def need_headers() -> None:
    where = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(where, "Python.h")):
        stop(f"Python's headers are missing ({where}/Python.h)", "python3-dev", "python3-devel")


def libcrypto() -> dict[str, list[str]]:
    prefix = os.environ.get("N2N_OPENSSL_PREFIX")
    if prefix:
        root = pathlib.Path(prefix)
        if not (root / "include/openssl/evp.h").exists():
            stop(f"N2N_OPENSSL_PREFIX={prefix} has no include/openssl/evp.h", "libssl-dev", "openssl-devel")
        libs = [d for d in (root / "lib64", root / "lib") if d.is_dir()]
        static = [str(d / "libcrypto.a") for d in libs if (d / "libcrypto.a").exists()]
        if static:
            return {
                "include_dirs": [str(root / "include")],
                "extra_objects": static[:1],
                "libraries": ["dl", "pthread"],
            }
        return {
            "include_dirs": [str(root / "include")],
            "library_dirs": [str(d) for d in libs],
            "libraries": ["crypto", "dl"],
        }
    tool = shutil.which("pkg-config") or shutil.which("pkgconf")
    if not tool:
        if not any(os.path.exists(os.path.join(d, "openssl/evp.h")) for d in ("/usr/include", "/usr/local/include")):
            stop(
                "libcrypto's headers are missing (openssl/evp.h), and pkg-config too",
                "libssl-dev pkg-config",
                "openssl-devel pkgconf",
            )
        return {"libraries": ["crypto", "dl"]}
    if subprocess.run([tool, f"--atleast-version={OPENSSL_MIN}", "libcrypto"], check=False).returncode:
        stop(
            f"libcrypto {OPENSSL_MIN} or newer was not found by pkg-config",
            "libssl-dev pkg-config",
            "openssl-devel pkgconf",
        )

    def ask(option: str) -> list[str]:
        answer = subprocess.run([tool, option, "libcrypto"], check=True, capture_output=True, text=True)
        return answer.stdout.split()

    return {
        "include_dirs": [w[2:] for w in ask("--cflags-only-I")],
        "library_dirs": [w[2:] for w in ask("--libs-only-L")],
        "libraries": [w[2:] for w in ask("--libs-only-l")] + ["dl"],
    }


def extensions(building: bool) -> list[Extension]:
    lib: dict[str, list[str]] = {}
    if building:  # an sdist and the metadata need neither a compiler nor libcrypto
        need_compiler()
        need_headers()
        lib = libcrypto()
    abi3 = os.environ.get("N2N_ABI3", "1") != "0"
    depends = sorted(str(p.relative_to(HERE)) for p in (HERE / FAST).glob("*") if p.suffix in (".pxd", ".h"))
    macros: list[tuple[str, str | None]] = [("Py_LIMITED_API", "0x030B0000")] if abi3 else []
    if lib.get("extra_objects"):
        macros.append(("N2N_STATIC_LIBCRYPTO", "1"))
    out = []
    for source in sorted((HERE / FAST).glob("*.pyx")):
        ext = Extension(
            f"n2n._fastpath.{source.stem}",
            [str(FAST / source.name)],
            depends=depends,
            define_macros=macros,
            py_limited_api=abi3,
            include_dirs=[str(FAST), *lib.get("include_dirs", [])],
            library_dirs=lib.get("library_dirs", []),
            libraries=lib.get("libraries", []),
            extra_objects=lib.get("extra_objects", []),
            extra_compile_args=[
                "-O3",
                "-g0",
                "-fvisibility=hidden",
                "-Wall",
                "-Werror=implicit-function-declaration",
                *os.environ.get("N2N_CFLAGS", "").split(),
            ],
            extra_link_args=os.environ.get("N2N_LDFLAGS", "").split(),
        )
        ext.cython_directives = DIRECTIVES
        ext.cython_c_in_temp = True
        out.append(ext)
    return out


setup(
    ext_modules=extensions(bool(BUILDS & set(sys.argv))),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if os.environ.get("N2N_ABI3", "1") != "0" else {},
)
