"""Installing detectron2's Python files: on a small stand-in made here, whose own set-up must never run."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from flexseg.cli import main
from flexseg.errors import UserError
from flexseg.models.detectron2 import COMMIT, RECIPE
from flexseg.tasks import detectron2

BOOM = "raise SystemExit('this was run')\n"
FILES = {
    "detectron2/__init__.py": f'{BOOM}__version__ = "0.6"\n',
    "detectron2/modeling/__init__.py": BOOM,
    "detectron2/projects/__init__.py": BOOM,
    "projects/DeepLab/deeplab/__init__.py": BOOM,
    "projects/DeepLab/deeplab/resnet.py": BOOM,
    "projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py": BOOM,
    "projects/PointRend/point_rend/__init__.py": BOOM,
}
OTHERS = {"setup.py": BOOM, "README.md": "…", "detectron2/layers/csrc/vision.cpp": "int main;", "tests/test_a.py": BOOM}
"""What a source holds besides, and what is never installed."""
BYTES = {name: text.encode() for name, text in FILES.items()}
DIGEST = detectron2.digest_of(BYTES)
Archive = Callable[..., Path]


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is the pinned commit, and what detectron2 needs is there."""
    monkeypatch.setattr(detectron2, "SHA256", DIGEST)
    monkeypatch.setattr(detectron2, "NEEDED", ("torch",))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "detectron2"
    for name, text in (FILES | OTHERS).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def tar(path: Path, *more: tarfile.TarInfo, top: str = "detectron2-02b5c4e/", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, text in (FILES | OTHERS).items():
            info = tarfile.TarInfo(top + name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for info in more:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def pack(path: Path, *more: tuple[zipfile.ZipInfo, bytes], top: str = "detectron2-02b5c4e/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (FILES | OTHERS).items():
            archive.writestr(top + name, text)
        for info, data in more:
            archive.writestr(info, data)
    return path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[str]:
    """The address of the test's folder on a web server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path != "/breaks-off":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK\x03\x04")
            return None

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def environment(folder: Path) -> str:
    """The Python of an empty environment that finds pip in the tests' own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "pip.pth").write_text(sysconfig.get_path("purelib"))
    return str(python)


def refusal(source: object, sha256: str = "") -> str:
    with pytest.raises(UserError) as error:
        detectron2.install_detectron2(str(source), sha256, python="/no/python/is/called")
    assert "\n" not in str(error.value)
    return str(error.value)


# What is read


def test_every_kind_of_source_gives_the_same_files(checkout: Path, tmp_path: Path, serve: str) -> None:
    tar(tmp_path / "a.tar.gz"), pack(tmp_path / "a.zip")
    sources = [
        checkout,
        tmp_path / "a.tar.gz",
        tmp_path / "a.zip",
        tar(tmp_path / "bare.tar", top="", mode="w"),
        tar(tmp_path / "clone.tar.gz", top="detectron2/"),
        pack(tmp_path / "deep.zip", top="home/me/detectron2/"),
        (tmp_path / "a.zip").as_uri(),
        f"{serve}/a.tar.gz",
        f"{serve}/a.zip",
    ]
    for source in sources:
        assert detectron2.read_sources(str(source)) == BYTES, source


def test_the_digest_is_what_sha256sum_computes(checkout: Path) -> None:
    """The command in the module's head, so that anybody can check the pinned digest."""
    command = " ".join(line.strip(" \\\n") for line in (detectron2.__doc__ or "").split("::")[1].strip().splitlines())
    assert command.startswith("find detectron2 projects/")
    done = subprocess.run(command, shell=True, cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == DIGEST


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason=f"needs detectron2: {RECIPE}")
@pytest.mark.detectron2
def test_an_installed_detectron2_of_the_pinned_commit_has_the_pinned_digest() -> None:
    from importlib import metadata

    from flexseg.models.detectron2 import SHA256

    if metadata.version("detectron2") != f"0.6+g{COMMIT[:12]}":
        pytest.skip(f"another build is installed: {metadata.version('detectron2')}")
    spec = importlib.util.find_spec("detectron2")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parents[1]
    projects = {installed: part for part, installed in detectron2.PARTS.items() if part != installed}
    files = {}
    for path in (home / "detectron2").rglob("*.py"):
        name = path.relative_to(home).as_posix()
        part = next((each for each in projects if name.startswith(f"{each}/")), "")
        files[projects[part] + name.removeprefix(part) if part else name] = path.read_bytes()
    assert detectron2.digest_of(files) == SHA256


# What is installed


def test_the_files_are_installed_and_found_and_none_is_run(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(tmp_path / "env")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pip.py").write_text("raise SystemExit('a pip.py of the working directory was run')")
    assert detectron2.install_detectron2(str(checkout), python=python) == f"0.6+g{COMMIT[:12]}"
    code = "from flexseg.provenance import package_versions; print(package_versions()['detectron2'])"
    root = Path(__file__).parents[2]
    done = subprocess.run([python, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"0.6+g{COMMIT[:12]}"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    installed = {path.relative_to(site).as_posix() for path in (site / "detectron2").rglob("*.py")}
    renamed = {
        name.replace("projects/DeepLab", "detectron2/projects")
        .replace("projects/Panoptic-DeepLab", "detectron2/projects")
        .replace("projects/PointRend", "detectron2/projects")
        for name in FILES
    }
    assert installed == renamed
    assert {path.name for path in site.iterdir() if path.suffix != ".pth"} == {
        "detectron2",
        f"detectron2-0.6+g{COMMIT[:12]}.dist-info",
    }, "something else was installed"
    # Again: a file that was damaged since is mended. And other files replace the first.
    (site / "detectron2" / "modeling" / "__init__.py").write_text("damaged")
    detectron2.install_detectron2(str(checkout), python=python)
    assert (site / "detectron2" / "modeling" / "__init__.py").read_text() == BOOM
    (checkout / "detectron2" / "layers" / "new.py").write_text(BOOM)
    (checkout / "projects/DeepLab/deeplab/resnet.py").unlink()
    digest = detectron2.digest_of(detectron2.read_sources(str(checkout)))
    assert detectron2.install_detectron2(str(checkout), digest, python) == f"0.6+py{digest[:12]}"
    done = subprocess.run([python, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"0.6+py{digest[:12]}"
    assert (site / "detectron2" / "layers" / "new.py").is_file()
    assert not (site / "detectron2" / "projects" / "deeplab" / "resnet.py").exists()


def test_the_wheel_lists_every_file_with_its_digest(tmp_path: Path) -> None:
    wheel = detectron2.write_wheel(BYTES, "0.6+g0", DIGEST, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        lines = [line.split(",") for line in archive.read("detectron2-0.6+g0.dist-info/RECORD").decode().splitlines()]
        assert {name for name, *_ in lines} == set(archive.namelist())
        assert len(lines) == len(archive.namelist()) == len(FILES) + 3
        assert all(int(size) == len(archive.read(name)) for name, _, size in lines if size)


def test_what_pip_says_is_told(checkout: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'error: externally-managed-environment' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(UserError, match=r"pip could not install.*first error: externally-managed-environment"):
        detectron2.install_detectron2(str(checkout), python=str(python))


def test_what_it_needs_is_asked_for_first(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectron2, "NEEDED", ("torch", "no-such-package>=1", "nor-this<2,>=1"))
    assert "needs no-such-package, nor-this, which this environment lacks: `pip install" in refusal(checkout)


def test_the_extra_is_what_the_wheel_declares(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {str(Requirement(each)) for each in extras["detectron2"]} == {str(Requirement(n)) for n in detectron2.NEEDED}
    pins = dict(line.split("==") for line in (root / "requirements.lock").read_text().splitlines() if "==" in line)
    for each in map(Requirement, detectron2.NEEDED):
        assert each.specifier.contains(pins[each.name]), each
    assert not {"torchvision", "black", "tensorboard"} & {Requirement(each).name for each in extras["detectron2"]}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("source", ["", "a folder", "--help", "https://host/a.zip?a=1&b=`id`;'\"c"])
def test_make_hands_the_source_on_literally(root: Path, tmp_path: Path, source: str) -> None:
    """On an environment whose `flexseg` only prints what it is given."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text(f'PATH="{tmp_path}/bin:$PATH"\n')
    (tmp_path / "bin" / "flexseg").write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    (tmp_path / "bin" / "flexseg").chmod(0o755)
    (tmp_path / ".ready").touch()
    command = ["make", "--silent", f"VENV={tmp_path}", "detectron2", f"DETECTRON2={source}", "DETECTRON2_SHA256=02b5"]
    free = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # `make test` sets some
    done = subprocess.run(command, cwd=root, env=free, capture_output=True, text=True, check=True)
    assert done.stdout == f"<install-detectron2><--sha256><02b5><--><{source}>"


# What is refused


def test_without_a_source_it_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["install-detectron2", "--sha256", "", "--", ""])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert f"`{RECIPE}`" in shown
    assert "a checkout, an unpacked archive, a .zip or .tar.gz" in shown


def test_other_files_are_refused_and_their_digest_told(checkout: Path) -> None:
    (checkout / "detectron2" / "layers" / "new.py").write_text("")
    found = detectron2.digest_of(BYTES | {"detectron2/layers/new.py": b""})
    said = refusal(checkout)
    assert f"the Python files of commit {COMMIT}: their SHA-256 is {found}, not {DIGEST}" in said
    assert f"--sha256 {found}" in said
    assert "does not hold the Python files of the digest asked for" in refusal(checkout, "0" * 64)
    assert "--sha256 '02b5c4e' is no SHA-256" in refusal(checkout, "02b5c4e")


def test_a_changed_byte_or_name_changes_the_digest() -> None:
    name = "detectron2/__init__.py"
    changed = [BYTES | {name: BYTES[name] + b"\n"}, {f"{key}x": data for key, data in BYTES.items()}, {}]
    assert len({detectron2.digest_of(files) for files in [BYTES, *changed]}) == 4


def test_what_is_no_detectron2_is_named(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("<html>not found</html>")
    (tmp_path / "torn.tar.gz").write_bytes(tar(tmp_path / "whole.tar.gz").read_bytes()[:300])
    (tmp_path / "torn.zip").write_bytes(pack(tmp_path / "whole.zip").read_bytes()[:-40])
    assert "is no source of detectron2: detectron2/modeling/__init__.py is not in it" in refusal(tmp_path / "empty")
    assert "is neither a folder nor a file" in refusal(tmp_path / "nowhere")
    for name in ("text.zip", "torn.tar.gz", "torn.zip"):
        assert "cannot be read (" in refusal(tmp_path / name), name
    assert "is the package alone: give the folder above it" in refusal(checkout / "detectron2")
    (checkout / "projects/PointRend/point_rend/__init__.py").unlink()
    assert "lacks projects/PointRend/point_rend" in refusal(checkout)
    (checkout / "detectron2" / "__init__.py").unlink()
    assert "is no source of detectron2" in refusal(checkout)
    files = BYTES | {"detectron2/__init__.py": b"__version__ = 'latest'"}
    with pytest.raises(UserError, match="gives no __version__"):
        detectron2.version_of(files, "here")


def test_without_a_network_it_says_what_to_do(serve: str) -> None:
    assert "cannot be downloaded (HTTP Error 404: File not found). Without a network, get" in refusal(
        f"{serve}/none.zip"
    )
    assert "cannot be downloaded (it broke off after 4 of 1000 bytes)" in refusal(f"{serve}/breaks-off")
    assert "cannot be downloaded (" in refusal("http://127.0.0.1:1/a.zip")
    assert "cannot be downloaded (" in refusal("http://[::1/a.zip")
    assert "is not an address that begins with https://" in refusal("ftp://127.0.0.1/a.zip")


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def entry(name: str, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (entry("../evil.py"), "'../evil.py', which leads out of it"),
        (entry("detectron2-02b5c4e/../../evil.txt"), "which leads out of it"),
        (entry("/etc/evil"), "'/etc/evil', which leads out of it"),
        (link("detectron2-02b5c4e/detectron2/evil.py"), "is no plain file"),
        (link("detectron2-02b5c4e/detectron2/evil.py", tarfile.LNKTYPE), "is no plain file"),
        (link("detectron2-02b5c4e/detectron2/evil.py", tarfile.FIFOTYPE), "is no plain file"),
        (entry("detectron2-02b5c4e/detectron2/e\nvil.py"), "has an odd name"),
        (entry("detectron2-02b5c4e/detectron2/évil.py"), "has an odd name"),
        (entry("detectron2-02b5c4e/./detectron2/__init__.py"), "twice"),
        (entry("detectron2-02b5c4e/detectron2/big.py", 2 * 2**20), "more than 1 MiB of Python files"),
        (entry("detectron2-02b5c4e/weights.bin", 5 * 2**20), "unpacks to more than 4 MiB"),
    ],
)
def test_a_hostile_tar_is_refused(
    tmp_path: Path, member: tarfile.TarInfo, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectron2, "PYTHON_BYTES", 2**20)
    monkeypatch.setattr(detectron2, "UNPACKED_BYTES", 4 * 2**20)
    before = set(tmp_path.iterdir())
    assert said in refusal(tar(tmp_path / "a.tar.gz", member))
    assert set(tmp_path.iterdir()) - before == {tmp_path / "a.tar.gz"}, "something was unpacked"


def test_a_tar_whose_headers_are_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of a long name may declare any length, and tarfile reads it all before it gives a member."""
    monkeypatch.setattr(detectron2, "UNPACKED_BYTES", 4 * 2**20)
    header = entry("././@LongLink", 8 * 2**20)
    header.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(8 * 2**20)))
    assert "unpacks to more than 4 MiB" in refusal(tmp_path / "a.tar.gz")


def zip_entry(name: str, mode: int = stat.S_IFREG | 0o644, packing: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = packing
    return info


@pytest.mark.parametrize(
    ("info", "data", "said"),
    [
        (zip_entry("../evil.py"), b"", "which leads out of it"),
        (zip_entry("/evil"), b"", "which leads out of it"),
        (zip_entry("a\\..\\evil.py"), b"", "which leads out of it"),
        (zip_entry("detectron2-02b5c4e/detectron2/evil.py", stat.S_IFLNK | 0o777), b"/etc/passwd", "is no plain file"),
        (zip_entry("detectron2-02b5c4e/detectron2/big.py"), bytes(2 * 2**20), "more than 1 MiB of Python files"),
        (zip_entry("detectron2-02b5c4e/detectron2/x.py", packing=zipfile.ZIP_LZMA), b"", "packed in an unusual way"),
    ],
)
def test_a_hostile_zip_is_refused(
    tmp_path: Path, info: zipfile.ZipInfo, data: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectron2, "PYTHON_BYTES", 2**20)
    assert said in refusal(pack(tmp_path / "a.zip", (info, data)))


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    info = zip_entry("detectron2-02b5c4e/detectron2/big.py")
    content = pack(tmp_path / "a.zip", (info, bytes(2**20))).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace((2**20).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert "cannot be read (" in refusal(tmp_path / "a.zip")


def test_too_much_of_it_is_refused(tmp_path: Path, serve: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tar(tmp_path / "a.tar.gz")
    with monkeypatch.context() as patch:
        patch.setattr(detectron2, "ENTRIES", 5)
        assert "more than 5 files" in refusal(source)
    monkeypatch.setattr(detectron2, "ARCHIVE_BYTES", 100)
    assert "is larger than" in refusal(source)
    assert "gives more than" in refusal(f"{serve}/a.tar.gz")


def test_links_in_a_folder_are_refused_or_not_followed(checkout: Path, tmp_path: Path) -> None:
    """The folder that detectron2's own set-up links into the package is no part of the source."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.py").write_text("")
    (checkout / "detectron2" / "configs").symlink_to(tmp_path / "configs")
    assert detectron2.read_sources(str(checkout)) == BYTES
    (checkout / "detectron2" / "evil.py").symlink_to("/etc/passwd")
    assert "'detectron2/evil.py' is no plain file" in refusal(checkout)


def test_the_pinned_digest_is_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(detectron2.SHA256) == len(hashlib.sha256().hexdigest())
    assert detectron2.SHA256 != DIGEST
