"""Downloads from a server on this machine: resume, checksums, no network."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile

import pytest

from tfmtl.adapters import catalogue, download
from tfmtl.adapters.sources import Source
from tfmtl.errors import ConfigError, DataError
from tfmtl.progress import Silent

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files`; says what was asked for in `ranges`."""

    files: dict[str, bytes] = {}
    ranges: list[str | None] = []
    supports_range = True
    stop_after: int | None = None

    def do_GET(self):
        content = self.files.get(self.path)
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.supports_range:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = None if self.stop_after is None else start + self.stop_after
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Handler,), {"files": {}, "ranges": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    handler.url = f"http://127.0.0.1:{running.server_address[1]}"
    yield handler
    running.shutdown()
    thread.join()
    running.server_close()


def fetch(server, folder, **options):
    """Fetches /x.bin with these expectations."""
    server.files.setdefault("/x.bin", CONTENT)
    source = Source(url=f"{server.url}/x.bin", file="x.bin", **options)
    return download.fetch(source, folder, "get it by hand", Silent())


def test_fetches_and_keeps(server, tmp_path):
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == CONTENT
    assert not (tmp_path / "x.bin.part").exists()
    fetch(server, tmp_path, md5=MD5)
    assert server.ranges == [None]


def test_goes_on_where_it_stopped(server, tmp_path):
    server.stop_after = 300_000
    with pytest.raises(DataError, match=r"Try again.*get it by hand"):
        fetch(server, tmp_path, md5=MD5)
    part = tmp_path / "x.bin.part"
    assert part.stat().st_size == 300_000 and not (tmp_path / "x.bin").exists()
    server.stop_after = None
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_starts_again_where_the_server_knows_no_ranges(server, tmp_path):
    server.supports_range = False
    (tmp_path / "x.bin.part").write_bytes(b"old" * 100)
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == CONTENT


def test_a_complete_part_is_taken(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"md5": "0" * 32}, {"size": len(CONTENT) - 1}])
def test_another_file_is_refused_and_removed(server, tmp_path, wrong):
    with pytest.raises(DataError, match="did not give the publisher's file"):
        fetch(server, tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_does_not_pass(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(b"?" * 1000)
    with pytest.raises(DataError, match="MD5"):
        fetch(server, tmp_path, md5=MD5)
    assert fetch(server, tmp_path, md5=MD5).read_bytes() == CONTENT


def test_not_there(server, tmp_path):
    source = Source(url=f"{server.url}/absent", file="absent")
    with pytest.raises(DataError, match=r"404.*get it by hand"):
        download.fetch(source, tmp_path, "get it by hand", Silent())


def test_zip_members_are_checked_and_flattened(server, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "1::2::3::4\n")
        archive.writestr("ml-1m/README", "terms")
    server.files["/x.bin"] = packed.getvalue()
    good = hashlib.md5(b"1::2::3::4\n").hexdigest()
    fetch(server, tmp_path, members={"ml-1m/ratings.dat": good})
    assert (tmp_path / "ratings.dat").read_text() == "1::2::3::4\n"
    assert not (tmp_path / "README").exists()
    (tmp_path / "ratings.dat").unlink()
    with pytest.raises(DataError, match=r"ratings\.dat in the archive has MD5"):
        fetch(server, tmp_path, members={"ml-1m/ratings.dat": "0" * 32})
    assert not (tmp_path / "ratings.dat").exists()
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch(server, tmp_path, members={"ml-1m/absent.dat": None})


def test_a_tar_inside_a_zip(server, tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name in ("census-income.data", "../../escape.txt", "._census-income.data"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("census.tar.gz", inner.getvalue())
    server.files["/x.bin"] = packed.getvalue()
    fetch(server, tmp_path, members={"census.tar.gz": None})
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["census-income.data", "escape.txt", "x.bin"]


def test_no_connection_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **options):
        raise download.urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(download.urllib.request, "urlopen", offline)
    with pytest.raises(DataError) as error:
        download.download("movielens-1m", tmp_path / "raw")
    text = str(error.value)
    assert "Network is unreachable" in text and "ratings.dat" in text
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip" in text
    assert str(tmp_path / "raw") in text


def test_publishers_that_want_a_login(tmp_path):
    for adapter in catalogue.ADAPTERS:
        if not adapter.downloads:
            with pytest.raises(
                DataError, match="login or for accepting terms"
            ) as error:
                download.download(adapter.name, tmp_path)
            assert adapter.instructions in str(error.value)


def test_unknown_name(tmp_path):
    with pytest.raises(ConfigError, match="must be one of"):
        download.download("nothing", tmp_path)
